"""Measure how near a network comes to the size asked for, and what that costs.

Perceptrons and a convolutional net; means over seeds, each with a split of its own.
Beside size and accuracy stands a dense net of that size, trained as long from fresh
weights: all its layers are narrower by the same factor.

Run ``python -m benchmarks.value.targets --data FOLDER`` (about ten minutes), where
``FOLDER/mnist.npz`` lies; without it MNIST comes from OpenML. ``--small`` is digits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from benchmarks.data import load_images
from benchmarks.value.runs import Run, Runs
from benchmarks.value.section import Options, run_section
from sklearn_structreg import CGESClassifier, StructuredClassifier
from sklearn_structreg.core import count_multiply_adds

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


def measure(runs: Runs, options: Options) -> None:
    """Train the plain net, and for each target the net to it and a dense one."""
    for name, net, max_epochs, targets in SETTINGS[: 1 if options.small else None]:
        asked = [(target, v) for target, values in targets.items() for v in values]
        for seed in options.seeds if options.wants(name) else ():
            data = samples(name, options.data, seed)
            common = {"max_epochs": max_epochs, "random_state": seed}
            key = {"data": name, "net": net, "seed": seed}
            runs.once(
                key | {"target": "", "asked": 1.0}, fit_plain, NETS[net], data, **common
            )
            for target, value in asked:
                goal = {"target": target, "asked": value}
                runs.once(
                    key | goal, fit_to, NETS[net], data, {target: value}, **common
                )


def fit_plain(build: Callable[..., nn.Module], data: Any, **common: Any) -> Run:
    """Train the net as it is."""
    X, X_test, y, y_test = data
    model = StructuredClassifier(partial(build, 1.0), standardize=True, **common)
    return {"accuracy": model.fit(X, y).score(X_test, y_test)}


def fit_to(
    build: Callable[..., nn.Module], data: Any, target: dict[str, float], **common: Any
) -> Run:
    """Train the net to a target, and a dense one of its multiply-adds."""
    X, X_test, y, y_test = data
    common["standardize"] = True
    model = CGESClassifier(
        partial(build, 1.0), penalty="group", alpha=0.3, **target, **common
    ).fit(X, y)
    sizes = model.size_report(X_test, n_repeats=51)
    share = sizes.compact_flops / sizes.flops
    width = equal_width(build, X.shape[1:], share)
    dense = StructuredClassifier(partial(build, width), **common).fit(X, y)
    return {
        "multiply_adds": share,
        "latency": sizes.compact_latency / sizes.latency,
        "accuracy": model.score(X_test, y_test),
        "dense": dense.score(X_test, y_test),
    }


def report(runs: Runs) -> str:
    """Return the means over the seeds."""
    names = "data", "net", "target", "asked"
    lines = [f"{'':23}{'asked':<20}{'reached':>15}{'accuracy':>10}{'dense net':>11}"]
    lines[0] += f"{'seeds':>7}"
    for case in dict.fromkeys(tuple(r[name] for name in names) for r in runs.rows):
        key = dict(zip(names, case, strict=True))
        group, (data, net, target, asked) = runs.select(**key), case
        accuracy, n_seeds = runs.mean("accuracy", **key), f"{len(group):>7}"
        if not target:
            lines.append(f"{f'{data}, {net}':<58}{accuracy:>10.3f}{'':11}{n_seeds}")
            continue
        name = target.removeprefix("target_")
        reached = [r[name] for r in group if name in r]
        spread = f"{min(reached):.3f}-{max(reached):.3f}"
        lines.append(
            f"{'':23}{f'{name.replace(chr(95), chr(45))} {asked:g}':<20}{spread:>15}"
            f"{accuracy:>10.3f}{runs.mean('dense', **key):>11.3f}{n_seeds}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_section("targets", __doc__, measure, report)
