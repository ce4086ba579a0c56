"""Compare eight networks that differ in their seeds with one, on wide raw tables.

Three folds of every table; the plain network and `CGESClassifier`, with their defaults
and ``n_members=8``. The score of one network is the mean over the eight. So the gain is
that of the mean of their probabilities alone.

Run ``python -m benchmarks.value.members --data FOLDER``, where FOLDER holds tables as
``.npz`` files with X and y; without it there are scikit-learn's tables and a made one.
Without ``--only`` it takes those of at most 200 rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold

from benchmarks.value.runs import Run, Runs
from benchmarks.value.section import Options, run_section
from benchmarks.value.wide import N_FOLDS, tables
from sklearn_structreg import CGESClassifier, StructuredClassifier

N_MEMBERS, MOST_ROWS = 8, 200
HOW: dict[str, Any] = {"n_members": N_MEMBERS, "random_state": 0}
MODELS = {
    "plain": ("plain network", StructuredClassifier(**HOW)),
    "cges": ("CGESClassifier", CGESClassifier(**HOW)),
}


def scores(model: Any, X: np.ndarray, y: np.ndarray) -> list[float]:
    """Return accuracy and log loss."""
    probabilities = model.predict_proba(X)
    loss = log_loss(y, probabilities, labels=model.classes_)
    return [accuracy_score(y, model.predict(X)), float(loss)]


def fit(model: Any, X: np.ndarray, y: np.ndarray, fold: int) -> Run:
    """Fit on all but one fold; score the members together, and each."""
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
    train, test = list(folds.split(X, y))[fold]
    model = clone(model).fit(X[train], y[train])
    alone = [scores(each, X[test], y[test]) for each in model.estimators_]
    return {
        "together": scores(model, X[test], y[test]),
        "alone": np.mean(alone, axis=0).tolist(),
    }


def measure(runs: Runs, options: Options) -> None:
    """Fit every model on the folds of every table."""
    for name, (X, y) in tables(options.data).items():
        if not options.wants(name) or not (options.only or len(X) <= MOST_ROWS):
            continue
        for model, (_, estimator) in MODELS.items():
            for fold in options.seeds[:N_FOLDS]:
                key = {"data": name, "shape": X.shape, "model": model, "seed": fold}
                runs.once(key, fit, estimator, X, y, fold)


def report(runs: Runs) -> str:
    """Return the table of the scores of one network and of all."""
    head = f"{'one network -> 8':<26}{'':<18}"
    lines = [f"{head}{'accuracy, %':>16}{'log loss':>20}"]
    names = dict.fromkeys((row["data"], *row["shape"]) for row in runs.rows)
    for name, n_rows, n_features in names:
        for model, (label, _) in MODELS.items():
            found = runs.select(data=name, model=model)
            if len(found) < N_FOLDS:
                continue
            (a, loss_a), (b, loss_b) = (
                np.mean([row[how] for row in found], axis=0)
                for how in ("alone", "together")
            )
            lines.append(
                f"{f'{name}, {n_rows} x {n_features}':<26}{label:<18}"
                f"{f'{100 * a:.1f} -> {100 * b:.1f}':>16}"
                f"{f'{loss_a:.3f} -> {loss_b:.3f}':>20}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    run_section("members", __doc__, measure, report, n_seeds=N_FOLDS)
