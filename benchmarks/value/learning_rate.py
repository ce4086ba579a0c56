"""Measure which learning rate suits an optimizer, by the number of features.

Raw tables through `StructuredClassifier` with its defaults, three folds, means over
folds and seeds: accuracy and log loss of held-out rows for a grid of rates. A fit whose
loss becomes non-finite counts as one that gives every class the same probability. The
last column has ``learning_rate="auto"``, for comparison.

Run ``python -m benchmarks.value.learning_rate --data FOLDER`` (about a quarter of an
hour on one core; ``--small``: a minute). FOLDER holds tables as ``.npz`` files with X
and y, of which a sample of at most 450 rows is taken; without it there are
scikit-learn's tables and made ones.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
from sklearn.datasets import make_classification
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold, train_test_split

from benchmarks.data import load_tables, sklearn_tables
from benchmarks.value.runs import Run, Runs
from benchmarks.value.section import Options, run_section
from sklearn_structreg import StructuredClassifier

GRIDS: dict[str, list[float | str]] = {
    "sgd": [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, "auto"],
    "adam": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 5e-2, "auto"],
}
MAX_ROWS = 450

Table = tuple[np.ndarray, np.ndarray]


def tables(folder: Path | None, small: bool) -> dict[str, Table]:
    """Return samples and labels by name, fewest features first."""
    found = sklearn_tables()
    for n_features in (2_000,) if small else (2_000, 10_000):
        found[f"made-{n_features}"] = make_classification(
            MAX_ROWS, n_features, n_informative=20, n_classes=3, random_state=0
        )
    if folder is not None:
        found |= load_tables(folder)
    found = {name: sample(*table) for name, table in found.items()}
    return dict(sorted(found.items(), key=lambda item: item[1][0].shape[1]))


def sample(X: np.ndarray, y: np.ndarray) -> Table:
    """Take at most `MAX_ROWS` rows, stratified."""
    if len(X) > MAX_ROWS:
        split = train_test_split(X, y, train_size=MAX_ROWS, stratify=y, random_state=0)
        X, y = split[0], split[2]
    return X, y


def score(
    X: np.ndarray, y: np.ndarray, optimizer: str, rate: float | str, seed: int
) -> Run:
    """Return accuracy and log loss of held-out rows, means over three folds."""
    figures = []
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    n_classes = len(np.unique(y))
    for train, test in folds.split(X, y):
        model = StructuredClassifier(
            optimizer=optimizer, learning_rate=rate, random_state=seed
        )
        try:
            p = model.fit(X[train], y[train]).predict_proba(X[test])
        except ValueError:  # diverged
            p = np.full((len(test), n_classes), 1 / n_classes)
        figures.append(
            (accuracy_score(y[test], p.argmax(axis=1)), log_loss(y[test], p))
        )
    accuracy, loss = np.mean(figures, axis=0)
    return {"accuracy": float(accuracy), "log_loss": float(loss)}


def measure(runs: Runs, options: Options) -> None:
    """Measure every rate on every table."""
    found = tables(options.data, options.small)
    for seed, (name, (X, y)) in product(options.seeds, found.items()):
        if not options.wants(name):
            continue
        for optimizer, grid in GRIDS.items():
            for rate in grid:
                key = {"data": name, "n_features": X.shape[1], "seed": seed}
                key |= {"optimizer": optimizer, "rate": rate}
                runs.once(key, score, X, y, optimizer, rate, seed)


def report(runs: Runs) -> str:
    """Return accuracy (per cent) and log loss, means over seeds, by the optimizer."""
    tables = sorted({(row["n_features"], row["data"]) for row in runs.rows})
    lines = []
    for optimizer, grid in GRIDS.items():
        head = f"{optimizer:>5}, n_features" + "".join(f"{r!s:>12}" for r in grid)
        lines += ["", head]
        for n_features, table in tables:
            line = f"{table:>10} {n_features:>6}"
            for rate in grid:
                key = {"data": table, "optimizer": optimizer, "rate": rate}
                accuracy = runs.mean("accuracy", **key)
                line += f"{100 * accuracy:6.1f}{runs.mean('log_loss', **key):6.2f}"
            lines.append(line)
    return "\n".join(lines[1:])


if __name__ == "__main__":
    run_section("learning_rate", __doc__, measure, report, n_seeds=2)
