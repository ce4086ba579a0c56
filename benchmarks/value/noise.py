"""Compare classifiers on tables in which most columns say nothing.

The columns of scikit-learn's tables stand among shuffled copies of themselves, which
are distributed alike but have no relation to the classes: none, 3 or 15 copies of each.
Held-out accuracy of the plain network and of `CGESClassifierCV`, beside linear models
and a forest; the share of CGES's features that are real ones, and the number that it
reads; means over three shufflings.

Run ``python -m benchmarks.value.noise`` (ten minutes on one core). It also draws the
figure of the CGES page.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.charts import COLOURS, DPI, OURS, PLAIN, STYLE
from benchmarks.data import sklearn_tables
from benchmarks.value.runs import Run, Runs
from benchmarks.value.section import Options, run_section
from sklearn_structreg import CGESClassifierCV, StructuredClassifier

N_TRAIN = {"digits": 400, "cancer": 200, "wine": 90}
COPIES = (0, 3, 15)


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


def fit(name: str, n_copies: int, seed: int, model: Any) -> Run:
    """Fit on the training rows of one shuffling."""
    X, y = sklearn_tables()[name]
    rng = np.random.default_rng(seed)
    table = np.hstack([X, *(rng.permuted(X, axis=0) for _ in range(n_copies))])
    train, test, y_train, y_test = train_test_split(
        table, y, train_size=N_TRAIN[name], stratify=y, random_state=seed
    )
    model = clone(model).fit(train, y_train)
    figures: Run = {"accuracy": float(model.score(test, y_test))}
    if isinstance(model, CGESClassifierCV):
        reads = model.feature_importances_ > 0
        figures["n_read"] = int(reads.sum())
        figures["n_real"] = int(reads[: X.shape[1]].sum())
    return figures


def measure(runs: Runs, options: Options) -> None:
    """Fit every model on every table."""
    for name, n_copies, seed in product(N_TRAIN, COPIES, options.seeds):
        for label, model in MODELS.items() if options.wants(name) else ():
            key = {"data": name, "n_copies": n_copies, "seed": seed, "model": label}
            runs.once(key, fit, name, n_copies, seed, model)


def report(runs: Runs) -> str:
    """Return the means over the shufflings."""
    labels = "".join(f"{label.replace(', tuned', ''):>24}" for label in MODELS)
    lines = [f"{'':<24}{labels}{'CGES reads':>22}"]
    sizes = {name: X.shape[1] for name, (X, _) in sklearn_tables().items()}
    for name, n_copies in product(N_TRAIN, COPIES):
        key: Run = {"data": name, "n_copies": n_copies}
        means = [runs.mean("accuracy", **key, model=label) for label in MODELS]
        cells = "".join(f"{100 * mean:24.1f}" for mean in means)
        key["model"] = "CGESClassifierCV"
        n_read, n_real = (runs.mean(each, **key) for each in ("n_read", "n_real"))
        size = f"{name}, {sizes[name]} + {sizes[name] * n_copies}"
        lines.append(f"{size:<24}{cells}{f'{n_read:.0f}, {n_real:.0f} real':>22}")
    return "\n".join(lines)


def draw(runs: Runs, path: Path) -> None:
    """Draw accuracy over the share of columns that are noise, a panel for each set."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(N_TRAIN), figsize=(8.6, 3.6), layout="constrained"
        )
        styles = {"plain network": (PLAIN, "s"), "CGESClassifierCV": (OURS, "o")}
        others = iter(zip(COLOURS[1:], "^vD", strict=False))
        for label in MODELS:
            color, marker = styles.get(label) or next(others)
            width = 2.5 if label == "CGESClassifierCV" else 1.2
            for ax, name in zip(axes, N_TRAIN, strict=True):
                key = {"data": name, "model": label}
                means = [runs.mean("accuracy", n_copies=n, **key) for n in COPIES]
                ax.plot(
                    range(len(COPIES)),
                    100 * np.array(means),
                    color=color,
                    marker=marker,
                    linewidth=width,
                    label=label,
                )
        tables = sklearn_tables()
        for ax, (name, n_train) in zip(axes, N_TRAIN.items(), strict=True):
            n_columns = tables[name][0].shape[1]
            labels = [f"+{n_columns * n}" for n in COPIES]
            ax.set_xticks(range(len(COPIES)), labels)
            ax.set(title=f"{name}: {n_columns} columns, {n_train} rows")
            ax.set_xlabel("columns of noise")
        axes[0].set_ylabel("held-out accuracy (%)")
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3)
        figure.savefig(path, dpi=DPI)


if __name__ == "__main__":
    run_section("noise", __doc__, measure, report, draw)
