"""Compare heads for confused classes with their controls where groups should matter.

CIFAR-100's images at half their size, as the features that a small convolutional net
gives, which is trained once on other images and frozen. Two tasks: 100 classes whose
sizes fall from 200 to 5 (held-out accuracy, on as many images of each), and 120 labels,
a class and its superclass for every image (held-out mean average precision at 5). The
network on the features has a hidden layer of 256 units, which soon knows the training
samples by heart, or none; heads may cost 3 % of its multiply-adds, or as much as it
does. A third task has all images, class sizes that fall from 500 to 5, and 384 features
by filters that are learned without labels (as in benchmarks/value/hierarchy.py); there
heads are also trained as in the paper, for as long as the network and with a fresh
classifier layer.

Run ``python -m benchmarks.value.self_informed --data FOLDER`` with FOLDER/cifar100.npz
(fifteen minutes on one core). Runs that the results file holds already are not
repeated. It prints the tables and writes docs/self_informed_controls.inc.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import make_scorer

from benchmarks.cifar100 import coarse_labels
from benchmarks.data import load_images
from benchmarks.networks import compact_convnet
from benchmarks.value import hierarchy
from benchmarks.value.runs import Run, Runs
from benchmarks.value.section import write_page
from sklearn_structreg import SelfInformedClassifier, StructuredClassifier
from sklearn_structreg.selfinformed import (
    compare_controls,
    mean_average_precision_at_k,
)
from sklearn_structreg.selfinformed.controls import ControlTable

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "self_informed_controls.jsonl"
PAGE = ROOT / "docs" / "self_informed_controls.inc"
N_EACH, N_TEST = 100, 4_000  # images of a class for the convolutions, and of the test
TASKS = ("classes of 200 to 5 images", "120 labels", "classes of 500 to 5 images")
SMALLEST, N_LABELLED, N_FILTERS = 5, 5_000, 96
LARGEST = {TASKS[0]: 200, TASKS[2]: 500}
KINDS = (((256,), 0.03), ((256,), 1.0), ((), 1.0))
"""Hidden layers of the network, and the budget of the heads."""
AS_IN_PAPER = {"fresh_classifier": True, "head_epochs": 1.0}
SEEDS = range(3)
PRECISION = make_scorer(
    mean_average_precision_at_k, k=5, response_method="predict_proba"
)


def features(folder: Path, cache: Path) -> tuple[np.ndarray, ...]:
    """Return features of images that the convolutions do not know, and of a test."""
    file = cache / "self_informed_features.npz"
    if not file.exists():
        X, y, X_test, y_test = load_images("cifar100", folder)
        X, X_test = halved(X), halved(X_test[:N_TEST])
        known = np.concatenate([np.flatnonzero(y == c)[:N_EACH] for c in range(100)])
        params = {"widths": (16, 32, 64)}
        net = StructuredClassifier(
            compact_convnet,
            module_params=params,
            max_epochs=20,
            lr_schedule="cosine",
            random_state=0,
        ).fit(X[known], y[known])
        other = np.setdiff1d(np.arange(len(y)), known)
        below = torch.nn.Sequential(*net.module_[:-3], torch.nn.AdaptiveAvgPool2d(2))
        F, F_test = (flat(below, part) for part in (X[other], X_test))
        np.savez(file, F=F, y=y[other], F_test=F_test, y_test=y_test[:N_TEST])
    with np.load(file) as data:
        return tuple(data[name] for name in ("F", "y", "F_test", "y_test"))


def unlabelled(folder: Path, cache: Path) -> tuple[np.ndarray, ...]:
    """Return features of all images, by filters of the first task's longest tail."""
    file = cache / "self_informed_unlabelled.npz"
    if not file.exists():
        X, y, X_test, y_test = load_images("cifar100", folder)
        used = np.unique(np.concatenate([rows_of(TASKS[2], y, s) for s in SEEDS]))
        maps = (
            np.ascontiguousarray(part.transpose(0, 3, 1, 2), dtype=np.float32) / 255
            for part in (X[used], X_test[:N_TEST])
        )
        X, X_test = maps
        seen = hierarchy.filters(X, np.random.default_rng(0))
        mean, weight = (part.astype(np.float32) for part in seen)
        F, F_test = (
            hierarchy.features(part, mean, weight[:, :N_FILTERS])
            for part in (X, X_test)
        )
        whole = np.zeros((len(y), F.shape[1]), dtype=np.float32)
        whole[used] = F
        np.savez(file, F=whole, y=y, F_test=F_test, y_test=y_test[:N_TEST])
    with np.load(file) as data:
        return tuple(data[name] for name in ("F", "y", "F_test", "y_test"))


def halved(images: np.ndarray) -> np.ndarray:
    """Return images in [0, 1], channels first, at half their size."""
    X = images.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4)) / 255
    return np.ascontiguousarray(X.transpose(0, 3, 1, 2), dtype=np.float32)


def flat(module: torch.nn.Module, X: np.ndarray) -> np.ndarray:
    """Return a module's outputs as rows."""
    with torch.no_grad():
        parts = [module.eval()(part) for part in torch.from_numpy(X).split(1_000)]
    return torch.cat(parts).flatten(1).numpy()


def rows_of(task: str, y: np.ndarray, seed: int) -> np.ndarray:
    """Draw training rows; with falling sizes in a new order of the classes."""
    rng = np.random.default_rng(seed)
    if task == TASKS[1]:
        return rng.choice(len(y), N_LABELLED, replace=False)
    sizes = np.geomspace(LARGEST[task], SMALLEST, 100).round().astype(int)
    drawn = zip(rng.permutation(100), sizes, strict=True)
    return np.concatenate(
        [rng.choice(np.flatnonzero(y == c), n, replace=False) for c, n in drawn]
    )


def indicator(y: np.ndarray) -> np.ndarray:
    """Mark each image's class, and its superclass in 20 further columns."""
    marks = np.zeros((len(y), 120), dtype=np.int64)
    rows = np.arange(len(y))
    marks[rows, y] = marks[rows, 100 + coarse_labels()[y]] = 1
    return marks


def measure(
    task: str,
    kind: tuple[tuple[int, ...], float],
    seed: int,
    data: tuple[np.ndarray, ...],
    **params: Any,
) -> Run:
    """Compare heads and controls on one draw of the training rows."""
    F, y, F_test, y_test = data
    layers, budget = kind
    rows = rows_of(task, y, seed)
    X, labels = np.concatenate([F[rows], F_test]), np.concatenate([y[rows], y_test])
    split = np.arange(len(rows)), np.arange(len(rows), len(X))
    several = task == TASKS[1]
    heads = SelfInformedClassifier(
        budget=budget,
        hidden_layer_sizes=layers,
        max_epochs=30,
        lr_schedule="cosine",
        random_state=seed,
        **params,
    )
    table = compare_controls(
        heads,
        X,
        indicator(labels) if several else labels,
        cv=[split],
        scoring=PRECISION if several else None,
    )
    return {
        "names": table.names,
        "scores": table.scores[:, 0].round(5).tolist(),
        "multiply_adds": table.multiply_adds.tolist(),
    }


def report(runs: Runs) -> str:
    """Return a table for every task and budget."""
    parts = []
    for task in TASKS:
        for (layers, budget), fresh in product(KINDS, (None, True)):
            found = runs.select(task=task, hidden=[*layers], budget=budget, fresh=fresh)
            if not found:
                continue
            scores, costs = (
                np.array([run[name] for run in found]).T
                for name in ("scores", "multiply_adds")
            )
            table = ControlTable(tuple(found[0]["names"]), scores, costs.mean(axis=1))
            network = f"a hidden layer of {layers[0]}" if layers else "no hidden layer"
            parts.append(
                f"{task}, network with {network}, heads of {budget:.0%} of its cost"
                f"{', trained as in the paper' if fresh else ''}, {len(found)} draws\n"
                f"{table}"
            )
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    runs, folders = Runs(arguments.json), (arguments.data, arguments.cache)
    for task in TASKS:
        data = unlabelled(*folders) if task == TASKS[2] else features(*folders)
        for seed in SEEDS:
            for kind in KINDS[1:] if task == TASKS[2] else KINDS:
                key: Run = {"task": task, "hidden": [*kind[0]], "budget": kind[1]}
                key |= {"fresh": None, "seed": seed}
                runs.once(key, partial(measure, task, kind, seed, data))
            if task == TASKS[2]:
                key = {"task": task, "hidden": [], "budget": 1.0, "fresh": True}
                work = partial(measure, task, KINDS[2], seed, data, **AS_IN_PAPER)
                runs.once(key | {"seed": seed}, work)
    table = report(runs)
    print(table)
    write_page(PAGE, table)


if __name__ == "__main__":
    main()
