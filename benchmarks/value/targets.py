"""Measure how near a network comes to the size asked for, and what that costs.

Perceptrons and a convolutional net; means over seeds, each with a split of its own.
Beside size and accuracy stands a dense net of that size, trained as long from fresh
weights: all its layers are narrower by the same factor.

Run ``python -m benchmarks.value.targets --data FOLDER`` (about ten minutes), where
``FOLDER/mnist.npz`` lies; without it MNIST comes from OpenML. It ends with a table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from benchmarks.data import load_images
from sklearn_structreg import CGESClassifier, StructuredClassifier
from sklearn_structreg.core import count_multiply_adds

RESULTS = Path(__file__).parents[1] / "results" / "targets.json"
PERCEPTRON, CONVOLUTIONAL = "perceptron 100-100", "convolutional 16-32-64"
SETTINGS = [
    ("digits", PERCEPTRON, 60, {"target_multiply_adds": [0.5, 0.2, 0.1, 0.05]}),
    ("mnist", PERCEPTRON, 20, {"target_multiply_adds": [0.5, 0.2, 0.1, 0.05]}),
    (
        *("mnist, 14 x 14", CONVOLUTIONAL, 10),
        {"target_multiply_adds": [0.5, 0.2, 0.1], "target_latency": [0.5, 0.3]},
    ),
]


def perceptron(width: float, input_shape, n_outputs) -> nn.Module:
    """Build two hidden layers of 100 units, or of a share of them."""
    n = max(1, round(100 * width))
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), n), nn.ReLU()),
        *(nn.Linear(n, n), nn.ReLU(), nn.Linear(n, n_outputs)),
    )


def convolutional(width: float, input_shape, n_outputs) -> nn.Module:
    """Build two convolutions and a hidden layer, or with a share of their channels."""
    a, b, c = (max(1, round(n * width)) for n in (16, 32, 64))
    n_pixels = (input_shape[1] // 4) * (input_shape[2] // 4)
    return nn.Sequential(
        *(nn.Conv2d(input_shape[0], a, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(b * n_pixels, c), nn.ReLU(), nn.Linear(c, n_outputs)),
    )


NETS = {PERCEPTRON: perceptron, CONVOLUTIONAL: convolutional}


def samples(name: str, folder: Path | None, seed: int) -> list[np.ndarray]:
    """Split digits, or draw 2,000 and 2,000 images of MNIST."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        X = X.reshape(-1, 1, 8, 8)
        return train_test_split(X, y, test_size=0.4, random_state=seed, stratify=y)
    x_train, y_train, x_test, y_test = load_images("mnist", folder)
    rng = np.random.default_rng(seed)
    rows, others = (rng.permutation(len(y))[:2000] for y in (y_train, y_test))
    step = 1 if name == "mnist" else 2  # every second pixel
    images = [
        x[i][:, None, ::step, ::step] / 255.0
        for x, i in ((x_train, rows), (x_test, others))
    ]
    return [*images, y_train[rows], y_test[others]]


def n_multiply_adds(module: nn.Module, shape: tuple[int, ...]) -> int:
    return count_multiply_adds(module, torch.zeros(1, *shape))


def equal_width(build: Callable[..., nn.Module], shape, share: float) -> float:
    """Return the width at which a dense net has a share of the multiply-adds."""
    whole = n_multiply_adds(build(1.0, shape, 10), shape)
    widths = np.arange(0.02, 1.001, 0.005)
    counts = [n_multiply_adds(build(w, shape, 10), shape) for w in widths]
    return float(widths[np.abs(np.array(counts) - share * whole).argmin()])


def runs(name: str, net: str, max_epochs: int, targets, data, seed: int):
    """Train the plain net, and for each target the net to it and a dense one."""
    X, X_test, y, y_test = data
    shape, build = X.shape[1:], NETS[net]
    common = {"max_epochs": max_epochs, "random_state": seed, "standardize": True}
    row = {"data": name, "net": net, "seed": seed}
    plain = StructuredClassifier(partial(build, 1.0), **common).fit(X, y)
    yield row | {"accuracy": plain.score(X_test, y_test)}
    for parameter, values in targets.items():
        for target in values:
            model = CGESClassifier(
                partial(build, 1.0),
                penalty="group",
                alpha=0.3,
                **{parameter: target},
                **common,
            ).fit(X, y)
            report = model.size_report(X_test, n_repeats=51)
            share = report.compact_flops / report.flops
            width = equal_width(build, shape, share)
            dense = StructuredClassifier(partial(build, width), **common).fit(X, y)
            yield row | {
                "target": parameter,
                "asked": target,
                "multiply_adds": share,
                "latency": report.compact_latency / report.latency,
                "accuracy": model.score(X_test, y_test),
                "dense": dense.score(X_test, y_test),
            }


def table(rows: list[dict]) -> list[str]:
    """Write the means over the seeds."""
    keys = dict.fromkeys(
        (r["data"], r["net"], r.get("target", ""), r.get("asked", 1.0)) for r in rows
    )
    lines = [f"{'':23}{'asked':<20}{'reached':>15}{'accuracy':>10}{'dense net':>11}"]
    lines[0] += f"{'seeds':>7}"
    for data, net, target, asked in keys:
        group = [
            r
            for r in rows
            if (r["data"], r["net"]) == (data, net)
            and (r.get("target", ""), r.get("asked", 1.0)) == (target, asked)
        ]
        mean = {k: np.mean([r[k] for r in group]) for k in group[0] if k not in TEXT}
        n_seeds = f"{len(group):>7}"
        if not target:
            of = f"{data}, {net}"
            lines.append(f"{of:<58}{mean['accuracy']:>10.3f}{'':11}{n_seeds}")
            continue
        name = target.removeprefix("target_")
        reached = [r[name] for r in group]
        spread = f"{min(reached):.3f}-{max(reached):.3f}"
        asked = f"{name.replace('_', '-')} {asked:g}"
        lines.append(
            f"{'':23}{asked:<20}{spread:>15}{mean['accuracy']:>10.3f}"
            f"{mean['dense']:>11.3f}{n_seeds}"
        )
    return lines


TEXT = ("data", "net", "target")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict] = []
    for setting in SETTINGS:
        for seed in range(arguments.seeds):
            data = samples(setting[0], arguments.data, seed)
            for row in runs(*setting, data, seed):
                rows.append(row)
                print(json.dumps(row), flush=True)
        arguments.results.write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
