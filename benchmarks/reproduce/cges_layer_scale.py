"""Measure which constants on the two CGES terms cost the least accuracy.

For layers with n weights in a group and d inputs per unit, the constants are
``c * sqrt(n)`` on the group term and ``sqrt(d) / n`` on the exclusive one, for several
c; "bare" is the paper's formula, all ones. Digits, an MLP and a ConvNet, means over
seeds: accuracy on held-out samples, per cent of parameters left, and per layer the
fractions of zeros and of groups that are zero altogether.

Run ``python -m benchmarks.reproduce.cges_layer_scale`` (a few minutes).
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from sklearn_structreg import CGESClassifier
from sklearn_structreg.core import make_convnet, make_mlp

NETS = {
    "MLP": (None, make_mlp(64, 10), 60),
    "ConvNet": ((1, 8, 8), make_convnet((1, 8, 8), 10), 25),
}
FACTORS = {
    "bare": None,
    "c=1": 1.0,
    "c=.3": 0.3,
    "c=.1": 0.1,
    "c=.03": 0.03,
    "c=0": 0.0,
}


def constants(
    net: torch.nn.Module, c: float | None
) -> list[tuple[float, float]] | None:
    if c is None:
        return None
    shapes = [p.shape for p in net.parameters() if p.ndim > 1]
    return [(c * math.sqrt(s[0]), math.sqrt(math.prod(s[1:])) / s[0]) for s in shapes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.01, 0.03, 0.06])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    for name, (image_shape, net, max_epochs) in NETS.items():
        print(
            f"\n{name}\n   scale  alpha  accuracy  % left  zeros/zero groups by layer"
        )
        for label, c in FACTORS.items():
            for alpha in arguments.alphas:
                rows = []
                for seed in range(arguments.seeds):
                    split = train_test_split(X, y, test_size=0.4, random_state=seed)
                    X_train, X_test, y_train, y_test = split
                    scaler = StandardScaler().fit(X_train)
                    model = CGESClassifier(
                        alpha=alpha,
                        layer_scale=constants(net, c),
                        image_shape=image_shape,
                        max_epochs=max_epochs,
                        random_state=seed,
                    ).fit(scaler.transform(X_train), y_train)
                    weights = [
                        p.detach() for p in model.module_.parameters() if p.ndim > 1
                    ]
                    rows.append(
                        [
                            model.score(scaler.transform(X_test), y_test),
                            100 * model.n_nonzero_parameters_ / model.n_parameters_,
                            *[float((w == 0).double().mean()) for w in weights],
                            *[float((w == 0).all(0).double().mean()) for w in weights],
                        ]
                    )
                accuracy, left, *shares = np.mean(rows, axis=0)
                half = len(shares) // 2
                layers = " ".join(
                    f"{zeros:.2f}/{dead:.2f}"
                    for zeros, dead in zip(shares[:half], shares[half:], strict=True)
                )
                print(f"{label:>8} {alpha:6g}    {accuracy:.4f}  {left:6.1f}  {layers}")


if __name__ == "__main__":
    main()
