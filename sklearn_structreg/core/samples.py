"""From samples as users pass them to rows that the training can use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils.sparsefuncs import min_max_axis
from sklearn.utils.validation import validate_data
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from sklearn_structreg.core.checks import check_sizes, check_table
from sklearn_structreg.core.dataset_items import first_sample
from sklearn_structreg.core.dataset_rows import dataset_of
from sklearn_structreg.core.image_shapes import (
    refuse_channels_last,
    with_channel,
    without_leading_ones,
)
from sklearn_structreg.core.sparse_rows import SparseRows
from sklearn_structreg.core.streams import Stream

__all__ = ["Samples", "check_samples"]

Shape = tuple[int, ...]
FEW_STEPS = 32  # of single precision between the smallest and the largest value
LOST = 0.05  # share of a feature's spread that may be rounded off
ROUNDING = 1e-12  # of the size of values: a spread that may come from rounding


class Samples(NamedTuple):
    """Validated samples, and their targets where there are any."""

    rows: NDArray[np.floating[Any]] | SparseRows | Dataset[Any]
    y: Any
    shape: Shape
    n_features: int


def check_samples(
    estimator: BaseEstimator,
    X: Any,
    y: Any = "no_validation",
    *,
    dtype: str | None,
    image_shape: Sequence[int] | None = None,
    seen_shape: Shape | None = None,
    as_given: bool = False,
    min_samples: int = 1,
    **checks: bool,
) -> Samples:
    """Validate samples by scikit-learn's own rules; flatten arrays to rows.

    X has two dimensions or more, or is sparse, or a torch `Dataset`; y may be None for
    a dataset that holds it. The estimator is scikit-learn's, to note and compare
    features by. `dtype` None keeps the rows' own precision. `image_shape` is looked at
    in a first fit, `seen_shape` in all later ones. Images ``(n, H, W)`` have one
    channel, and channels that come last are refused, unless samples are to keep their
    shape `as_given`.
    """
    if image_shape is not None:
        image_shape = check_sizes("image_shape", image_shape)
    layout = Layout(image_shape, seen_shape, as_given)
    X = dataset_of(X)
    if isinstance(X, Dataset):
        return _check_dataset(estimator, X, y, layout, min_samples)
    if isinstance(X, DataLoader):
        raise TypeError(
            "X is a DataLoader; pass its dataset, and batch_size to the estimator."
        )
    if isinstance(X, Tensor):
        X = _array_of(X)
    check_table(X, "X")
    if isinstance(X, list | tuple) and X and np.ndim(X[0]) > 1:
        X = np.asarray(X)
    given = None
    if getattr(X, "ndim", 2) > 2:
        X = np.asarray(X)
        given = X.shape[1:]
        X = X.reshape(len(X), -1)
    shape = layout.shape_of(given)
    rows = validate_data(
        estimator,
        X,
        y,
        dtype=_precisions(X) if dtype is None else np.dtype(dtype),
        order="C",
        accept_sparse="csr",
        reset=seen_shape is None,
        ensure_min_samples=min_samples,
        **(checks if y is not None and not isinstance(y, str) else {}),
    )
    if isinstance(rows, tuple):
        rows, y = rows
    if issparse(rows):
        rows = SparseRows(rows)
    if seen_shape is None and rows.dtype == np.float32:
        _check_resolution(X, rows)
    n_features = rows.shape[1]
    return Samples(rows, y, _checked_shape(shape, n_features), n_features)


class Layout(NamedTuple):
    """The shape that samples should have, as far as it is known."""

    image_shape: Sequence[int] | None
    seen_shape: Shape | None
    as_given: bool

    def shape_of(self, given: Shape | None) -> Shape | None:
        """Return the shape of samples, given one by one; None is that of flat rows."""
        wanted = self.seen_shape
        if wanted is None:
            if not self.as_given:
                given = self._recognized(given)
            if self.image_shape is not None:
                wanted = with_channel(self.image_shape)
        if given is None or wanted is None:
            return given if wanted is None else wanted
        if without_leading_ones(given) != without_leading_ones(wanted):
            known = "fit saw samples of shape" if self.seen_shape else "image_shape is"
            raise ValueError(
                f"X has samples of shape {given}, but {known} {wanted}; pass X as "
                f"(n_samples, {', '.join(map(str, wanted))}) or as flattened rows."
            )
        return wanted

    def _recognized(self, given: Shape | None) -> Shape | None:
        shape = self.image_shape if given is None else given
        if shape is not None:
            refuse_channels_last(shape, flat=given is None)
        return None if given is None else with_channel(given)


def _array_of(X: Tensor) -> NDArray[Any]:
    """Return a dense tensor as an array."""
    if X.layout is not torch.strided or X.is_meta:
        kind = "meta" if X.is_meta else "sparse"
        raise TypeError(
            f"X is a {kind} tensor; pass a dense one, with its numbers, or a matrix of "
            "scipy.sparse."
        )
    X = X.detach().cpu()
    return np.asarray(X.float() if X.dtype is torch.bfloat16 else X)


def _precisions(X: Any) -> list[type]:
    """Return the precisions that rows may keep; others are converted to the first."""
    kind = getattr(X, "dtype", np.dtype(float))
    small = kind in (np.uint8, np.int8, np.int16, np.uint16)
    return [np.float32] if small else [np.float64, np.float32]


def _check_resolution(X: Any, rows: NDArray[np.floating[Any]] | SparseRows) -> None:
    """Refuse features whose differences are lost in single precision."""
    sparse = isinstance(rows, SparseRows)
    if not sparse:
        X = np.asarray(X)
    elif not hasattr(X, "tocsc"):
        X = X.sparse.to_coo()  # of a table
    if X.dtype.itemsize <= rows.dtype.itemsize:
        return
    if isinstance(rows, SparseRows):
        low, high = min_max_axis(rows.matrix, axis=0)
    else:
        low, high = rows.min(axis=0), rows.max(axis=0)
    few_steps = FEW_STEPS * np.spacing(np.maximum(-low, high))
    columns = np.flatnonzero(high - low < few_steps)
    if sparse:  # those without a zero alone
        X, columns = X.tocsc(), columns[low[columns] != 0]
    for column in columns:
        values = X[:, [column]].toarray() if sparse else X[:, column]
        values = values.astype(np.float64)
        spread, size = np.ptp(values), np.abs(values).max()
        lost = np.abs(values - values.astype(rows.dtype)).max()
        if lost > LOST * spread > ROUNDING * size:
            raise ValueError(
                f"Feature {column} of X has values around {size:.3g} that differ by "
                f"{spread:.3g} only, which is lost in dtype='float32'; set "
                "standardize=True or dtype='float64', or subtract its mean."
            )


def _check_dataset(
    estimator: BaseEstimator,
    dataset: Dataset[Any],
    y: Any,
    layout: Layout,
    min_samples: int,
) -> Samples:
    """Check a dataset by its length and its first item."""
    if isinstance(dataset, IterableDataset):
        if y is not None and not isinstance(y, str):
            raise ValueError(
                "y cannot be matched with the items of an IterableDataset, whose "
                "order is its own; let the items hold their labels, and leave y out."
            )
        dataset = Stream(dataset)
    if not hasattr(dataset, "__len__"):
        raise TypeError(
            f"{type(dataset).__name__} has no length; give it __len__, or make it an "
            "IterableDataset."
        )
    if len(dataset) < min_samples:
        raise ValueError(
            f"The dataset has n_samples={len(dataset)}; at least {min_samples} "
            "are needed."
        )
    x = first_sample(dataset)
    shape = layout.shape_of(tuple(x.shape) if x.ndim > 1 else None)
    seen = layout.seen_shape
    if seen is not None and x.numel() != math.prod(seen):
        raise ValueError(
            f"The dataset's samples have {x.numel()} features, but "
            f"{type(estimator).__name__} expects {math.prod(seen)}."
        )
    return Samples(dataset, y, _checked_shape(shape, x.numel()), x.numel())


def _checked_shape(shape: Sequence[int] | None, n_features: int) -> Shape:
    shape = tuple(int(size) for size in shape or (n_features,))
    if math.prod(shape) != n_features:
        raise ValueError(
            f"image_shape={shape} stands for {math.prod(shape)} features per sample, "
            f"but X has {n_features}; give the shape (C, H, W) of X's rows."
        )
    return shape
