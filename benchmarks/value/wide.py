"""Compare the strength chosen by cross-validation with its rivals, on wide raw tables.

Three folds of every table; each model with its defaults: the plain network,
`CGESClassifier`, `CGESClassifierCV`, and L2 logistic regression (C = .01) on
standardized features. Accuracy on the held-out rows, the share of the features that a
model reads, and the seconds of a fit.

Run ``python -m benchmarks.value.wide --data FOLDER``, where FOLDER holds tables as
``.npz`` files with X and y; without it there are scikit-learn's tables and a made one.
``--tables`` names some of them. Fits that the JSON file holds already are not repeated,
so that a run can be broken off and gone on with: delete it to start anew. It prints the
table and writes docs/wide.inc and the figure of the CGES page.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    load_wine,
    make_classification,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.data import load_tables
from sklearn_structreg import CGESClassifier, CGESClassifierCV, StructuredClassifier

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "wide.json"
FIGURE, PAGE = RESULTS.with_suffix(".png"), ROOT / "docs" / "wide.inc"
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
COLOURS = {"plain": "0.7", "cges": "#9ecae1", "cv": "#08519c", "l2": "#fd8d3c"}

Rows = list[dict[str, Any]]


def tables(folder: Path | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return samples and labels by name, the smallest first."""
    if folder is None:
        found = {
            "wine": load_wine(return_X_y=True),
            "cancer": load_breast_cancer(return_X_y=True),
            "digits": load_digits(return_X_y=True),
            "made": make_classification(150, 2000, n_informative=20, random_state=0),
        }
    else:
        found = load_tables(folder)
    return dict(sorted(found.items(), key=lambda item: item[1][0].size))


def measure(model: Any, X: np.ndarray, y: np.ndarray, fold: int) -> dict[str, float]:
    """Fit on all but one fold."""
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
    train, test = list(folds.split(X, y))[fold]
    start = time.perf_counter()
    model.fit(X[train], y[train])
    seconds = time.perf_counter() - start
    importances = getattr(model, "feature_importances_", np.ones(1))
    return {
        "accuracy": round(float(model.score(X[test], y[test])), 4),
        "reads": round(float((importances > 0).mean()), 4),
        "seconds": round(seconds, 1),
        **({"alpha": round(model.alpha_, 4)} if hasattr(model, "alpha_") else {}),
    }


def mean_of(rows: Rows, table: str, model: str, figure: str) -> float:
    """Return a mean over the folds; NaN where one is missing."""
    found = [r[figure] for r in rows if (r["table"], r["model"]) == (table, model)]
    return float(np.mean(found)) if len(found) == N_FOLDS else np.nan


def report(rows: Rows, names: list[str]) -> str:
    """Return the table: accuracy, and the share of features read, in per cent."""
    width = max(len(label) for label, _ in MODELS.values()) + 2
    head = "".join(f"{label:>{width}}" for label, _ in MODELS.values())
    lines = [f"{'accuracy (features read), %':<28}{head}"]
    for name in names:
        cells = ""
        for model in MODELS:
            accuracy, reads = (
                100 * mean_of(rows, name, model, f) for f in ("accuracy", "reads")
            )
            cells += f"{f'{accuracy:.1f} ({reads:3.0f})':>{width}}"
        shape = next(r["shape"] for r in rows if r["table"] == name)
        lines.append(f"{f'{name}, {shape[0]} x {shape[1]}':<28}{cells}")
    means = [
        np.mean([100 * mean_of(rows, name, model, "accuracy") for name in names])
        for model in MODELS
    ]
    cells = "".join(f"{f'{mean:.1f}{6 * chr(32)}':>{width}}" for mean in means)
    return "\n".join([*lines, f"{'mean':<28}{cells}"])


def draw(rows: Rows, names: list[str]) -> None:
    """Draw the accuracies as bars, with the features read above those that select."""
    figure, ax = plt.subplots(
        figsize=(1.6 + 1.25 * len(names), 3.6), layout="constrained"
    )
    for i, (model, (label, _)) in enumerate(MODELS.items()):
        at = np.arange(len(names)) + 0.2 * (i - 1.5)
        heights = [100 * mean_of(rows, name, model, "accuracy") for name in names]
        bars = ax.bar(at, heights, 0.19, color=COLOURS[model], label=label)
        if model == "cv":
            reads = [100 * mean_of(rows, name, model, "reads") for name in names]
            texts = [f"{share:.0f} %" for share in reads]
            ax.bar_label(bars, texts, fontsize=8, color=COLOURS["cv"], padding=1)
    shapes = {row["table"]: row["shape"] for row in rows}
    labels = [f"{n}\n{shapes[n][0]} x {shapes[n][1]:,}" for n in names]
    ax.set_xticks(np.arange(len(names)), labels, fontsize=9)
    lowest = min(100 * mean_of(rows, n, m, "accuracy") for n in names for m in MODELS)
    ax.set_ylim(5 * (lowest // 5) - 5, 104)
    ax.set_ylabel("held-out accuracy, %")
    ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        "Wide raw tables, defaults; above CGESClassifierCV the share of the features "
        "that it reads",
        fontsize=9,
    )
    figure.legend(
        *ax.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=9,
    )
    figure.savefig(FIGURE, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of .npz files with X and y")
    parser.add_argument("--tables", help="names, with commas")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    found = tables(arguments.data)
    names = arguments.tables.split(",") if arguments.tables else list(found)
    rows: Rows = []
    if arguments.json.exists():
        rows = json.loads(arguments.json.read_text())
    done = {(row["table"], row["model"], row["fold"]) for row in rows}
    for name in names:
        X, y = found[name]
        for model, (_, estimator) in MODELS.items():
            for fold in range(N_FOLDS):
                if (name, model, fold) in done:
                    continue
                figures = measure(estimator, X, y, fold)
                row = {"table": name, "shape": X.shape, "model": model, "fold": fold}
                rows.append(row | figures)
                text = ",\n".join(json.dumps(row) for row in rows)
                arguments.json.write_text(f"[\n{text}\n]\n")
    complete = [
        name
        for name in found
        if not any(np.isnan(mean_of(rows, name, m, "accuracy")) for m in MODELS)
    ]
    text = report(rows, complete)
    print(text)
    if arguments.json == RESULTS:
        indented = "\n".join(f"    {line}".rstrip() for line in text.splitlines())
        PAGE.write_text(f".. code-block:: text\n\n{indented}\n", encoding="utf-8")
        draw(rows, complete)


if __name__ == "__main__":
    main()
