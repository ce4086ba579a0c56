"""Compare classifiers on tables in which most columns say nothing.

The columns of scikit-learn's tables stand among shuffled copies of themselves, which
are distributed alike but have no relation to the classes: none, 3 or 15 copies of each.
Held-out accuracy of the plain network and of `CGESClassifierCV`, beside linear models
and a forest; the share of CGES's features that are real ones, and the number that it
reads; means over three shufflings.

Run ``python -m benchmarks.value.noise`` (ten minutes on one core). Fits that the JSON
file holds already are not repeated. It prints the table and writes docs/noise.inc and
the figure of the CGES page.
"""

from __future__ import annotations

import argparse
import json
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_structreg import CGESClassifierCV, StructuredClassifier

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "noise.json"
FIGURE, PAGE = RESULTS.with_suffix(".png"), ROOT / "docs" / "noise.inc"
SETS = {
    "digits": (load_digits, 400),
    "cancer": (load_breast_cancer, 200),
    "wine": (load_wine, 90),
}
COPIES = (0, 3, 15)
SEEDS = range(3)


def logistic(penalty: str) -> Any:
    """Return a logistic regression whose strength is searched in three folds."""
    l1 = {"l1_ratio": 1, "solver": "saga", "max_iter": 300}
    model = LogisticRegression(**(l1 if penalty == "l1" else {"max_iter": 500}))
    strengths = {"C": [0.03, 0.1, 0.3, 1.0] if penalty == "l1" else [1e-3, 1e-2, 0.1]}
    return make_pipeline(StandardScaler(), GridSearchCV(model, strengths, cv=3))


MODELS: dict[str, Any] = {
    "plain network": StructuredClassifier(random_state=0),
    "CGESClassifierCV": CGESClassifierCV(cv=3, random_state=0),
    "L2 logistic regression, tuned": logistic("l2"),
    "L1 logistic regression, tuned": logistic("l1"),
    "random forest": RandomForestClassifier(500, random_state=0),
}


def measure(name: str, n_copies: int, seed: int, model: Any) -> dict[str, float]:
    """Fit on the training rows of one shuffling."""
    load, n_train = SETS[name]
    X, y = load(return_X_y=True)
    rng = np.random.default_rng(seed)
    table = np.hstack([X, *(rng.permuted(X, axis=0) for _ in range(n_copies))])
    train, test, y_train, y_test = train_test_split(
        table, y, train_size=n_train, stratify=y, random_state=seed
    )
    model = clone(model).fit(train, y_train)
    figures = {"accuracy": float(model.score(test, y_test))}
    if isinstance(model, CGESClassifierCV):
        reads = model.feature_importances_ > 0
        figures["n_read"] = int(reads.sum())
        figures["n_real"] = int(reads[: X.shape[1]].sum())
    return figures


def mean_of(rows: list[dict[str, Any]], key: tuple[Any, ...], figure: str) -> float:
    """Return a mean over the shufflings."""
    names = "set", "n_copies", "model"
    found = [r[figure] for r in rows if tuple(r[name] for name in names) == key]
    return float(np.mean(found)) if found else np.nan


def report(rows: list[dict[str, Any]]) -> str:
    """Return the table."""
    labels = "".join(f"{label.replace(', tuned', ''):>24}" for label in MODELS)
    lines = [f"{'':<24}{labels}{'CGES reads':>22}"]
    for name, n_copies in product(SETS, COPIES):
        cells = ""
        for label in MODELS:
            accuracy = mean_of(rows, (name, n_copies, label), "accuracy")
            cells += f"{100 * accuracy:24.1f}"
        key = name, n_copies, "CGESClassifierCV"
        n_read, n_real = (mean_of(rows, key, f) for f in ("n_read", "n_real"))
        n_columns = SETS[name][0]().data.shape[1]
        size = f"{name}, {n_columns} + {n_columns * n_copies}"
        lines.append(f"{size:<24}{cells}{f'{n_read:.0f}, {n_real:.0f} real':>22}")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw accuracy over the share of columns that are noise, a panel for each set."""
    figure, axes = plt.subplots(1, len(SETS), figsize=(11, 3.9), layout="constrained")
    styles = {"plain network": ("0.4", "s"), "CGESClassifierCV": ("tab:red", "o")}
    others = iter([("tab:blue", "^"), ("tab:cyan", "v"), ("tab:green", "D")])
    for label in MODELS:
        color, marker = styles.get(label) or next(others)
        width = 2.5 if label == "CGESClassifierCV" else 1.2
        for ax, name in zip(axes, SETS, strict=True):
            means = [mean_of(rows, (name, n, label), "accuracy") for n in COPIES]
            ax.plot(
                range(len(COPIES)),
                100 * np.array(means),
                color=color,
                marker=marker,
                linewidth=width,
                label=label,
            )
    for ax, (name, (load, n_train)) in zip(axes, SETS.items(), strict=True):
        n_columns = load().data.shape[1]
        labels = [f"+{n_columns * n}" for n in COPIES]
        ax.set_xticks(range(len(COPIES)), labels)
        ax.set(title=f"{name}: {n_columns} columns, {n_train} rows")
        ax.set_xlabel("columns of noise")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("held-out accuracy (%)")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    names = "set", "n_copies", "seed", "model"
    done = {tuple(row[name] for name in names) for row in rows}
    for key in product(SETS, COPIES, SEEDS, MODELS):
        if key in done:
            continue
        name, n_copies, seed, label = key
        figures = measure(name, n_copies, seed, MODELS[label])
        rows.append(dict(zip(names, key, strict=True)) | figures)
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    table = report(rows)
    print(table)
    lines = "\n".join(f"    {line}".rstrip() for line in table.splitlines())
    PAGE.write_text(f".. code-block:: text\n\n{lines}\n")
    draw(rows)


if __name__ == "__main__":
    main()
