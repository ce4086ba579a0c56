"""From what users pass to training data: one place for all checks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length, column_or_1d, get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from sklearn_structreg.core.batches import first_of
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.targets import (
    check_weight,
    dataset_targets,
    encode_labels,
    has_columns,
    read_indicator,
    weigh_classes,
)

__all__ = ["check_partial_fit", "check_samples", "validate_training_data"]


def validate_training_data(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    *,
    reset: bool,
    min_samples: int,
    classes: NDArray[Any] | None,
) -> TrainingData:
    """Check samples, labels and weights, and encode them.

    Parameters
    ----------
    estimator : estimator
        Read for `image_shape`, `dtype` and `class_weight`. Gets `classes_`,
        `multilabel_` and what `check_samples` sets.
    X, y, sample_weight
        As passed to `fit`.
    reset : bool
        Whether this is a first fit; otherwise X is checked against it.
    min_samples : int
        Fewer, of positive weight, are an error.
    classes : ndarray or None
        Sorted labels that y may hold; None takes those that it holds.

    Returns
    -------
    TrainingData
    """
    samples, y = check_samples(
        estimator, X, y, dtype=estimator.dtype, reset=reset, min_samples=min_samples
    )
    if y is None:
        y = dataset_targets(samples)
    check_consistent_length(samples, y)
    multilabel = has_columns(y) and get_tags(estimator).classifier_tags.multi_label
    if not reset and multilabel != estimator.multilabel_:
        raise ValueError(
            "y must be labels, or an indicator of several, as in the first fit; "
            "fit anew."
        )
    weight = check_weight(sample_weight, len(samples))
    if multilabel:
        target = read_indicator(y, classes)
        classes = np.arange(target.shape[1])
        if estimator.class_weight is not None:
            raise ValueError(
                "class_weight is for one label per sample, but y is an indicator; "
                "pass sample_weight, or set class_weight=None."
            )
    else:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if classes is None:
            classes = np.unique(y if weight is None else y[weight > 0])
        target = encode_labels(y, classes, weight)
        weight = weigh_classes(estimator.class_weight, classes, target, weight)
    data = TrainingData.of(samples, target, weight)
    if data.n_rows < min_samples:
        raise ValueError(
            f"X has n_samples={data.n_rows} with a positive weight; at least "
            f"{min_samples} are needed."
        )
    estimator.classes_, estimator.multilabel_ = classes, multilabel
    return data


def check_partial_fit(estimator: Any, classes: ArrayLike | None) -> NDArray[Any]:
    """Check whether partial_fit can be done, and return the labels it knows.

    Parameters
    ----------
    estimator : estimator
        Fitted or not.
    classes : array-like or None
        As passed.

    Returns
    -------
    ndarray of shape (n_classes,)
        Sorted.
    """
    if estimator.early_stopping:
        raise ValueError(
            "partial_fit has no hold-out to stop by; set early_stopping=False."
        )
    if estimator.class_weight == "balanced":
        raise ValueError(
            "class_weight='balanced' needs all labels at once, which partial_fit never "
            "has; pass the weights as a dict {label: weight}."
        )
    fitted = estimator.classes_ if hasattr(estimator, "net_") else None
    if classes is None and fitted is None:
        raise ValueError(
            "classes must be passed on the first call to partial_fit: all labels that "
            "will ever come."
        )
    labels: NDArray[Any] = np.unique(np.asarray(fitted if classes is None else classes))
    if fitted is not None and not np.array_equal(labels, fitted):
        raise ValueError(
            f"classes={labels} is not the same as on the last call, {fitted}; they "
            "cannot change between calls to partial_fit."
        )
    return labels


def check_samples(
    estimator: Any,
    X: Any,
    y: Any = "no_validation",
    *,
    dtype: str,
    reset: bool,
    min_samples: int = 1,
) -> tuple[Any, Any]:
    """Validate samples by scikit-learn's own rules; flatten what is in memory to rows.

    Parameters
    ----------
    estimator : estimator
        Read for `image_shape`. Gets `n_features_in_`, `feature_names_in_` and
        `input_shape_`, the shape of one sample.
    X : array-like or tensor of shape (n_samples, n_features) or (n_samples, C, H, W), \
            or torch Dataset
        Any number of dimensions from two up.
    y : array-like of shape (n_samples,), None or "no_validation"
        Labels; None only for a dataset that holds them. "no_validation" is for
        samples that come without, to be predicted.
    dtype : {"float32", "float64"}
        The net's precision.
    reset : bool
        Whether this is a first fit; otherwise X is checked against it.
    min_samples : int, default=1
        Fewer are an error.

    Returns
    -------
    samples : ndarray of shape (n_samples, n_features) or torch Dataset
    y : ndarray of shape (n_samples,), or what was passed where nothing was to be done
    """
    if isinstance(X, Dataset):
        _check_dataset(estimator, X, reset, min_samples)
        return X, y
    if isinstance(X, Tensor):
        X = X.detach().cpu().numpy()
    shape = None
    if getattr(X, "ndim", 2) > 2:
        X = np.asarray(X)
        shape = X.shape[1:]
        _check_shape(estimator, shape, reset)
        X = X.reshape(len(X), -1)
    several = not (y is None or isinstance(y, str)) and has_columns(y)
    multilabel = several and get_tags(estimator).classifier_tags.multi_label
    samples = validate_data(
        estimator,
        X,
        y,
        **({"multi_output": True} if multilabel else {}),
        dtype=np.dtype(dtype),
        order="C",
        reset=reset,
        ensure_min_samples=min_samples,
    )
    if isinstance(samples, tuple):
        samples, y = samples
    if reset:
        _set_shape(estimator, shape, estimator.n_features_in_)
    return samples, y


def _check_dataset(
    estimator: Any, dataset: Dataset[Any], reset: bool, min_samples: int
) -> None:
    """Check a dataset by its length and its first item."""
    if not hasattr(dataset, "__len__") or isinstance(dataset, IterableDataset):
        raise TypeError(
            f"{type(dataset).__name__} cannot be indexed; pass a map-style torch "
            "Dataset, one with __len__ and __getitem__."
        )
    if len(dataset) < min_samples:
        raise ValueError(
            f"The dataset has n_samples={len(dataset)}; at least {min_samples} "
            "are needed."
        )
    x = first_of(dataset[0])
    if x.ndim > 1:
        _check_shape(estimator, tuple(x.shape), reset)
    if reset:
        estimator.n_features_in_ = x.numel()
        _set_shape(estimator, tuple(x.shape) if x.ndim > 1 else None, x.numel())
    elif x.numel() != estimator.n_features_in_:
        raise ValueError(
            f"The dataset's samples have {x.numel()} features, but "
            f"{type(estimator).__name__} expects {estimator.n_features_in_}."
        )


def _check_shape(estimator: Any, shape: tuple[int, ...], reset: bool) -> None:
    wanted = estimator.image_shape if reset else estimator.input_shape_
    if wanted is not None and tuple(wanted) != shape:
        what = "image_shape is" if reset else "fit saw samples of shape"
        raise ValueError(
            f"X has samples of shape {shape}, but {what} {tuple(wanted)}; pass X as "
            f"(n_samples, {', '.join(map(str, wanted))}) or as flattened rows."
        )


def _set_shape(estimator: Any, shape: Sequence[int] | None, n_features: int) -> None:
    shape = tuple(shape or estimator.image_shape or (n_features,))
    if math.prod(shape) != n_features:
        raise ValueError(
            f"image_shape={shape} stands for {math.prod(shape)} features per sample, "
            f"but X has {n_features}; give the shape (C, H, W) of X's rows."
        )
    estimator.input_shape_ = tuple(int(size) for size in shape)
