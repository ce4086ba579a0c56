"""At equal physical size: a net made small by CGES against a dense net of that size.

A network is trained with the group penalty at a few settings and compacted. The one
that is taken has the fewest multiply-adds among those whose accuracy on validation rows
is within a point of the best. Its rivals train for as many epochs, with as many
strengths of weight decay, chosen on the same rows: a dense net of the same kind with
all widths scaled alike until it has as many multiply-adds, and the whole net; and, at
the decay of the first, a dense net with the compacted net's own widths. The test rows
are read once. Latencies are medians of passes on one thread, the nets in turns.

Run ``python -m benchmarks.value.size --data FOLDER`` with FOLDER/mnist.npz (about a
quarter of an hour on one core); without ``--data`` MNIST comes from OpenML. ``--small``
is digits.
"""

from __future__ import annotations

import time
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
from benchmarks.value.standing import paired
from sklearn_structreg import CGESClassifier, StructuredClassifier
from sklearn_structreg.compaction.counting import measure_latencies
from sklearn_structreg.core import count_multiply_adds, make_convnet, make_mlp

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "compacted": [
        {"groups": groups, "alpha": alpha}
        for groups in ("feature", "filter")
        for alpha in (0.5, 1.0)
    ],
    "dense": [{"weight_decay": decay} for decay in (0.0, 1e-4, 1e-3, 1e-2)],
}
ESTIMATORS = {
    "compacted": partial(CGESClassifier, penalty="group"),
    "dense": StructuredClassifier,
}
TOLERANCE = 0.01  # of validation accuracy, below the best
EPOCHS = {"mlp": 100, "convnet": 50}
BATCH_SIZE = 64
N_TRAIN = {
    ("digits", "mlp"): 800,
    ("digits", "convnet"): 800,
    ("mnist", "mlp"): 1000,
    ("mnist", "convnet"): 500,
}
SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28)}
N_VALID = {"digits": 400, "mnist": 1000}
N_TEST = 5000
WIDTHS = {"mlp": (200, 100), "convnet": (8, 16, 50)}
BATCHES = (1, 128)
REPEATS = 101
FIGURES = ("test", "multiply_adds")

Splits = tuple[np.ndarray, ...]
Nets = dict[str, Run]


def split(data: str, kind: str, folder: Path | None, seed: int) -> Splits:
    """Return images and labels for training, validation and test."""
    n_train = N_TRAIN[data, kind]
    if data == "digits":
        images, y = load_digits(return_X_y=True)
        images, test = images.reshape(-1, 8, 8) / 16, None
    else:
        images, y, x_test, y_test = load_images("mnist", folder)
        test = x_test[:N_TEST] / 255, y_test[:N_TEST]
        images = images / 255
    n_valid = N_VALID[data]
    X, rest, y, y_rest = train_test_split(
        images, y, train_size=n_train, stratify=y, random_state=seed
    )
    if test is None:
        parts = train_test_split(
            *(rest, y_rest), train_size=n_valid, stratify=y_rest, random_state=seed
        )
        valid, test = (parts[0], parts[2]), (parts[1], parts[3])
    else:
        valid = rest[:n_valid], y_rest[:n_valid]
    return tuple(
        array.astype(np.float32)[:, None] if array.ndim == 3 else array
        for array in (X, y, *valid, *test)
    )


def build(kind: str, widths: tuple[int, ...]) -> Callable[..., nn.Module]:
    """Return the maker of a network of the kind with these widths."""

    def make(input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
        if kind == "convnet":
            return make_convnet(input_shape, n_outputs, widths[2:], widths[:2])
        n_pixels = int(np.prod(input_shape))
        return nn.Sequential(nn.Flatten(), *make_mlp(n_pixels, n_outputs, widths))

    return make


def cost(kind: str, widths: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """Count the multiply-adds of a network with these widths."""
    return count_multiply_adds(build(kind, widths)(shape, 10), torch.zeros(1, *shape))


def scaled_widths(
    kind: str, multiply_adds: int, shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Scale all widths alike, to the nearest number of multiply-adds."""
    choices = {
        tuple(max(1, round(width * share)) for width in WIDTHS[kind])
        for share in np.geomspace(0.01, 1, 200)
    }
    return min(choices, key=lambda c: (abs(cost(kind, c, shape) - multiply_adds), c))


def widths_of(network: nn.Module) -> tuple[int, ...]:
    """Read the widths of the hidden layers."""
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return tuple(len(layer.weight) for layer in layers[:-1])


def train(kind: str, role: str, setting: Run, widths: Any, seed: int, data: Any) -> Run:
    """Train a network, compact it if that is its role, and read its accuracy."""
    X, y, X_valid, y_valid, X_test, y_test = data
    model: Any = ESTIMATORS[role](
        build(kind, tuple(widths)),
        image_shape=X.shape[1:],
        max_epochs=EPOCHS[kind],
        batch_size=BATCH_SIZE,
        random_state=seed,
        **setting,
    )
    start = time.perf_counter()
    model.fit(X, y)
    seconds = time.perf_counter() - start
    if role == "compacted":
        model = model.compact()
    found = widths_of(model.module_)
    return {
        "left": found,
        "multiply_adds": cost(kind, found, X.shape[1:]),
        "validation": float(model.score(X_valid, y_valid)),
        "test": float(model.score(X_test, y_test)),
        "seconds": seconds,
    }


def measure(runs: Runs, options: Options) -> None:
    """Train all networks, and time those that were chosen."""
    for data, kind in N_TRAIN:
        if not options.wants(data) or (options.small and data != "digits"):
            continue
        for seed in options.seeds:
            compare(runs, data, kind, seed, split(data, kind, options.data, seed))


def compare(runs: Runs, data: str, kind: str, seed: int, rows: Splits) -> None:
    """Train the four networks of a seed, and time the last of them."""
    case = {"data": data, "kind": kind, "seed": seed}

    def fit(role: str, setting: Run, widths: Any) -> None:
        key = case | {"role": role, "setting": setting, "widths": widths}
        runs.once(key, train, kind, role, setting, widths, seed, rows)

    for role, settings in SETTINGS.items():
        for setting in settings:
            fit(role, setting, WIDTHS[kind])
    small = nets(runs, **case)["compacted"]
    for setting in SETTINGS["dense"]:
        fit("dense", setting, scaled_widths(kind, small["multiply_adds"], SHAPES[data]))
    rival = nets(runs, **case)["as small"]
    fit("dense", rival["setting"], small["left"])
    timed = [WIDTHS[kind], small["left"], rival["left"]]
    runs.once(
        case | {"role": "latencies", "widths": timed},
        latencies,
        kind,
        SHAPES[data],
        timed,
    )


def nets(runs: Runs, data: str, kind: str, seed: int) -> Nets:
    """Return the chosen networks of a seed, as far as they have run."""

    def best(role: str, widths: Any) -> Run | None:
        case = {"data": data, "kind": kind, "seed": seed, "role": role}
        found = runs.select(**case, widths=list(widths))
        if len(found) < len(SETTINGS[role]):
            return None
        top = max(run["validation"] for run in found)
        if role == "dense":
            return next(run for run in found if run["validation"] == top)
        good = [run for run in found if run["validation"] >= top - TOLERANCE]
        return min(good, key=lambda run: run["multiply_adds"])

    chosen = {"compacted": best("compacted", WIDTHS[kind])}
    chosen["whole"] = best("dense", WIDTHS[kind])
    if (small := chosen["compacted"]) is not None:
        scaled = scaled_widths(kind, small["multiply_adds"], SHAPES[data])
        chosen["as small"] = best("dense", scaled)
        if (rival := chosen["as small"]) is not None:
            key = {"data": data, "kind": kind, "seed": seed, "role": "dense"}
            again = runs.select(**key, setting=rival["setting"], widths=small["left"])
            chosen["its widths"] = again[0] if again else None
    return {name: run for name, run in chosen.items() if run is not None}


def latencies(kind: str, shape: tuple[int, ...], widths: Any) -> Run:
    """Measure milliseconds of networks by their widths, for each size of a batch."""
    networks = [build(kind, tuple(each))(shape, 10) for each in widths]
    times = [
        [1e3 * t for t in measure_latencies(networks, torch.rand(n, *shape), REPEATS)]
        for n in BATCHES
    ]
    return {"milliseconds": times}


def gain(rows: list[Nets], rival: str) -> str:
    """Write the mean difference to a rival in points, with its standard error."""
    return paired(
        [100 * (row["compacted"]["test"] - row[rival]["test"]) for row in rows]
    )


def report(runs: Runs) -> str:
    """Return the means over the seeds of which all networks are done."""
    lines = [
        f"{'':>15}{'multiply-adds':>22}{'accuracy, %':>20}"
        f"{'compacted minus a rival, in points':>43}{'ms, of whole net':>25}",
        f"{'':>15}{'compacted':>13}{'share':>9}{'compacted':>12}{'whole':>8}"
        f"{'as small':>15}{'its widths':>15}{'whole':>15}"
        f"{'batch 1':>13}{'batch 128':>13}{'seeds':>7}",
    ]
    for data, kind in N_TRAIN:
        timed = runs.select(data=data, kind=kind, role="latencies")
        rows = [nets(runs, data, kind, each["seed"]) for each in timed]
        if not rows:
            continue
        small, whole = (
            {figure: np.mean([row[name][figure] for row in rows]) for figure in FIGURES}
            for name in ("compacted", "whole")
        )
        times = np.array([each["milliseconds"] for each in timed])
        ratios = np.median(times[:, :, 1] / times[:, :, 0], axis=0)
        cells = "".join(
            f"{t:8.3f} {r:.2f}"
            for t, r in zip(np.median(times[:, :, 1], axis=0), ratios, strict=True)
        )
        size = small["multiply_adds"]
        share = size / whole["multiply_adds"]
        lines.append(
            f"{data:>7} {kind:>7}{size:13,.0f}{100 * share:7.1f} %"
            f"{100 * small['test']:12.2f}{100 * whole['test']:8.2f}"
            f"{gain(rows, 'as small'):>15}{gain(rows, 'its widths'):>15}"
            f"{gain(rows, 'whole'):>15} {cells}{len(rows):>7}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_section("size", __doc__, measure, report)
