"""Targets and weights: any label type in, class indices and one weight per row out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import column_or_1d, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight

from sklearn_structreg.core.messages import explaining, shown

__all__ = [
    "check_labels",
    "check_weight",
    "encode_labels",
    "encode_numbers",
    "has_columns",
    "mean_and_scale",
    "read_indicator",
    "weigh_classes",
]

Weights = NDArray[np.float64]


def check_weight(sample_weight: ArrayLike | None, n_samples: int) -> Weights | None:
    """Check sample weights for sign and length; None stays None."""
    if sample_weight is None:
        return None
    weight: Weights = _check_sample_weight(
        sample_weight,
        np.empty((n_samples, 1)),
        dtype=np.float64,
        ensure_non_negative=True,
    )
    if not weight.any():
        raise ValueError(
            "All sample weights are zero, which leaves no sample to use; give at "
            "least one positive weight."
        )
    return weight


def encode_labels(
    y: NDArray[Any], classes: NDArray[Any], weight: Weights | None
) -> NDArray[np.int64]:
    """Return the index of every label in `classes`; 0 for rows of weight zero."""
    known = np.isin(y, classes)
    unseen = ~known if weight is None else ~known & (weight > 0)
    if unseen.any():
        raise ValueError(
            f"y contains labels {np.unique(y[unseen]).tolist()} that are not among the "
            f"classes {classes.tolist()} of the first fit; fit anew, or name every "
            "label that will come in the first call to partial_fit."
        )
    target = np.zeros(len(y), dtype=np.int64)
    target[known] = np.searchsorted(classes, y[known])
    return target


def check_labels(y: Any) -> NDArray[Any]:
    """Check labels, one per sample, for their kind."""
    labels: NDArray[Any] = column_or_1d(y, warn=True)
    try:
        with np.errstate(invalid="ignore"):
            check_classification_targets(labels)
    except TypeError as error:
        if "bytes" in str(error):
            raise ValueError(str(error)) from error
        raise ValueError(
            "The labels cannot be sorted, as words and numbers among each other; give "
            "labels of one kind."
        ) from error
    return labels


def has_columns(y: Any) -> bool:
    """Whether y has several columns, so that it can only be an indicator."""
    shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
    return len(shape) == 2 and shape[1] > 1


def read_indicator(y: Any, classes: NDArray[Any] | None) -> NDArray[np.int64]:
    """Check an indicator of several labels, dense or sparse; a row may have none."""
    dense: NDArray[Any] = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
    if dense.dtype.kind not in "biuf" or not np.isin(dense, (0, 1)).all():
        raise ValueError(
            "y has several columns, so it is read as an indicator of labels, but it "
            "holds values other than 0 and 1; give one label per sample, or an "
            "indicator."
        )
    n_labels = dense.shape[1]
    if classes is not None and not np.array_equal(classes, np.arange(n_labels)):
        raise ValueError(
            f"y has a column for each of {n_labels} labels, but classes are "
            f"{classes.tolist()}; they are the columns' numbers, 0 to {n_labels - 1}, "
            "and cannot change after the first fit."
        )
    return dense.astype(np.int64)


def weigh_classes(
    class_weight: Mapping[Any, float] | str | None,
    classes: NDArray[Any],
    target: NDArray[np.int64],
    weight: Weights | None,
) -> Weights | None:
    """Multiply class weights into the sample weights.

    "balanced" gives every class the same total weight, sample weights counted in.
    """
    if class_weight is None:
        return weight
    if class_weight == "balanced":
        share = None if weight is None else weight / weight.max()  # sums may overflow
        totals = np.bincount(target, weights=share, minlength=len(classes))
        factors = totals.sum() / (len(classes) * np.maximum(totals, 1e-300))
    else:
        with explaining(f"class_weight={shown(class_weight)} cannot be used: {{}}."):
            factors = compute_class_weight(class_weight, classes=classes, y=classes)
    if not (np.isfinite(factors) & (factors >= 0)).all():
        raise ValueError(
            f"class_weight={shown(class_weight)} must hold finite weights of at least "
            "0."
        )
    with np.errstate(over="ignore"):
        weighed: Weights = factors[target] * (1.0 if weight is None else weight)
    if not np.isfinite(weighed).all():
        raise ValueError(
            f"class_weight={shown(class_weight)} times sample_weight is infinite; "
            "scale them down."
        )
    return weighed


def encode_numbers(
    y: Any, mean: NDArray[np.float64], scale: NDArray[np.float64], dtype: str
) -> NDArray[Any]:
    """Return numbers at mean zero and scale one, a column for each target."""
    target = np.asarray(y, dtype=np.float64).reshape(len(y), len(mean))
    return ((target - mean) / scale).astype(dtype)


def mean_and_scale(
    y: NDArray[np.float64], weight: Weights | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each column's weighted mean and scale; a constant one has scale 1."""
    if weight is None:
        weight = np.ones(len(y))
    present = weight > 0
    y, weight = y[present], weight[present] / weight.max()  # sums may overflow
    largest = np.abs(y).max(axis=0, initial=0.0)
    unit = np.ldexp(1.0, np.frexp(largest)[1] - 1)  # squares would overflow
    y = y / unit
    mean = np.average(y, axis=0, weights=weight)
    scale = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weight))
    rounding = 10 * np.finfo(np.float64).eps * largest
    return mean * unit, np.where(scale * unit > rounding, scale * unit, 1.0)
