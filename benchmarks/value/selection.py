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

Run ``python -m benchmarks.value.selection --data FOLDER`` (a quarter of an hour on one
core). FOLDER holds tables as ``.npz`` files with X and y; without it there are the made
ones. ``--small`` takes one split, and of the tables those with at most 500 rows (three
minutes). Where ``lassonet`` is installed, ``--lassonet`` adds it on the made tables.
Runs that the JSON file holds already are not repeated: delete it to start anew.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import f_classif, mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler

from benchmarks.data import load_tables
from sklearn_structreg import CGESClassifier, CGESSelector, StructuredClassifier

FOLDER = Path(__file__).parents[1]
RESULTS = FOLDER / "results" / "selection.json"
PAGE = FOLDER.parent / "docs" / "selection.inc"
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


Splits = dict[tuple[str, int], Callable[[], Split]]


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


def fold(X: np.ndarray, y: np.ndarray, number: int) -> Split:
    """Return one of three folds."""
    y = LabelEncoder().fit_transform(y)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    train, test = list(folds.split(X, y))[number]
    X = X.astype(float)
    return Split(X[train], y[train], X[test], y[test])


def splits(
    folder: Path | None, small: bool
) -> dict[tuple[str, int], Callable[[], Split]]:
    """Return all splits by table and number, to be made when they are needed."""
    found: dict[tuple[str, int], Callable[[], Split]] = {}
    tables = {} if folder is None else load_tables(folder)
    for number in range(1 if small else 3):
        for name in ("planted", "redundant", "xor"):
            found[name, number] = partial(made, name, number)
        for name, (X, y) in sorted(tables.items(), key=lambda item: item[1][0].size):
            if len(X) <= 500 or not small:
                found[name, number] = partial(fold, X, y, number)
    return found


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
}


def logistic(split: Split) -> dict[str, Any]:
    """Measure L1 logistic regression with its strength chosen by cross-validation."""
    model = LogisticRegression(solver="liblinear", l1_ratio=1, tol=1e-3)
    pipeline = make_pipeline(StandardScaler(), OneVsRestClassifier(model))
    grid = {"onevsrestclassifier__estimator__C": np.geomspace(0.01, 10, 5)}
    began = time.process_time()
    search = GridSearchCV(pipeline, grid, cv=3).fit(split.X, split.y)
    used = search.best_estimator_[-1].estimators_
    kept = np.any([each.coef_[0] != 0 for each in used], axis=0)
    return {
        "n_features": int(kept.sum()),
        "accuracy": search.score(split.X_test, split.y_test),
        "seconds": time.process_time() - began,
    }


def net_on(split: Split, columns: np.ndarray, seed: int) -> float:
    net = StructuredClassifier(random_state=seed)
    net.fit(split.X[:, columns], split.y)
    return float(net.score(split.X_test[:, columns], split.y_test))


def measure(split: Split, way: str, seed: int) -> list[dict[str, Any]]:
    """Return a row for each number of features."""
    if way == "L1 logistic regression":
        return [logistic(split)]
    if way == "all features":
        everything = np.arange(split.X.shape[1])
        accuracy = net_on(split, everything, seed)
        return [{"n_features": len(everything), "accuracy": accuracy}]
    began = time.process_time()
    rank = by_lassonet if way == "LassoNet" else WAYS[way]
    order = np.argsort(-rank(split, seed), kind="stable")
    seconds, rows = time.process_time() - began, []
    for size in split.sizes:
        row: dict[str, Any] = {"n_features": size, "seconds": seconds}
        row["accuracy"] = net_on(split, order[:size], seed)
        if split.planted is not None:
            row["right"] = float(np.isin(order[:size], split.planted).mean())
        rows.append(row)
    return rows


# ---- tables ------------------------------------------------------------------------


def text_table(rows: list[dict[str, Any]]) -> str:
    """Write the means over splits, a line for each way and size."""
    tables = list(dict.fromkeys(row["table"] for row in rows))
    real = [name for name in tables if name not in ("planted", "redundant", "xor")]
    lines = []
    head = f"{'':>24} {'share':>6}" + "".join(f"{name:>11}" for name in real)
    lines.append(f"{head}{'mean':>11}{'seconds':>10}")
    for way in dict.fromkeys(row["way"] for row in rows):
        for size in (*SHARES, None):
            cells = [
                [
                    r
                    for r in rows
                    if (r["table"], r["way"], r["share"]) == (t, way, size)
                ]
                for t in real
            ]
            if not any(cells):
                continue
            means = [
                np.mean([r["accuracy"] for r in c]) if c else np.nan for c in cells
            ]
            seconds = [r["seconds"] for c in cells for r in c if "seconds" in r]
            label = "" if size is None else f"{100 * size:.0f} %"
            line = f"{way:>24} {label:>6}"
            for value in [*means, np.mean(means)]:
                line += f"{'' if np.isnan(value) else f'{value:.3f}':>11}"
            lines.append(line + (f"{np.mean(seconds):10.1f}" if seconds else ""))
    lines += ["", f"{'':>24}" + "".join(f"{t:>27}" for t in tables if t not in real)]
    lines.append(f"{'':>24}" + f"{'right  accuracy  seconds':>27}" * 3)
    for way in dict.fromkeys(row["way"] for row in rows):
        line = f"{way:>24}"
        for table in ("planted", "redundant", "xor"):
            cell = [r for r in rows if (r["table"], r["way"]) == (table, way)]
            for key, width in (("right", 8), ("accuracy", 10), ("seconds", 9)):
                values = [r[key] for r in cell if key in r]
                digits = 1 if key == "seconds" else 2 if key == "right" else 3
                mean = f"{np.mean(values):.{digits}f}" if values else ""
                line += f"{mean:>{width}}"
        lines.append(line)
    return "\n".join(line.rstrip() for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of .npz files with X and y")
    parser.add_argument("--small", action="store_true", help="few tables, one split")
    parser.add_argument("--lassonet", action="store_true", help="also LassoNet")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, help="write the table, such as the docs'")
    arguments = parser.parse_args()
    os.nice(10)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    done = {(row["table"], row["split"], row["way"]) for row in rows}
    ways = [*WAYS, "L1 logistic regression", "all features"]
    for (table, number), make in splits(arguments.data, arguments.small).items():
        own = [*ways, "LassoNet"] if arguments.lassonet and table == "xor" else ways
        for way in own:
            if (table, number, way) in done:
                continue
            split = make()
            for row in measure(split, way, number):
                share = None
                if split.planted is None and "seconds" in row and way in WAYS:
                    share = SHARES[split.sizes.index(row["n_features"])]
                row = {
                    key: round(value, 4) if isinstance(value, float) else value
                    for key, value in row.items()
                }
                key = {"table": table, "split": number, "way": way, "share": share}
                rows.append(key | row)
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    text = text_table(rows)
    print(text)
    if arguments.page is not None:
        indented = "\n".join(f"    {line}".rstrip() for line in text.splitlines())
        arguments.page.write_text(f".. code-block:: text\n\n{indented}\n")


if __name__ == "__main__":
    main()
