"""Compare what to drop in a small convolutional net that overfits.

The regime of the DropCluster paper on a CPU: few images (300 of CIFAR-100's first ten
classes, 160 of MNIST's first eight), feature maps of 16 x 16, as in the paper, and of
28 x 28, and training until all training images are fitted. DropCluster beside weight
decay, Dropout (before the last layer, its usual place), SpatialDropout and DropBlock,
the last two and DropCluster after the first convolution. Each chooses one of four
settings by its mean accuracy on 1,000 validation images over two draws of the training
images, and is then trained on five others; a test image is seen by these alone.

Figures on 1,000 test images: accuracy; accuracy under three corruptions at severity 3;
log loss and expected calibration error (15 bins); and how well the entropy of the
predictions tells these images from 1,000 of classes that were never seen (area under
the ROC curve): from one pass, and from the mean of 20 draws of the masks.

Run ``python -m benchmarks.value.dropping --data FOLDER`` (about half an hour on one
core); FOLDER holds cifar100.npz and mnist.npz. Runs that the file of results holds
already are not repeated. It prints the tables and writes docs/dropping.inc. With
``--untuned`` it takes one setting for each (a rate of 0.2, no weight decay) and three
draws of CIFAR-100 alone: a first look, which the tables show until there is more.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import entropy
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from torch import nn

from benchmarks.corruptions import corrupt
from benchmarks.data import load_images
from benchmarks.value.datasets import SHIFTS, as_channels_last, channels_first
from benchmarks.value.runs import Run, Runs
from sklearn_structreg.baselines import DropBlock, Dropout, SpatialDropout
from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.dropcluster import DropCluster

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "dropping.jsonl"
PAGE = ROOT / "docs" / "dropping.inc"

SETS = {"mnist": (160, 8, 1, 60), "cifar100": (300, 10, 2, 100)}
"""Training images, classes that are seen, stride of the first layer, and epochs."""
N_OTHERS = 1_000
TUNING, SEEDS = (100, 101), range(5)
N_DRAWS, N_BINS = 20, 15
RATES = (0.1, 0.2, 0.35, 0.5)
PLAIN = "weight decay"


@dataclass(frozen=True)
class Images:
    """Images of shape (n, channels, height, width), and their classes."""

    X: np.ndarray
    y: np.ndarray


def convnet(input_shape: tuple[int, ...], n_outputs: int, stride: int) -> nn.Sequential:
    """Build three convolutions with batch normalization."""
    channels, height, width = (
        input_shape[0],
        *(side // stride for side in input_shape[1:]),
    )
    layers: list[nn.Module] = []
    for n_filters in (16, 32, 64):
        convolution = nn.Conv2d(channels, n_filters, 3, stride, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(n_filters), nn.ReLU(), nn.MaxPool2d(2)]
        channels, height, width, stride = n_filters, height // 2, width // 2, 1
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(channels * height * width, n_outputs)
    )


def dropping(kind: type) -> Callable[[float], dict[str, Any]]:
    """Return the estimator's parameters for each rate of a regularizer."""
    return lambda rate: {"regularizers": [kind(rate)]}


METHODS: dict[str, list[dict[str, Any]]] = {
    PLAIN: [{"weight_decay": decay} for decay in (0.0, 1e-4, 1e-3, 1e-2)],
    **{
        kind.__name__: list(map(dropping(kind), RATES))
        for kind in (Dropout, SpatialDropout, DropBlock, DropCluster)
    },
}


@cache
def images_of(folder: Path, name: str) -> tuple[Images, Images]:
    """Load the training and test images in [0, 1]."""
    X, y, X_test, y_test = load_images(name, folder)
    train, test = (
        channels_first(as_channels_last(part, False)) for part in (X, X_test)
    )
    return Images(train, y.astype(int)), Images(test, y_test.astype(int))


def draw(folder: Path, name: str, seed: int) -> tuple[Images, Images]:
    """Draw training images, and validation images that are no seed's training ones."""
    n_train, n_classes, *_ = SETS[name]
    source = images_of(folder, name)[0]
    rows = np.flatnonzero(source.y < n_classes)
    labels = source.y[rows]
    pool, valid = train_test_split(
        rows, test_size=N_OTHERS, stratify=labels, random_state=0
    )
    rows, _ = train_test_split(
        pool, train_size=n_train, stratify=source.y[pool], random_state=seed
    )
    return tuple(Images(source.X[r], source.y[r]) for r in (rows, valid))


def fit(
    name: str, train: Images, setting: dict[str, Any], seed: int
) -> StructuredClassifier:
    """Train until nothing is left to learn."""
    *_, stride, max_epochs = SETS[name]
    return StructuredClassifier(
        convnet,
        module_params={"stride": stride},
        standardize=True,
        max_epochs=max_epochs,
        batch_size=32,
        lr_schedule="cosine",
        learning_rate=0.02,
        random_state=seed,
        **setting,
    ).fit(train.X, train.y)


def tune(folder: Path, name: str, method: str, setting: int, seed: int) -> Run:
    """Return the accuracy on the validation images."""
    train, valid = draw(folder, name, seed)
    model = fit(name, train, METHODS[method][setting], seed)
    return {"valid": float(model.score(valid.X, valid.y))}


def test(folder: Path, name: str, method: str, setting: int, seed: int) -> Run:
    """Return all figures of a fit with the chosen setting."""
    train, _ = draw(folder, name, seed)
    start = time.perf_counter()
    model = fit(name, train, METHODS[method][setting], seed)
    seconds = time.perf_counter() - start
    others = images_of(folder, name)[1]
    n_classes = SETS[name][1]
    seen = np.flatnonzero(others.y < n_classes)[:N_OTHERS]
    new = others.y >= n_classes
    unseen = np.flatnonzero(new & (others.y < 2 * n_classes))[:N_OTHERS]
    X, y = others.X[seen], others.y[seen]
    figures = {
        "setting": setting,
        "seconds": seconds,
        "train": float(model.score(train.X, train.y)),
        "corrupted": float(np.mean([model.score(shifted(X, s), y) for s in SHIFTS])),
    }
    for kind, n_draws in (("one pass", 0), ("draws", N_DRAWS)):
        p = model.predict_proba(X, n_draws=n_draws)
        q = model.predict_proba(others.X[unseen], n_draws=n_draws)
        figures[kind] = scores(p, y) | {"unseen": separation(p, q)}
    return figures


def shifted(X: np.ndarray, name: str) -> np.ndarray:
    """Corrupt images at severity 3."""
    return channels_first(corrupt(X.transpose(0, 2, 3, 1), name, 3))


def scores(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return accuracy, log loss and expected calibration error of probabilities."""
    right, confidence = p.argmax(axis=1) == y, p.max(axis=1)
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    gaps = np.bincount(bins, right - confidence, minlength=N_BINS)
    return {
        "accuracy": float(right.mean()),
        "log loss": float(log_loss(y, p, labels=np.arange(p.shape[1]))),
        "calibration": float(np.abs(gaps).sum() / len(y)),
    }


def separation(p: np.ndarray, q: np.ndarray) -> float:
    """Return how well the entropy tells images of unseen classes, by the area."""
    score = np.concatenate([entropy(p, axis=1), entropy(q, axis=1)])
    return float(roc_auc_score(np.repeat([0, 1], [len(p), len(q)]), score))


def choose(runs: Runs, name: str, method: str) -> int:
    """Return the number of the setting with the best validation accuracy."""
    key = {"kind": "tuning", "set": name, "method": method}
    means = [
        np.mean([run["valid"] for run in runs.select(**key, setting=number)])
        for number in range(len(METHODS[method]))
    ]
    return int(np.argmax(means))


FIGURES = ("accuracy", "log loss", "calibration", "unseen")


def table(runs: Runs, name: str, tests: str) -> str:
    """Return the table of one set: means, and differences to weight decay."""
    n_images, n_classes, *_ = SETS[name]
    head = f"{name}, {n_images} images of {n_classes} classes"
    columns = ["setting", "train", "accuracy", "(to decay)", "corrupted"]
    columns += ["log loss", "calibr.", "unseen"]
    lines = [f"{head:<34}" + "".join(f"{c:>12}" for c in columns)]
    plain = {r["seed"]: r for r in runs.select(kind=tests, set=name, method=PLAIN)}
    for method, settings in METHODS.items():
        found = runs.select(kind=tests, set=name, method=method)
        if not found:
            continue
        setting = settings[found[0]["setting"]]
        value = setting.get("weight_decay")
        if value is None:
            value = setting["regularizers"][0].drop_rate
        for kind in ("one pass", "draws")[: 1 if method == PLAIN else 2]:
            mean = {f: np.mean([run[kind][f] for run in found]) for f in FIGURES}
            gains = [
                100 * (r[kind]["accuracy"] - plain[r["seed"]]["one pass"]["accuracy"])
                for r in found
                if r["seed"] in plain
            ]
            gain = "" if method == PLAIN else difference(gains)
            label = f"{method}" if kind == "one pass" else f"  mean of {N_DRAWS} draws"
            fitted, corrupted = (
                f"{100 * np.mean([run[f] for run in found]):.1f}"
                for f in ("train", "corrupted")
            )
            cells = [f"{value:g}", fitted, f"{100 * mean['accuracy']:.1f}", gain]
            cells += [corrupted, f"{mean['log loss']:.3f}"]
            cells += [f"{100 * mean['calibration']:.1f}", f"{mean['unseen']:.3f}"]
            if kind == "draws":
                cells[0] = cells[1] = cells[4] = ""
            lines.append(f"{label:<34}" + "".join(f"{c:>12}" for c in cells))
    how = "tuned" if tests == "test" else "untuned"
    note = f"({len(plain)} seeds, {how}; accuracies and calibration error in per cent)"
    lines.append(note)
    return "\n".join(lines)


def difference(gains: list[float]) -> str:
    """Return a mean and its standard error."""
    if len(gains) < 2:
        return ""
    error = np.std(gains, ddof=1) / np.sqrt(len(gains))
    return f"{np.mean(gains):+.1f} ± {error:.1f}"


def report(runs: Runs) -> None:
    """Print the tables, and write the page's."""
    tables = []
    for name in SETS:
        known = [
            kind for kind in ("test", "untuned") if runs.select(kind=kind, set=name)
        ]
        tables += [table(runs, name, kind) for kind in known[:1]]
    text = "\n\n".join(tables)
    print(text, flush=True)
    lines = "\n".join(f"    {line}".rstrip() for line in text.splitlines())
    PAGE.write_text(f".. code-block:: text\n\n{lines}\n")


def run_set(folder: Path, name: str, runs: Runs) -> None:
    """Choose the settings for one set, and test them seed by seed."""
    for method, settings in METHODS.items():
        for number, seed in product(range(len(settings)), TUNING):
            row = {"kind": "tuning", "set": name, "method": method}
            row |= {"setting": number, "seed": seed}
            runs.once(row, partial(tune, folder, name, method, number, seed))
    for seed in SEEDS:
        for method in METHODS:
            row = {"kind": "test", "set": name, "method": method, "seed": seed}
            number = choose(runs, name, method)
            runs.once(row, partial(test, folder, name, method, number, seed))
        report(runs)


def first_look(folder: Path, runs: Runs) -> None:
    """Test one setting of each on three draws of one set."""
    for seed, method in product(range(3), METHODS):
        number = 0 if method == PLAIN else 1
        row = {"kind": "untuned", "set": "cifar100", "method": method, "seed": seed}
        runs.once(row, partial(test, folder, "cifar100", method, number, seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="only write the tables")
    parser.add_argument("--untuned", action="store_true", help="a first look")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    runs = Runs(arguments.json)
    if arguments.untuned:
        first_look(arguments.data, runs)
    elif not arguments.report:
        for name in SETS:
            run_set(arguments.data, name, runs)
    report(runs)


if __name__ == "__main__":
    main()
