"""Labels and weights: any label type in, class indices and one weight per row out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import compute_class_weight
from sklearn.utils.validation import _check_sample_weight
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

__all__ = [
    "check_weight",
    "dataset_targets",
    "encode_labels",
    "has_columns",
    "read_indicator",
    "weigh_classes",
]

Weights = NDArray[np.float64]


def check_weight(sample_weight: ArrayLike | None, n_samples: int) -> Weights | None:
    """Check sample weights; None stays None.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,) or None
        Non-negative, not all zero.
    n_samples : int
        How many there must be.

    Returns
    -------
    ndarray of shape (n_samples,), float64, or None
    """
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
            "All sample weights are zero, which leaves no sample to train on; give at "
            "least one positive weight."
        )
    return weight


def encode_labels(
    y: NDArray[Any], classes: NDArray[Any], weight: Weights | None
) -> NDArray[np.int64]:
    """Return every label's index in the sorted `classes`.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Labels.
    classes : ndarray of shape (n_classes,)
        Sorted.
    weight : ndarray of shape (n_samples,) or None
        Rows of weight zero may hold any label; they get index 0.

    Returns
    -------
    ndarray of shape (n_samples,), int64

    Raises
    ------
    ValueError
        If a label is none of the classes.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_structreg.core.targets import encode_labels
    >>> encode_labels(np.array(["b", "a"]), np.array(["a", "b"]), None)
    array([1, 0])
    """
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


def has_columns(y: Any) -> bool:
    """Tell whether y has several columns, so that it can only be an indicator."""
    shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
    return len(shape) == 2 and shape[1] > 1


def read_indicator(y: Any, classes: NDArray[Any] | None) -> NDArray[np.int64]:
    """Check an indicator of several labels.

    Parameters
    ----------
    y : ndarray or sparse matrix of shape (n_samples, n_labels)
        Zeros and ones; a row may have no one.
    classes : ndarray of shape (n_labels,) or None
        The labels of the first fit, which must be 0, 1, ..., or None.

    Returns
    -------
    ndarray of shape (n_samples, n_labels), int64

    Raises
    ------
    ValueError
        If it holds other values, or `classes` are not the numbers of its columns.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_structreg.core.targets import read_indicator
    >>> read_indicator(np.array([[True, False], [True, True]]), None)
    array([[1, 0],
           [1, 1]])
    """
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

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        "balanced" gives every class the same total weight, sample weights counted in.
    classes : ndarray of shape (n_classes,)
        Labels.
    target : ndarray of shape (n_samples,)
        Class indices.
    weight : ndarray of shape (n_samples,) or None
        Sample weights.

    Returns
    -------
    ndarray of shape (n_samples,) or None
    """
    if class_weight is None:
        return weight
    if class_weight == "balanced":
        totals = np.bincount(target, weights=weight, minlength=len(classes))
        factors = totals.sum() / (len(classes) * np.maximum(totals, 1e-300))
    else:
        factors = compute_class_weight(class_weight, classes=classes, y=classes)
    weighed: Weights = factors[target] if weight is None else factors[target] * weight
    return weighed


def dataset_targets(dataset: Dataset[Any]) -> NDArray[Any]:
    """Find the labels of a map-style dataset, without loading samples if possible.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        With an attribute `targets` or `labels`, a `TensorDataset`, a `Subset` or
        `ConcatDataset` of such, or else items ``(x, label)``, each read once.

    Returns
    -------
    ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If the items hold no label.
    """
    for name in ("targets", "labels"):
        if hasattr(dataset, name):
            return np.asarray(getattr(dataset, name))
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return np.asarray(dataset.tensors[1].cpu())
    if isinstance(dataset, Subset):
        return np.take(dataset_targets(dataset.dataset), dataset.indices, axis=0)
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([dataset_targets(part) for part in dataset.datasets])
    items = (dataset[row] for row in range(len(dataset)))  # type: ignore[arg-type]
    labels = [item[1] for item in items if isinstance(item, tuple | list) and item[1:]]
    if len(labels) != len(dataset):  # type: ignore[arg-type]
        raise ValueError(
            "The dataset's items hold no label; pass y, or a dataset whose items are "
            "(x, label)."
        )
    return np.asarray(labels)
