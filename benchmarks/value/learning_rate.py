"""Measure which learning rate suits an optimizer, by the number of features.

Raw tables through `StructuredClassifier` with its defaults, three folds, means over
folds and seeds: accuracy and log loss of held-out rows for a grid of rates. A fit whose
loss becomes non-finite counts as one that gives every class the same probability. The
last column has ``learning_rate="auto"``, for comparison.

Run ``python -m benchmarks.value.learning_rate --data FOLDER`` (about a quarter of an
hour on one core). FOLDER holds tables as ``.npz`` files with X and y, of which a sample
of at most 450 rows is taken; without it there are scikit-learn's tables and made ones.
``--small`` takes fewer of these and one seed (a minute). Runs that the JSON file holds
already are not repeated: delete it to start anew.
"""

from __future__ import annotations

import argparse
import json
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    load_wine,
    make_classification,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold, train_test_split

from benchmarks.data import load_tables
from sklearn_structreg import StructuredClassifier

GRIDS: dict[str, list[float | str]] = {
    "sgd": [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, "auto"],
    "adam": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 5e-2, "auto"],
}
RESULTS = Path(__file__).parents[1] / "results" / "learning_rate.json"
MAX_ROWS = 450

Table = tuple[np.ndarray, np.ndarray]


def tables(folder: Path | None, small: bool) -> dict[str, Table]:
    """Return samples and labels by name, fewest features first."""
    found = {
        "wine": load_wine(return_X_y=True),
        "cancer": load_breast_cancer(return_X_y=True),
        "digits": load_digits(return_X_y=True),
    }
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


def measure(
    X: np.ndarray, y: np.ndarray, optimizer: str, rate: float | str, seed: int
) -> tuple[float, float]:
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
    return float(accuracy), float(loss)


def show(rows: list[dict[str, Any]]) -> None:
    """Print accuracy (per cent) and log loss, means over seeds, for each optimizer."""
    tables = sorted({(row["n_features"], row["table"]) for row in rows})
    for optimizer, grid in GRIDS.items():
        print(f"\n{optimizer:>5}, n_features" + "".join(f"{r!s:>12}" for r in grid))
        for n_features, table in tables:
            cells = []
            for rate in grid:
                key = (table, optimizer, rate)
                found = [row for row in rows if key_of(row)[:3] == key]
                means = [
                    np.mean([row[figure] for row in found]) if found else np.nan
                    for figure in ("accuracy", "log_loss")
                ]
                cells.append(f"{100 * means[0]:6.1f}{means[1]:6.2f}")
            print(f"{table:>10} {n_features:>6}" + "".join(cells))


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["table"], row["optimizer"], row["rate"], row["seed"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of .npz files with X and y")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="few tables, one seed")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    seeds = range(1 if arguments.small else arguments.seeds)
    rows = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    done = {key_of(row) for row in rows}
    found = tables(arguments.data, arguments.small)
    for seed, (name, (X, y)), (optimizer, grid) in product(
        seeds, found.items(), GRIDS.items()
    ):
        for rate in grid:
            if (name, optimizer, rate, seed) in done:
                continue
            accuracy, loss = measure(X, y, optimizer, rate, seed)
            rows.append(
                {
                    "table": name,
                    "n_features": X.shape[1],
                    "optimizer": optimizer,
                    "rate": rate,
                    "seed": seed,
                    "accuracy": round(accuracy, 4),
                    "log_loss": round(loss, 4),
                }
            )
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
