"""At equal physical size: a net made small by CGES against a dense net of that size.

A network is trained with the group penalty at a few settings and compacted. The one
that is taken has the fewest multiply-adds among those whose accuracy on validation rows
is within a point of the best. Its rivals train for as many epochs, with as many
strengths of weight decay, chosen on the same rows: a dense net of the same kind with
all widths scaled alike until it has as many multiply-adds, and the whole net; and, at
the decay of the first, a dense net with the compacted net's own widths. The test rows
are read once. Latencies are medians of passes on one thread, the nets in turns.

Run ``python -m benchmarks.value.size --data FOLDER`` with FOLDER/mnist.npz (about a
quarter of an hour on one core); without ``--data`` MNIST comes from OpenML. Fits that
the JSON file holds already are not repeated: delete it to start anew.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from torch import nn

from benchmarks.data import load_images
from sklearn_structreg import CGESClassifier, StructuredClassifier
from sklearn_structreg.compaction.counting import measure_latencies
from sklearn_structreg.core import count_multiply_adds, make_convnet, make_mlp

RESULTS = Path(__file__).parents[1] / "results" / "size.json"
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
    "digits mlp": 800,
    "digits convnet": 800,
    "mnist mlp": 1000,
    "mnist convnet": 500,
}
N_VALID = {"digits": 400, "mnist": 1000}
N_TEST = 5000
WIDTHS = {"mlp": (200, 100), "convnet": (8, 16, 50)}
BATCHES = (1, 128)
REPEATS = 101

Splits = tuple[np.ndarray, ...]


def split(data: str, n_train: int, folder: Path | None, seed: int) -> Splits:
    """Return images and labels for training, validation and test."""
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


class Bench:
    """Runs one fit after the other; finished ones come from the file."""

    def __init__(self, folder: Path | None, file: Path) -> None:
        self.folder, self.file = folder, file
        self.rows: dict[str, Any] = {}
        if file.exists():
            self.rows = json.loads(file.read_text())

    def look_up(self, measure: Callable[..., Any], *case: Any) -> Any:
        """Return the figures of a case, measured now or before."""
        key = f"{measure.__name__} " + " ".join(map(str, case))
        if key not in self.rows:
            self.rows[key] = measure(*case)
            print(key, self.rows[key], flush=True)
            self.file.write_text(json.dumps(self.rows, indent=1) + "\n")
        return self.rows[key]

    def train(
        self,
        data: str,
        kind: str,
        seed: int,
        role: str,
        setting: dict[str, Any],
        widths: tuple[int, ...],
    ) -> dict[str, Any]:
        """Train a network, compact it if that is its role, and read its accuracy."""
        X, y, X_valid, y_valid, X_test, y_test = split(
            data, N_TRAIN[f"{data} {kind}"], self.folder, seed
        )
        model: Any = ESTIMATORS[role](
            build(kind, widths),
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
            model.compact(in_place=True)
        found = widths_of(model.module_)
        return {
            "widths": list(found),
            "multiply_adds": cost(kind, found, X.shape[1:]),
            "validation": round(float(model.score(X_valid, y_valid)), 4),
            "test": round(float(model.score(X_test, y_test)), 4),
            "seconds": round(seconds, 1),
        }

    def best(self, *case: Any, widths: tuple[int, ...]) -> dict[str, Any]:
        """Train with each setting of the role; return the figures of the chosen one."""
        role = case[-1]
        runs = [
            {"setting": setting} | self.look_up(self.train, *case, setting, widths)
            for setting in SETTINGS[role]
        ]
        top = max(run["validation"] for run in runs)
        if role == "dense":
            return next(run for run in runs if run["validation"] == top)
        good = [run for run in runs if run["validation"] >= top - TOLERANCE]
        return min(good, key=lambda run: run["multiply_adds"])

    def compare(self, data: str, kind: str, seed: int) -> dict[str, dict[str, Any]]:
        """Train all four networks of a seed."""
        shape = (1, 8, 8) if data == "digits" else (1, 28, 28)
        case = data, kind, seed
        small = self.best(*case, "compacted", widths=WIDTHS[kind])
        scaled = scaled_widths(kind, small["multiply_adds"], shape)
        rival = self.best(*case, "dense", widths=scaled)
        again = tuple(small["widths"])
        return {
            "whole": self.best(*case, "dense", widths=WIDTHS[kind]),
            "compacted": small,
            "dense": rival,
            "its widths": self.look_up(
                self.train, *case, "dense", rival["setting"], again
            ),
        }


def latencies(kind: str, shape: tuple[int, ...], *widths: Any) -> list[list[float]]:
    """Measure milliseconds of networks by their widths, for each size of a batch."""
    networks = [build(kind, tuple(each))(shape, 10) for each in widths]
    return [
        [1e3 * t for t in measure_latencies(networks, torch.rand(n, *shape), REPEATS)]
        for n in BATCHES
    ]


def paired(rows: list[dict[str, dict[str, Any]]], rival: str) -> str:
    """Write the mean difference to a rival in points, with its standard error."""
    points = [100 * (row["compacted"]["test"] - row[rival]["test"]) for row in rows]
    if len(points) == 1:
        return f"{points[0]:+.2f}"
    error = np.std(points, ddof=1) / np.sqrt(len(points))
    return f"{np.mean(points):+.2f} +- {error:.2f}"


def table(bench: Bench, cases: list[str], seeds: list[int]) -> str:
    """Run what is missing and write the table."""
    lines = [
        f"{'':>15}{'multiply-adds':>22}{'accuracy, %':>20}"
        f"{'compacted minus a rival, in points':>43}{'ms, of whole net':>25}",
        f"{'':>15}{'compacted':>13}{'share':>9}{'compacted':>12}{'whole':>8}"
        f"{'as small':>15}{'its widths':>15}{'whole':>15}"
        f"{'batch 1':>13}{'batch 128':>13}",
    ]
    for data, kind in map(str.split, cases):
        rows = [bench.compare(data, kind, seed) for seed in seeds]
        shape = (1, 8, 8) if data == "digits" else (1, 28, 28)
        mean = {
            role: {
                figure: np.mean([row[role][figure] for row in rows])
                for figure in ("test", "multiply_adds")
            }
            for role in rows[0]
        }
        times = np.array(
            [
                bench.look_up(
                    latencies,
                    *(kind, shape, WIDTHS[kind]),
                    *(tuple(row[role]["widths"]) for role in ("compacted", "dense")),
                )
                for row in rows
            ]
        )
        ratios = np.median(times[:, :, 1] / times[:, :, 0], axis=0)
        cells = "".join(
            f"{t:8.3f} {r:.2f}"
            for t, r in zip(np.median(times[:, :, 1], axis=0), ratios, strict=True)
        )
        size = mean["compacted"]["multiply_adds"]
        lines.append(
            f"{data:>7} {kind:>7}{size:13,.0f}"
            f"{100 * size / mean['whole']['multiply_adds']:7.1f} %"
            f"{100 * mean['compacted']['test']:12.2f}{100 * mean['whole']['test']:8.2f}"
            f"{paired(rows, 'dense'):>15}{paired(rows, 'its widths'):>15}"
            f"{paired(rows, 'whole'):>15} {cells}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with mnist.npz")
    parser.add_argument("--cases", nargs="+", choices=N_TRAIN, default=[*N_TRAIN])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, help="file for the table, as in the docs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    text = table(
        Bench(arguments.data, arguments.json), arguments.cases, arguments.seeds
    )
    print(text)
    if arguments.page:
        arguments.page.write_text(textwrap.indent(text, "    ") + "\n")


if __name__ == "__main__":
    main()
