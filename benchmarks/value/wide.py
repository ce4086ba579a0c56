"""Compare the strength chosen by cross-validation with its rivals, on wide raw tables.

Three folds of every table; each model with its defaults: the plain network,
`CGESClassifier`, `CGESClassifierCV`, and L2 logistic regression (C = .01) on
standardized features. Accuracy on the held-out rows, the share of the features that a
model reads, and the seconds of a fit.

Run ``python -m benchmarks.value.wide --data FOLDER``, where FOLDER holds tables as
``.npz`` files with X and y; without it there are scikit-learn's tables and a made one.
A table counts once all its folds are done.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.data import load_tables, sklearn_tables
from benchmarks.value.runs import Run, Runs
from benchmarks.value.section import Options, run_section
from sklearn_structreg import CGESClassifier, CGESClassifierCV, StructuredClassifier

N_FOLDS = 3
MODELS = {
    "plain": ("plain network", StructuredClassifier(random_state=0)),
    "cges": ("CGESClassifier", CGESClassifier(random_state=0)),
    "cv": ("CGESClassifierCV", CGESClassifierCV(random_state=0)),
    "l2": (
        "L2 logistic regression",
        make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=3000)),
    ),
}


def tables(folder: Path | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return samples and labels by name, the smallest first."""
    if folder is None:
        found = sklearn_tables()
        found["made"] = make_classification(150, 2000, n_informative=20, random_state=0)
    else:
        found = load_tables(folder)
    return dict(sorted(found.items(), key=lambda item: item[1][0].size))


def fit(model: Any, X: np.ndarray, y: np.ndarray, fold: int) -> Run:
    """Fit on all but one fold."""
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
    train, test = list(folds.split(X, y))[fold]
    start = time.perf_counter()
    model = clone(model).fit(X[train], y[train])
    seconds = time.perf_counter() - start
    importances = getattr(model, "feature_importances_", np.ones(1))
    return {
        "accuracy": float(model.score(X[test], y[test])),
        "reads": float((importances > 0).mean()),
        "seconds": seconds,
        **({"alpha": float(model.alpha_)} if hasattr(model, "alpha_") else {}),
    }


def measure(runs: Runs, options: Options) -> None:
    """Fit every model on the folds of every table."""
    for name, (X, y) in tables(options.data).items():
        for model, (_, estimator) in MODELS.items() if options.wants(name) else ():
            for fold in options.seeds[:N_FOLDS]:
                key = {"data": name, "shape": X.shape, "model": model, "seed": fold}
                runs.once(key, fit, estimator, X, y, fold)


def complete(runs: Runs) -> dict[str, tuple[int, int]]:
    """Return the shapes of the tables of which all folds are done, by name."""
    n_runs = len(MODELS) * N_FOLDS
    shapes = {row["data"]: tuple(row["shape"]) for row in runs.rows}
    done = {k: v for k, v in shapes.items() if len(runs.select(data=k)) == n_runs}
    return dict(sorted(done.items(), key=lambda item: np.prod(item[1])))


def report(runs: Runs) -> str:
    """Return the table: accuracy, and the share of features read, in per cent."""
    width = max(len(label) for label, _ in MODELS.values()) + 2
    head = "".join(f"{label:>{width}}" for label, _ in MODELS.values())
    lines, shapes = [f"{'accuracy (features read), %':<28}{head}"], complete(runs)
    for name, (n_rows, n_features) in shapes.items():
        cells = ""
        for model in MODELS:
            accuracy, reads = (
                100 * runs.mean(f, data=name, model=model)
                for f in ("accuracy", "reads")
            )
            cells += f"{f'{accuracy:.1f} ({reads:3.0f})':>{width}}"
        lines.append(f"{f'{name}, {n_rows} x {n_features}':<28}{cells}")
    means = [
        np.mean(
            [100 * runs.mean("accuracy", data=name, model=model) for name in shapes]
        )
        for model in MODELS
    ]
    cells = "".join(f"{f'{mean:.1f}{6 * chr(32)}':>{width}}" for mean in means)
    return "\n".join([*lines, f"{'mean':<28}{cells}"])


if __name__ == "__main__":
    run_section("wide", __doc__, measure, report)
