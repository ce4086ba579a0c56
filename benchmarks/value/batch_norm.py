"""Measure on which weights a penalty in front of batch normalization should fall.

A ConvNet of three layers on digits, with the group penalty: on the weights times the
scale of the normalization, as `CGES` does, on the weights alone, and in a network
without normalization. Accuracy on held-out samples, the share of the weights that is
left, and of the parameters after compaction.

Run ``python -m benchmarks.value.batch_norm`` (three minutes on one core).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from benchmarks.value.runs import Run, Runs
from benchmarks.value.section import Options, run_section
from sklearn_structreg.cges import CGES
from sklearn_structreg.core import StructuredClassifier

FILTERS = (16, 32, 32)
ALPHAS = (0.3, 1.0)
N_TEST = 600


class OnWeightsAlone(CGES):
    """The penalty as if there were no normalization."""

    def _share_out(self, *args: Any, **options: Any) -> None:
        self.batch_norms_ = {}
        super()._share_out(*args, **options)


WAYS: dict[str, tuple[type[CGES], bool]] = {
    "normalization, on the product": (CGES, True),
    "normalization, on the weights alone": (OnWeightsAlone, True),
    "no normalization": (CGES, False),
}


def convnet(normalized: bool) -> Callable[..., nn.Module]:
    """Return the maker of the network."""

    def make(input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
        layers: list[nn.Module] = []
        for n_in, n_out in zip((1, *FILTERS[:-1]), FILTERS, strict=True):
            norm = [nn.BatchNorm2d(n_out)] if normalized else []
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), *norm, nn.ReLU()]
        head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(FILTERS[-1], n_outputs)
        return nn.Sequential(*layers, *head)

    return make


def fit(way: str, alpha: float, seed: int) -> Run:
    """Train and compact a network."""
    kind, normalized = WAYS[way]
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(
        X.reshape(-1, 1, 8, 8) / 16, y, test_size=N_TEST, stratify=y, random_state=seed
    )
    model = StructuredClassifier(
        convnet(normalized),
        regularizers=[kind(alpha, penalty="group")],
        optimizer="adam",
        learning_rate=3e-3,
        max_epochs=30,
        random_state=seed,
    ).fit(X, y)
    weights = [p for p in model.module_.parameters() if p.ndim > 1]
    n_left = sum(int(torch.count_nonzero(w)) for w in weights)
    before, after = (
        sum(p.numel() for p in module.parameters())
        for module in (model.module_, model.compact().module_)
    )
    return {
        "accuracy": float(model.score(X_test, y_test)),
        "weights": n_left / sum(w.numel() for w in weights),
        "parameters": after / before,
    }


def measure(runs: Runs, options: Options) -> None:
    """Train all networks."""
    for seed, way, alpha in product(options.seeds, WAYS, ALPHAS):
        key = {"data": "digits", "seed": seed, "way": way, "alpha": alpha}
        runs.once(key, fit, way, alpha, seed)


def report(runs: Runs) -> str:
    """Return the means over the seeds."""
    lines = [f"{'':<36}" + "".join(f"{f'alpha={alpha:g}':>22}" for alpha in ALPHAS)]
    for way in WAYS:
        line = f"{way:<36}"
        for alpha in ALPHAS:
            accuracy, *shares = (
                runs.mean(figure, way=way, alpha=alpha)
                for figure in ("accuracy", "weights", "parameters")
            )
            cells = ", ".join([f"{accuracy:.3f}", *(f"{s:.0%}" for s in shares)])
            line += f"{cells:>22}"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    run_section("batch_norm", __doc__, measure, report)
