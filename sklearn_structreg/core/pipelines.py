"""Pipelines around an estimator: its steps, folded into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)

from sklearn_structreg.core.deployed import FoldedSteps
from sklearn_structreg.core.input_columns import InputColumns
from sklearn_structreg.core.messages import shown

__all__ = ["Step", "fold_steps", "take_apart"]

Step = tuple[str, Any]
CENTER = {
    StandardScaler: "mean_",
    RobustScaler: "center_",
    MaxAbsScaler: "",
    MinMaxScaler: "",
}
FOLDED = (
    "StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, SimpleImputer, "
    "ColumnTransformer and feature selectors"
)
WAY_OUT = (
    "export the network alone, as in export(pipe[-1], path, "
    "check=pipe[:-1].transform(X)), and give its file transformed rows"
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
    """Yield the steps that do something, also those of pipelines in pipelines."""
    for name, step in steps:
        if isinstance(step, Pipeline):
            yield from _flat([(f"{name}__{part}", each) for part, each in step.steps])
        elif not _does_nothing(step):
            yield name, step


def _does_nothing(step: Any) -> bool:
    if type(step) is FunctionTransformer:
        return step.func is None
    return step is None or (isinstance(step, str) and step == "passthrough")


# ---- columns of the table ----------------------------------------------------------


def _input_columns(steps: Sequence[Step]) -> InputColumns:
    """Return all columns, but of a table with names those alone that are not dropped.

    The columns that a first `ColumnTransformer` drops need not be numbers.
    """
    first = steps[0][1]
    n_features = getattr(first, "n_features_in_", 0)
    positions: NDArray[np.intp] = np.arange(n_features)
    names = getattr(first, "feature_names_in_", None)
    if names is None or type(first) is not ColumnTransformer:
        return InputColumns(positions, n_features)
    positions = np.array(sorted(_not_dropped(steps, positions)), np.intp)
    return InputColumns(positions, n_features, names)


def _not_dropped(steps: Sequence[Step], columns: NDArray[np.intp]) -> set[int]:
    """Return those of the columns that arrive at another step, or at the end."""
    if not steps or type(steps[0][1]) is not ColumnTransformer:
        return {*columns.tolist()}
    parts = _parts(*steps[0])
    return set().union(*(_not_dropped(each, columns[own]) for each, own, _ in parts))


def _parts(
    name: str, transformer: ColumnTransformer
) -> Iterator[tuple[list[Step], NDArray[np.intp], float]]:
    """Yield the steps of each part, the positions of its columns, and its weight."""
    weights = transformer.transformer_weights or {}
    for part, step, _ in transformer.transformers_:
        # It alone knows positions for every way to name columns.
        columns = np.array(transformer._transformer_to_input_indices[part], np.intp)
        dropped = isinstance(step, str) and step == "drop"
        if len(columns) and not dropped:
            yield [*_flat([(f"{name}__{part}", step)])], columns, weights.get(part, 1.0)


# ---- steps -------------------------------------------------------------------------


class Columns(NamedTuple):
    """Columns on their way through steps: ``factor * x + shift`` of a raw column."""

    source: NDArray[np.intp]
    factor: NDArray[np.float64]
    shift: NDArray[np.float64]
    fill: NDArray[np.float64]
    """In the place of a raw NaN; NaN where there is no imputer."""

    def take(self, index: Any) -> Self:
        """Return some of them."""
        return self._replace(**{n: x[index] for n, x in self._asdict().items()})

    def scaled(self, scale: Any, offset: Any = 0.0) -> Self:
        """Multiply them, and add an offset then."""
        shift = self.shift * scale + offset
        return self._replace(factor=self.factor * scale, shift=shift)


def fold_steps(steps: Sequence[Step], shape: tuple[int, ...]) -> FoldedSteps:
    """Fold fitted steps into one; `shape` is that of a sample after them.

    Raises
    ------
    ValueError
        If a step does more than take columns, fill gaps, shift and scale; names it.
    """
    inputs = _input_columns(steps)
    n_features = inputs.n_features
    zeros, unfilled = np.zeros(n_features), np.full(n_features, np.nan)
    raw = Columns(np.arange(n_features), np.ones(n_features), zeros, unfilled)
    source, factor, shift, fill = _fold(steps, raw)
    source = np.searchsorted(inputs.positions, source)
    return FoldedSteps(source, fill, -shift / factor, factor, inputs, shape)


def _fold(steps: Sequence[Step], columns: Columns) -> Columns:
    """Pass columns through steps."""
    for name, step in steps:
        if type(step) is ColumnTransformer:
            columns = _folded_parts(name, step, columns)
        elif hasattr(step, "get_support"):
            columns = columns.take(step.get_support())
        elif type(step) is SimpleImputer:
            columns = _filled(name, step, columns)
        else:
            columns = columns.scaled(*_scale_and_offset(name, step))
    return columns


def _folded_parts(name: str, step: ColumnTransformer, columns: Columns) -> Columns:
    """Pass columns through the parts, and put the results side by side."""
    found = [columns.take(slice(0))]
    for steps, own, weight in _parts(name, step):
        if not weight:
            weights = f"transformer_weights={shown(step.transformer_weights)}"
            _refuse(name, step, f"because of {weights}")
        found.append(_fold(steps, columns.take(own)).scaled(weight))
    return Columns(*map(np.concatenate, zip(*found, strict=True)))


def _filled(name: str, step: SimpleImputer, columns: Columns) -> Columns:
    """Note the values for gaps, and leave columns out in which nothing was known."""
    missing = step.missing_values
    if step.add_indicator:
        _refuse(name, step, "because of add_indicator=True")
    if not (isinstance(missing, float) and np.isnan(missing)):
        _refuse(name, step, f"because of missing_values={shown(missing)}")
    try:
        values = np.asarray(step.statistics_, np.float64)
    except (ValueError, TypeError):
        _refuse(name, step, "because it fills in text")
    known = np.ones(len(values), bool)
    if not step.keep_empty_features:
        known = ~np.isnan(values)
    values = (np.nan_to_num(values) - columns.shift) / columns.factor  # as they came
    fill = np.where(np.isnan(columns.fill), values, columns.fill)
    columns = columns._replace(fill=fill).take(known)
    if np.isnan(columns.shift).any():
        _refuse(name, step, "because it fills a column in which a scaler saw no number")
    return columns


def _scale_and_offset(
    name: str, step: Any
) -> tuple[NDArray[np.float64] | float, NDArray[np.float64] | float]:
    """Return the numbers by which a scaler multiplies, and which it adds then."""
    kind = type(step)
    if kind is FunctionTransformer:
        func = getattr(step.func, "__name__", shown(step.func))
        _refuse(name, step, f"because of func={func}")
    if kind not in CENTER:
        _refuse(name, step, f"as {FOLDED} can")
    if getattr(step, "clip", False):
        _refuse(name, step, "because of clip=True")
    if kind is MinMaxScaler:
        return step.scale_, step.min_
    scale = 1.0 if step.scale_ is None else 1 / step.scale_
    middle = getattr(step, CENTER[kind], None)
    if not getattr(step, "with_mean", True):
        middle = None  # which it knows all the same
    return scale, 0.0 if middle is None else -middle * scale


def _refuse(name: str, step: Any, reason: str) -> NoReturn:
    raise ValueError(
        f"The step {name!r}, a {type(step).__name__}, cannot be folded into a network "
        f"{reason}; {WAY_OUT}."
    )
