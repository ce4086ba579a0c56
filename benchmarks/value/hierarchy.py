"""Compare Blockout with Dropout where labels have a hierarchy and images are few.

CIFAR-100: 100 classes in 20 superclasses, 10 or 50 images of each, seen by a frozen
convolutional net of one layer, whose filters are whitened patches of the training
images (Coates and Ng 2011) and whose outputs are pooled to 2 x 2. On its 1,024 features
a wide hidden layer is trained, plain, with Dropout, and with Blockout; each of the two
chooses one of four settings on a quarter of the training rows. Accuracy on 2,000 test
images for the classes and for their superclasses, the agreement of Blockout's groups
of classes with the superclasses (adjusted Rand index), paired differences to Dropout.

Run ``python -m benchmarks.value.hierarchy --data FOLDER`` (some hours on one core;
``--small`` has 10 images of each class and 512 nodes alone, ten minutes). Fits that the
file of results has already are not repeated. It prints the table and writes
docs/hierarchy.inc; a row needs two seeds.
"""

from __future__ import annotations

import argparse
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import train_test_split
from torch.nn import functional

from benchmarks.cifar100 import coarse_labels
from benchmarks.data import load_images
from benchmarks.value.runs import Run, Runs
from sklearn_structreg import BlockoutClassifier, StructuredClassifier
from sklearn_structreg.baselines import Dropout

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "hierarchy.jsonl"
PAGE = ROOT / "docs" / "hierarchy.inc"
PER_CLASS, NODES, SEEDS = (10, 50), (512, 2048), range(3)
N_TEST, N_FILTERS, PATCH = 2_000, 256, 6
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "plain": [{}],
    "Dropout": [{"drop_rate": rate} for rate in (0.2, 0.5, 0.7, 0.85)],
    "Blockout": [
        {},
        {"block_penalty": 0.3},
        {"init_probability": 0.5},
        {"n_clusters": 20},
    ],
}

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def filters(images: np.ndarray, rng: np.random.Generator) -> tuple[Any, ...]:
    """Return whitened patches of the images as filters, and the whitening."""
    n = 20_000
    rows, x, y = (rng.integers(m, size=n) for m in (len(images), 27, 27))
    patches = np.stack(
        [
            images[r, :, i : i + PATCH, j : j + PATCH]
            for r, i, j in zip(rows, x, y, strict=True)
        ]
    ).reshape(n, -1)
    patches = normalized(patches)
    mean = patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(patches.T))
    white = vectors / np.sqrt(values + 0.1) @ vectors.T
    chosen = (patches[:N_FILTERS] - mean) @ white
    chosen /= np.linalg.norm(chosen, axis=1, keepdims=True)
    return mean, white @ chosen.T


def normalized(patches: np.ndarray) -> np.ndarray:
    """Return patches without their brightness and contrast."""
    patches = patches - patches.mean(-1, keepdims=True)
    return patches / np.sqrt(patches.var(-1, keepdims=True) + 0.01)


def features(images: np.ndarray, mean: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the pooled responses of the filters, four for each."""
    found = []
    for part in np.array_split(images, max(1, len(images) // 50)):
        x = functional.unfold(torch.from_numpy(part), PATCH).mT.numpy()
        y = torch.from_numpy((normalized(x) - mean).astype(np.float32) @ weight)
        maps = (y - 0.5).relu().mT.unflatten(-1, (27, 27))
        found.append(functional.adaptive_avg_pool2d(maps, 2).flatten(1).numpy())
    return np.concatenate(found)


def draw(folder: Path, per_class: int, seed: int) -> Split:
    """Draw training images of each class, and return features and labels."""
    X, y, X_test, y_test = load_images("cifar100", folder)
    rng = np.random.default_rng(seed)
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(y == c))[:per_class] for c in range(100)]
    )
    X, X_test = (
        np.ascontiguousarray(x.transpose(0, 3, 1, 2), dtype=np.float32) / 255
        for x in (X[rows], X_test[:N_TEST])
    )
    seen = filters(X, rng)
    mean, weight = (part.astype(np.float32) for part in seen)
    labels = y[rows].astype(int), y_test[:N_TEST].astype(int)
    return (
        features(X, mean, weight),
        labels[0],
        features(X_test, mean, weight),
        labels[1],
    )


def fit(
    method: str, setting: dict[str, Any], nodes: int, seed: int, split: Split
) -> Run:
    """Fit once and return the accuracies."""
    X, y, X_test, y_test = split
    params: dict[str, Any] = {"hidden_layer_sizes": (nodes,), "random_state": seed}
    if method == "Blockout":
        model: Any = BlockoutClassifier(**setting, **params)
    else:
        dropped = [Dropout(**setting)] if setting else None
        model = StructuredClassifier(regularizers=dropped, **params)
    guessed = model.fit(X, y).predict(X_test)
    superclass = coarse_labels()
    figures = {
        "accuracy": float(np.mean(guessed == y_test)),
        "superclass": float(np.mean(superclass[guessed] == superclass[y_test])),
    }
    if method == "Blockout":
        groups = model.class_hierarchy(distance="profile").labels(20)
        figures["agreement"] = float(adjusted_rand_score(superclass, groups))
    return figures


def compete(runs: Runs, folder: Path, per_class: int, nodes: int, seed: int) -> None:
    """Do all fits on one draw of the images that are not done yet."""
    key = {"per_class": per_class, "nodes": nodes, "seed": seed}
    if len(runs.select(**key, part="test")) == len(SETTINGS):
        return
    X, y, *test = draw(folder, per_class, seed)
    X_fit, X_valid, y_fit, y_valid = train_test_split(
        X, y, test_size=0.25, stratify=y, random_state=seed
    )
    for method, settings in SETTINGS.items():
        chosen = settings[0]
        if len(settings) > 1:
            halves = X_fit, y_fit, X_valid, y_valid
            found = [
                runs.once(
                    key | {"method": method, "part": "validation", "setting": setting},
                    lambda m=method, s=setting, h=halves: fit(m, s, nodes, seed, h),
                )
                for setting in settings
            ]
            chosen = max(found, key=lambda run: run["accuracy"])["setting"]
        runs.once(
            key | {"method": method, "part": "test", "setting": chosen},
            lambda m=method, s=chosen: fit(m, s, nodes, seed, (X, y, *test)),
        )


def report(runs: Runs) -> str:
    """Return the table of means, and of the differences to Dropout."""
    lines = [
        "images of a class, nodes  method     classes  to Dropout  superclasses  groups"
    ]
    for per_class, nodes, method in product(PER_CLASS, NODES, SETTINGS):
        key = {"per_class": per_class, "nodes": nodes, "part": "test"}
        rows = runs.select(**key, method=method)
        rivals = {r["seed"]: r for r in runs.select(**key, method="Dropout")}
        pairs = [(r, rivals[r["seed"]]) for r in rows if r["seed"] in rivals]
        if len(pairs) < 2:
            continue
        gain = [100 * (one["accuracy"] - two["accuracy"]) for one, two in pairs]
        error = np.std(gain, ddof=1) / len(gain) ** 0.5
        accuracy, coarse = (
            100 * np.mean([row[name] for row in rows])
            for name in ("accuracy", "superclass")
        )
        found = [row["agreement"] for row in rows if "agreement" in row]
        agreement = f"{np.mean(found):8.2f}" if found else ""
        beside = f"{np.mean(gain):+.1f} ± {error:.1f}" if method != "Dropout" else ""
        lines.append(
            f"{per_class:17d} {nodes:6d}   {method:<10}{accuracy:8.1f}"
            f"{beside:>12}{coarse:14.1f}{agreement}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="with cifar100.npz")
    parser.add_argument("--small", action="store_true", help="ten minutes' work")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    runs = Runs(arguments.json)
    sizes = (
        product(PER_CLASS[:1], NODES[:1])
        if arguments.small
        else product(PER_CLASS, NODES)
    )
    for (per_class, nodes), seed in product(list(sizes), range(arguments.seeds)):
        compete(runs, arguments.data, per_class, nodes, seed)
        print(f"{per_class} of a class, {nodes} nodes, seed {seed}: done", flush=True)
    table = report(runs)
    print(table)
    page = "\n".join(f"    {line}".rstrip() for line in table.splitlines())
    PAGE.write_text(f".. code-block:: text\n\n{page}\n")


if __name__ == "__main__":
    main()
