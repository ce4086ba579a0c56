"""Pipelines around an estimator: its steps, folded into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)

from sklearn_structreg.core.deployed import FoldedSteps

__all__ = ["Step", "fold_steps", "take_apart"]

Step = tuple[str, Any]
FOLDED = (
    "StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, SimpleImputer and "
    "feature selectors"
)


def take_apart(model: Any) -> tuple[list[Step], Any]:
    """Return the steps before the last estimator, and that; of a search, the best."""
    if hasattr(model, "best_estimator_"):
        return take_apart(model.best_estimator_)
    if not isinstance(model, Pipeline):
        return [], model
    steps, last = take_apart(model.steps[-1][1])
    return [*_flat(model.steps[:-1]), *steps], last


def _flat(steps: Sequence[Step]) -> Iterator[Step]:
    for name, step in steps:
        if isinstance(step, Pipeline):
            yield from _flat(step.steps)
        elif step is not None and step != "passthrough":
            yield name, step


def fold_steps(
    steps: Sequence[Step], n_features: int, shape: tuple[int, ...]
) -> FoldedSteps:
    """Fold fitted steps into one; `shape` is that of a sample after them.

    Raises
    ------
    ValueError
        If a step does more than take columns, fill gaps, shift and scale; names it.
    """
    columns: NDArray[Any] = np.arange(n_features)
    factor: NDArray[np.float64] = np.ones(n_features)
    shift: NDArray[np.float64] = np.zeros(n_features)
    fill: NDArray[np.float64] = np.full(n_features, np.nan)
    for name, step in steps:
        kept = np.ones(len(columns), bool)
        if hasattr(step, "get_support"):
            kept = step.get_support()
        elif _fills_gaps(step):
            values = np.asarray(step.statistics_, np.float64)
            if not step.keep_empty_features:
                kept = ~np.isnan(values)
            values = (np.nan_to_num(values) - shift) / factor  # as they came
            fill = np.where(np.isnan(fill), values, fill)
        else:
            scale, offset = _scale_and_offset(name, step)
            factor, shift = factor * scale, shift * scale + offset
        columns, fill = columns[kept], fill[kept]
        factor, shift = factor[kept], shift[kept]
    return FoldedSteps(columns, fill, -shift / factor, factor, n_features, shape)


def _fills_gaps(step: Any) -> bool:
    """Whether a step is an imputer that replaces NaN, and does nothing else."""
    if type(step) is not SimpleImputer or step.add_indicator:
        return False
    missing = step.missing_values
    return isinstance(missing, float) and bool(np.isnan(missing))


def _scale_and_offset(
    name: str, step: Any
) -> tuple[NDArray[np.float64] | float, NDArray[np.float64] | float]:
    """Return the numbers by which a scaler multiplies, and which it adds then."""
    kind = type(step)
    if kind is MinMaxScaler and not step.clip:
        return step.scale_, step.min_
    center = {StandardScaler: "mean_", RobustScaler: "center_", MaxAbsScaler: ""}
    if kind not in center or getattr(step, "clip", False):
        clips = " with clip=True" if getattr(step, "clip", False) else ""
        raise ValueError(
            f"The step {name!r}, a {kind.__name__}{clips}, cannot be folded into a "
            f"network as {FOLDED} can; export the steps after it, and do its part "
            "beforehand."
        )
    scale = 1.0 if step.scale_ is None else 1 / step.scale_
    middle = getattr(step, center[kind], None)
    if not getattr(step, "with_mean", True):
        middle = None  # which it knows all the same
    return scale, 0.0 if middle is None else -middle * scale
