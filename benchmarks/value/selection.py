"""Compare ways to select features, by a network trained on the selected ones.

Every table is split three times; features are selected in the training rows alone, the
best 1 % and 5 % of them, or as many as were planted. The same network is trained on
each selection (`StructuredClassifier` with its defaults), and its accuracy read off the
other rows, beside that on all features, and beside L1 logistic regression with its
strength chosen by cross-validation. Nothing else is tuned. Made tables also know how
many of the best features are right:

- planted: 1,000 rows, 500 features, 20 of which make 3 classes
- redundant: the same with 5 features and 15 mixtures of them, 2 classes
- xor: 1,000 rows, 100 features, ``x0 x1 + x2 x3 + sin(3 x4) > 0``

Run ``python -m benchmarks.value.selection --data FOLDER`` (half an hour on one core).
FOLDER holds tables as ``.npz`` files with X and y, of which isolet and pcmac are cut to
1,000 rows; without it there are the made ones. ``--small`` takes tables of at most 500
rows (three minutes). Where ``lassonet`` is installed it runs on xor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import f_classif, mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    train_test_split,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler

from benchmarks.data import load_tables
from benchmarks.value.runs import Run, Runs
from benchmarks.value.section import Options, run_section
from sklearn_structreg import CGESClassifier, CGESSelector, StructuredClassifier

MADE = ("planted", "redundant", "xor")
MOST_ROWS = {"isolet": 1_000, "pcmac": 1_000}  # else the rivals take hours
SHARES = (0.01, 0.05)
N_ROWS = 1000


class Split(NamedTuple):
    """Training and test rows of a table, and the features that were planted."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    planted: np.ndarray | None = None

    @property
    def sizes(self) -> list[int]:
        """Numbers of features to select."""
        if self.planted is not None:
            return [len(self.planted)]
        return [max(1, int(share * self.X.shape[1])) for share in SHARES]


def made(name: str, seed: int) -> Split:
    """Make as many rows to test on as to train on."""
    if name == "xor":
        X = np.random.default_rng(seed).standard_normal((2 * N_ROWS, 100))
        total = X[:, 0] * X[:, 1] + X[:, 2] * X[:, 3] + np.sin(3 * X[:, 4])
        y, right = (total > 0).astype(int), np.arange(5)
    else:
        kinds = {
            "planted": {"n_informative": 20, "n_redundant": 0, "n_classes": 3},
            "redundant": {"n_informative": 5, "n_redundant": 15},
        }
        X, y = make_classification(
            2 * N_ROWS, 500, shuffle=False, random_state=seed, **kinds[name]
        )
        right = np.arange(20)
        rows = np.random.default_rng(seed).permutation(len(X))  # else sorted by class
        X, y = X[rows], y[rows]
    columns = np.random.default_rng(seed).permutation(X.shape[1])
    planted = np.flatnonzero(np.isin(columns, right))
    X = X[:, columns]
    return Split(X[:N_ROWS], y[:N_ROWS], X[N_ROWS:], y[N_ROWS:], planted)


def fold(name: str, X: np.ndarray, y: np.ndarray, number: int) -> Split:
    """Return one of three folds of a table, or of the rows that are taken of it."""
    y, most = LabelEncoder().fit_transform(y), MOST_ROWS.get(name)
    if most is not None:
        X, _, y, _ = train_test_split(X, y, train_size=most, stratify=y, random_state=0)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    train, test = list(folds.split(X, y))[number]
    X = X.astype(float)
    return Split(X[train], y[train], X[test], y[test])


# ---- the ways: each ranks the features; higher is better ---------------------------


def by_path(split: Split, seed: int) -> np.ndarray:
    return -CGESSelector(random_state=seed).fit(split.X, split.y).ranking_


def by_one_strength(split: Split, seed: int) -> np.ndarray:
    net = CGESClassifier(
        alpha=0.3, penalty="group", optimizer="adam", random_state=seed
    )
    return net.fit(split.X, split.y).feature_importances_


def by_f_test(split: Split, seed: int) -> np.ndarray:
    return np.nan_to_num(f_classif(split.X, split.y)[0])


def by_information(split: Split, seed: int) -> np.ndarray:
    return mutual_info_classif(split.X, split.y, random_state=seed)


def by_forest(split: Split, seed: int) -> np.ndarray:
    forest = RandomForestClassifier(500, random_state=seed)
    return forest.fit(split.X, split.y).feature_importances_


def by_lassonet(split: Split, seed: int) -> np.ndarray:
    from lassonet import LassoNetClassifier

    X = StandardScaler().fit_transform(split.X)
    net = LassoNetClassifier(hidden_dims=(100,), random_state=seed)
    net.path(X, split.y, return_state_dicts=False)
    return net.feature_importances_.numpy()


WAYS = {
    "CGESSelector": by_path,
    "CGES, one strength": by_one_strength,
    "f-test": by_f_test,
    "mutual information": by_information,
    "random forest": by_forest,
    "LassoNet": by_lassonet,
}
L1, ALL = "L1 logistic regression", "all features"
COLUMNS = (("right", 8, 2), ("accuracy", 10, 3), ("seconds", 9, 1))


def logistic(split: Split) -> Run:
    """Measure L1 logistic regression with its strength chosen by cross-validation."""
    model = LogisticRegression(solver="liblinear", l1_ratio=1, tol=1e-3)
    pipeline = make_pipeline(StandardScaler(), OneVsRestClassifier(model))
    grid = {"onevsrestclassifier__estimator__C": np.geomspace(0.01, 10, 5)}
    began = time.process_time()
    search = GridSearchCV(pipeline, grid, cv=3).fit(split.X, split.y)
    used = search.best_estimator_[-1].estimators_
    kept = np.any([each.coef_[0] != 0 for each in used], axis=0)
    return {
        "seconds": time.process_time() - began,
        "n_features": [int(kept.sum())],
        "accuracy": [search.score(split.X_test, split.y_test)],
    }


def net_on(split: Split, columns: np.ndarray, seed: int) -> float:
    net = StructuredClassifier(random_state=seed)
    net.fit(split.X[:, columns], split.y)
    return float(net.score(split.X_test[:, columns], split.y_test))


def select(make: Callable[[int], Split], way: str, seed: int) -> Run:
    """Return the figures of a way, a list entry for each number of features."""
    split = make(seed)
    if way == L1:
        return logistic(split)
    if way == ALL:
        everything = np.arange(split.X.shape[1])
        accuracy = net_on(split, everything, seed)
        return {"n_features": [len(everything)], "accuracy": [accuracy]}
    began = time.process_time()
    order = np.argsort(-WAYS[way](split, seed), kind="stable")
    seconds = time.process_time() - began
    best = [order[:size] for size in split.sizes]
    figures: Run = {"seconds": seconds, "n_features": split.sizes}
    figures["accuracy"] = [net_on(split, columns, seed) for columns in best]
    if split.planted is not None:
        right = [float(np.isin(columns, split.planted).mean()) for columns in best]
        figures["right"] = right
    return figures


def measure(runs: Runs, options: Options) -> None:
    """Go all ways on all tables."""
    makers = {name: partial(made, name) for name in MADE}
    tables = {} if options.data is None else load_tables(options.data)
    for name, (X, y) in sorted(tables.items(), key=lambda item: item[1][0].size):
        if len(X) <= 500 or not options.small:
            makers[name] = partial(fold, name, X, y)
    for way in [*WAYS, L1, ALL]:
        for name, make in makers.items():
            if way == "LassoNet" and (name != "xor" or not find_spec("lassonet")):
                continue
            for seed in options.seeds if options.wants(name) else ():
                key = {"data": name, "seed": seed, "way": way}
                runs.once(key, select, make, way, seed)


# ---- tables ------------------------------------------------------------------------


def mean(runs: Runs, figure: str, entry: int, **key: str) -> float:
    """Return the mean over the splits of an entry of a figure; NaN without any."""
    found = [row[figure] for row in runs.select(**key) if figure in row]
    numbers = [f[entry] if isinstance(f, list) else f for f in found]
    return float(np.mean(numbers)) if numbers else np.nan


def cell(value: float, width: int, digits: int) -> str:
    """Write a number, or nothing in the place of NaN."""
    return f"{'' if np.isnan(value) else f'{value:.{digits}f}':>{width}}"


def report(runs: Runs) -> str:
    """Return the means over splits, a line for each way and size."""
    names = runs.values("data")
    real = [name for name in names if name not in MADE]
    head = f"{'':>24} {'share':>6}" + "".join(f"{name:>11}" for name in real)
    lines = [f"{head}{'mean':>11}{'seconds':>10}"]
    ways = [way for way in [*WAYS, L1, ALL] if runs.select(way=way)]
    for way in ways:
        for entry, share in enumerate(SHARES if way in WAYS else (None,)):
            keys = [{"data": name, "way": way} for name in real]
            means = [mean(runs, "accuracy", entry, **key) for key in keys]
            if np.isnan(means).all():
                continue
            line = f"{way:>24} {'' if share is None else f'{100 * share:.0f} %':>6}"
            line += "".join(cell(value, 11, 3) for value in [*means, np.mean(means)])
            seconds = [mean(runs, "seconds", 0, **key) for key in keys]
            timed = [each for each in seconds if not np.isnan(each)]
            lines.append(line + (cell(float(np.mean(timed)), 10, 1) if timed else ""))
    lines += ["", f"{'':>24}" + "".join(f"{name:>27}" for name in MADE)]
    lines.append(f"{'':>24}" + f"{'right  accuracy  seconds':>27}" * len(MADE))
    for way in ways:
        line = f"{way:>24}"
        for name in MADE:
            for figure, width, digits in COLUMNS:
                value = mean(runs, figure, 0, data=name, way=way)
                line += cell(value, width, digits)
        lines.append(line)
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    run_section("selection", __doc__, measure, report)
