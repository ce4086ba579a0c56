"""Measure whether one strength means the same on networks of any shape.

Digits, networks of several widths and depths, each with several strengths: accuracy on
held-out samples and the share of the weights that are left, means over seeds.

Run ``python -m benchmarks.reproduce.cges_shapes`` (some minutes).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from sklearn_structreg import CGESClassifier

WIDTHS = [(16,), (100,), (1024,), (64, 64), (512, 512), (64, 64, 64, 64)]


def deep_convnet(input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Build a network of five convolutions."""
    layers: list[nn.Module] = []
    channels = input_shape[0]
    for width, pool in [(16, False), (16, True), (32, False), (32, False), (32, True)]:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * channels, n_outputs))


def networks() -> dict[str, dict[str, Any]]:
    """Return the parameters of each network."""
    nets: dict[str, dict[str, Any]] = {
        ", ".join(map(str, sizes)): {"hidden_layer_sizes": sizes} for sizes in WIDTHS
    }
    image = {"module": deep_convnet, "image_shape": (1, 8, 8), "standardize": True}
    return nets | {"5 convolutions": image}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--penalty", default="cges")
    parser.add_argument("--alphas", type=float, nargs="+", default=[0, 0.3, 1, 3])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    columns = "".join(f"  alpha={alpha:<7g}" for alpha in arguments.alphas)
    print(f"{'hidden layers':<16}{columns}")
    for name, settings in networks().items():
        cells = []
        for alpha in arguments.alphas:
            rows = []
            for seed in range(arguments.seeds):
                X_train, X_test, y_train, y_test = train_test_split(
                    X, y, test_size=0.4, stratify=y, random_state=seed
                )
                model = CGESClassifier(
                    alpha=alpha,
                    penalty=arguments.penalty,
                    max_epochs=40,
                    random_state=seed,
                    **settings,
                ).fit(X_train, y_train)
                rows.append([model.score(X_test, y_test), 1 - model.sparsity_])
            cells.append("{:.3f} {:4.0%}".format(*np.mean(rows, axis=0)))
        print(f"{name:<16}{''.join(f'  {cell:<13}' for cell in cells)}", flush=True)


if __name__ == "__main__":
    main()
