"""What compaction pays: latency, size and operations over the share of channels kept.

Of each network a share of the hidden channels is switched off at random, as group
sparsity leaves it: the weights that read them are zero (in the residual network the
batch norms' scales and shifts, for all the channels of a stage that are added up). The
network is as slow as before; then it is compacted. The dense network and the compacted
ones take turns, in one process, on one thread; a figure is the median over the repeats
of the ratio to the dense network's pass just before.

Run ``python -m benchmarks.speed.compaction``; ``--device cuda`` for a GPU,
``--threads`` for more than one thread, ``--json FILE`` to keep the figures.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.networks import paper_convnet, small_resnet
from sklearn_structreg.compaction import compact
from sklearn_structreg.core import count_multiply_adds, make_mlp

DENSITIES = (1.0, 0.75, 0.5, 0.25, 0.1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "perceptron 784-1024-1024-10": (
        lambda: make_mlp(784, 10, (1024, 1024)),
        (128, 784),
    ),
    "the paper's ConvNet, 28 x 28": (
        lambda: paper_convnet((1, 28, 28), 10),
        (64, 1, 28, 28),
    ),
    "ResNet 32-64-128, 32 x 32": (
        lambda: small_resnet((3, 32, 32), 100),
        (32, 3, 32, 32),
    ),
}
"""How to build each network, and the shape of a batch."""


@torch.no_grad()
def switch_off(network: nn.Module, density: float) -> None:
    """Zero what reads a random share of the hidden channels, or what makes them."""
    generator = torch.Generator().manual_seed(0)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    off = {}  # layers of one width are added up: they lose the same channels
    for norm in norms:
        width = norm.num_features
        if width not in off:
            off[width] = torch.randperm(width, generator=generator)
        channels = off[width][round(density * width) :]
        norm.weight[channels] = 0.0
        norm.bias[channels] = 0.0
    if norms:
        return
    maps = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    for before, layer in pairwise(maps):
        width = before.weight.shape[0]
        channels = torch.randperm(width, generator=generator)
        pixels = layer.weight.shape[1] // width  # of a flattened map
        readers = layer.weight.unflatten(1, (width, pixels))
        readers[:, channels[round(density * width) :]] = 0.0


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(network: nn.Module, batch: Tensor) -> float:
    """Time a forward pass."""
    start = time.perf_counter()
    network(batch)
    synchronize(str(batch.device))
    return time.perf_counter() - start


def measure(
    build: Callable[[], nn.Module],
    shape: tuple[int, ...],
    device: str,
    repeats: int,
) -> dict[str, dict[str, float]]:
    """Compact one network at every density and time the results."""
    torch.manual_seed(0)
    batch = torch.randn(shape, device=device)
    dense = build().to(device).eval()
    smaller: dict[float, nn.Module] = {}
    figures: dict[float, dict[str, float]] = {}
    for density in DENSITIES:
        sparse = copy.deepcopy(dense)
        switch_off(sparse, density)
        start = time.perf_counter()
        smaller[density] = compact(sparse, batch)
        elapsed = time.perf_counter() - start
        with torch.no_grad():
            expected, got = sparse(batch), smaller[density](batch)
        error = (expected - got).abs().max() / expected.abs().max()
        n_parameters = [
            sum(p.numel() for p in n.parameters()) for n in (sparse, smaller[density])
        ]
        flops = [count_multiply_adds(n, batch[:1]) for n in (sparse, smaller[density])]
        figures[density] = {
            "parameters": n_parameters[1] / n_parameters[0],
            "flops": flops[1] / flops[0],
            "relative_error": error.item(),
            "seconds_to_compact": elapsed,
        }
    times: dict[float, list[float]] = {density: [] for density in DENSITIES}
    ratios: dict[float, list[float]] = {density: [] for density in DENSITIES}
    with torch.inference_mode():
        for network in (dense, *smaller.values()):
            for _ in range(3):  # warm up
                seconds(network, batch)
        for _ in range(repeats):
            for density, network in smaller.items():  # in turns: noise falls on all
                of_dense = seconds(dense, batch)
                times[density].append(seconds(network, batch))
                ratios[density].append(times[density][-1] / of_dense)
    for density, record in figures.items():
        record["seconds"] = statistics.median(times[density])
        record["of_dense"] = statistics.median(ratios[density])
    return {str(density): record for density, record in figures.items()}


def table(name: str, rows: dict[str, dict[str, float]]) -> str:
    """Write the figures of one network as text."""
    lines = [
        f"{name}: batches of {NETWORKS[name][1][0]}",
        "channels  parameters    FLOPs        ms  of the dense  s to compact",
    ]
    for density, row in rows.items():
        lines.append(
            f"{100 * float(density):6.0f} %  {100 * row['parameters']:8.1f} %"
            f" {100 * row['flops']:6.1f} %  {1e3 * row['seconds']:8.2f}"
            f"  {row['of_dense']:12.2f}  {row['seconds_to_compact']:12.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {}
    for name, (build, shape) in NETWORKS.items():
        results[name] = measure(build, shape, arguments.device, arguments.repeats)
        print(table(name, results[name]), end="\n\n")
        if arguments.json:
            about = {
                "torch": torch.__version__,
                "machine": platform.machine(),
                "device": arguments.device,
                "threads": arguments.threads,
                "repeats": arguments.repeats,
            }
            record = {"about": about, "results": results}
            arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
