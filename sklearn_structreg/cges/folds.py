"""Folds of the rows, and the networks that are trained on them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)
from sklearn.utils import _safe_indexing
from sklearn.utils.metadata_routing import (
    _routing_enabled,
    get_routing_for_object,
    process_routing,
)
from sklearn.utils.validation import _check_method_params
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from sklearn_structreg.cges.path import train_along
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.messages import shown
from sklearn_structreg.core.together import can_train_together, train_on_together

__all__ = ["Average", "Fold", "routed", "score_fold", "split_rows", "train_last"]

LATER_EPOCHS = 0.5  # of max_epochs, for networks that go on from another
Rows = NDArray[np.int64]


class Average(nn.Module):
    """Networks side by side; the outputs are the means of theirs."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Run all on the same samples."""
        total, *others = [member(x) for member in self.members]
        for outputs in others:  # a sum that torch.fx and compaction follow
            total = total + outputs
        mean: Tensor = total / len(self.members)
        return mean


class Fold(NamedTuple):
    """Rows to train on, and rows for the scores with their weights, if any."""

    train: Rows
    test: Rows
    score_params: dict[str, Any]


def routed(
    estimator: Any, sample_weight: Any, groups: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metadata of `fit` for the splitter, and those for the scorer."""
    metadata = {"sample_weight": sample_weight, "groups": groups}
    metadata = {name: each for name, each in metadata.items() if each is not None}
    if _routing_enabled():
        found = process_routing(estimator, "fit", **metadata)
        return found.splitter.split, found.scorer.score
    taken = get_routing_for_object(estimator.cv).consumes("split", metadata)
    scored = {k: v for k, v in metadata.items() if k == "sample_weight"}
    return {name: metadata[name] for name in taken}, scored


def split_rows(
    data: TrainingData,
    cv: Any,
    split_params: dict[str, Any],
    score_params: dict[str, Any],
    classes: bool,
) -> list[Fold]:
    """Split the rows of positive weight; `classes` is whether an int stratifies.

    An int keeps groups together, if there are any.
    """
    rows = np.asarray(data.rows, dtype=np.int64)
    target = data.target[rows] if classes else np.zeros(len(rows))
    if data.groups is not None and (cv is None or isinstance(cv, Integral)):
        cv = (StratifiedGroupKFold if classes else GroupKFold)(cv or 5)
        split_params = {"groups": data.groups}
    splitter = check_cv(cv, target, classifier=classes)
    if splitter is cv or isinstance(splitter, KFold | StratifiedKFold):
        metadata = _check_method_params(data.target, split_params, indices=rows)
        found = splitter.split(rows, target, **metadata)
        splits = [(rows[a], rows[b]) for a, b in found]
    else:  # an iterable counts all rows
        splits = [
            (np.intersect1d(a, rows), np.intersect1d(b, rows))
            for a, b in splitter.split()
        ]
    if not splits:
        raise ValueError(f"cv={shown(cv)} has no fold; give one or more.")
    for train, test in splits:
        if len(train) < 2 or not len(test):
            raise ValueError(
                f"cv={shown(cv)} has a fold of {len(train)} rows to train on "
                f"and {len(test)} for the score, of positive weight; at least 2 "
                "and 1 are needed."
            )
    return [
        Fold(a, b, _check_method_params(data.target, score_params, indices=b))
        for a, b in splits
    ]


def score_fold(
    model: Any,
    data: TrainingData,
    fold: Fold,
    strengths: NDArray[np.float64],
    seed: int,
    scorer: Any,
    X: Any,
    y: Any,
) -> list[float]:
    """Train along the strengths on a fold's rows, and score on its others."""
    rows = fold.test
    X = Subset(X, rows.tolist()) if isinstance(X, Dataset) else _safe_indexing(X, rows)
    y = _safe_indexing(y, rows)
    path = train_path(model, replace(data, rows=fold.train), strengths, seed)
    return [float(scorer(each, X, y, **fold.score_params)) for each in path]


def train_last(
    model: Any, data: TrainingData, strengths: NDArray[np.float64], seeds: Sequence[int]
) -> list[Any]:
    """Train at the last of the strengths, if need be along all of them."""
    if len(seeds) > 1:  # only where one training serves all of them
        return train_cold(model, data, strengths[-1:].repeat(len(seeds)), seeds)
    strengths = strengths if model.warm_start else strengths[-1:]
    *_, last = train_path(model, data, strengths, seeds[0])
    return [last.set_params(warm_start=False)]


def train_cold(
    model: Any, data: TrainingData, strengths: NDArray[np.float64], seeds: Sequence[int]
) -> list[Any]:
    """Train new networks at strengths, from seeds, in one training."""
    models = [copy.copy(model).set_params(alpha=float(alpha)) for alpha in strengths]
    train_on_together(models, data, seeds)
    return models


def train_path(
    model: Any, data: TrainingData, strengths: NDArray[np.float64], seed: int
) -> Iterator[Any]:
    """Train at all strengths, where `warm_start` is on each from the one before."""
    n_strengths = 0 if model.warm_start else len(strengths)
    if can_train_together(model, data, seed, n_strengths):
        return iter(train_cold(model, data, strengths, [seed] * n_strengths))
    n_later = math.ceil(LATER_EPOCHS * model.max_epochs)

    def train(model: Any) -> None:
        if hasattr(model, "net_") and model.warm_start:
            model.set_params(max_epochs=n_later)
        elif hasattr(model, "net_"):
            del model.net_
        model._train_on(data, seed)

    return train_along(model, strengths, train)
