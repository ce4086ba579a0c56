"""Time predictions with heads: one by one, in one product, and on demand.

Twenty heads for the hundred classes of a small convolutional net, 32 samples. Each time
is given by that of the network without heads; "on demand" evaluates the heads of each
sample's best class alone. Processor times, medians of 80 alternating runs.

Run ``python -m benchmarks.speed.heads`` (a few seconds on one core).
"""

from __future__ import annotations

import time

import torch
from torch import nn

from sklearn_structreg.core import make_convnet
from sklearn_structreg.selfinformed.conditional import ConditionalNet, PredictingNet
from sklearn_structreg.selfinformed.heads import AugmentedNet
from sklearn_structreg.selfinformed.places import find_attachment_point

N_CLASSES, N_HEADS, N_ROWS, N_REPEATS = 100, 20, 32, 80
SIZES = ((2,), (64,), (128,), (256,), (512, 512))


def median_ms(modules: list[nn.Module], X: torch.Tensor) -> list[float]:
    """Return the median time of each module in milliseconds; they take turns."""
    times = []
    with torch.inference_mode():
        for _ in range(N_REPEATS):
            row = []
            for module in modules:
                start = time.process_time()
                module(X)
                row.append(1e3 * (time.process_time() - start))
            times.append(row)
    medians: list[float] = torch.tensor(times).median(dim=0).values.tolist()
    return medians


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = make_convnet((3, 16, 16), N_CLASSES).eval()
    X = torch.randn(N_ROWS, 3, 16, 16)
    with torch.no_grad():  # samples of many classes, as a trained network finds them
        scale = 1 / base(X).std(dim=0)
        base[-1].weight *= scale[:, None]
        base[-1].bias -= base(X).mean(dim=0)
    point = find_attachment_point(base, X, N_CLASSES, "auto")
    groups = [list(range(i, N_CLASSES, N_HEADS)) for i in range(N_HEADS)]
    names = ("one by one", "one product", "on demand, one by one", "on demand")
    print(f"{'heads':12}{'network, ms':>14}" + "".join(f"{n:>24}" for n in names))
    for sizes in SIZES:
        net = AugmentedNet(base, point)
        net.add_heads(groups, [sizes] * N_HEADS, seed=0)
        net.eval()
        modules = [
            *(base, net, PredictingNet(net)),
            *(
                ConditionalNet(net, base[-1], 1, counted=c).eval()
                for c in (True, False)
            ),
        ]
        plain, *others = median_ms(modules, X)
        cells = "".join(f"{t / plain:24.2f}" for t in others)
        print(f"{sizes!s:12}{plain:14.2f}{cells}")


if __name__ == "__main__":
    main()
