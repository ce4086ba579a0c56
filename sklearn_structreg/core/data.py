"""From what users pass to what the net trains on: samples, class indices, weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import validate_data
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from .batches import Batches, DatasetBatches, TensorBatches, first_of

__all__ = ["TrainingData", "check_samples"]

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingData:
    """Validated training data.

    Attributes
    ----------
    samples : ndarray of shape (n, n_features) or torch Dataset
        In memory, flattened and in the net's precision; or rows loaded on demand.
    target : ndarray of shape (n,), int64
        Class indices.
    weight : ndarray of shape (n,), float64, or None
        Non-negative; None is one for every row.
    rows : ndarray of int64
        The rows to use: those of positive weight, of the training or validation part.
    """

    samples: FloatArray | Dataset[Any]
    target: IntArray
    weight: FloatArray | None
    rows: IntArray

    @classmethod
    def of(
        cls,
        samples: FloatArray | Dataset[Any],
        target: IntArray,
        weight: FloatArray | None,
    ) -> TrainingData:
        """Keep the rows that are there: weight zero means absent."""
        if weight is None:
            return cls(samples, target, None, np.arange(len(target)))
        return cls(samples, target, weight, np.flatnonzero(weight))

    @property
    def n_rows(self) -> int:
        """How many rows are in use."""
        return len(self.rows)

    def head(self, n_rows: int, **placement: Any) -> Tensor:
        """Return the first samples as the module will see them."""
        part = replace(self, rows=self.rows[:n_rows])
        batches = part.batches(batch_size=n_rows, normalize=False, **placement)
        return next(iter(batches.epoch(None)))[0]

    def split(self, fraction: float, seed: int) -> tuple[TrainingData, TrainingData]:
        """Hold out a fraction of the rows, stratified where every class allows it."""
        target = self.target[self.rows]
        n_valid = math.ceil(fraction * self.n_rows)
        counts = np.bincount(target)
        counts = counts[counts > 0]
        stratify = counts.min() >= 2 and min(n_valid, self.n_rows - n_valid) >= len(
            counts
        )
        if n_valid >= self.n_rows:
            raise ValueError(
                f"early_stopping=True holds out validation_fraction={fraction} of "
                f"{self.n_rows} samples, which leaves none to train on; give more "
                "samples or set early_stopping=False."
            )
        train, valid = train_test_split(
            self.rows,
            test_size=n_valid,
            random_state=seed,
            stratify=target if stratify else None,
        )
        return replace(self, rows=train), replace(self, rows=valid)

    def batches(
        self,
        *,
        batch_size: int,
        input_shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        normalize: bool,
    ) -> Batches:
        """Make mini-batches on `device`.

        With `normalize` the weights are scaled to mean one, and rows that all fit in
        one batch are put in a canonical order, equal ones merged. The sums of a full
        batch then come out the same to the last bit however the rows were ordered,
        and whether a row came k times or with weight k.
        """
        target, weight = self.target, self.weight
        if isinstance(self.samples, Dataset):
            if weight is not None and normalize:
                weight = weight / weight[self.rows].mean()
            return DatasetBatches(
                self.samples,
                torch.from_numpy(target),
                None if weight is None else torch.from_numpy(weight).to(dtype),
                rows=torch.from_numpy(self.rows),
                input_shape=input_shape,
                dtype=dtype,
                batch_size=batch_size,
                device=device,
            )
        samples = self.samples
        if self.n_rows < len(samples):
            samples, target = samples[self.rows], target[self.rows]
            weight = None if weight is None else weight[self.rows]
        if normalize and len(samples) <= batch_size:
            samples, target, weight = _merge_equal_rows(samples, target, weight)
        if weight is not None and normalize:
            weight = weight / weight.mean()
        return TensorBatches(
            to_tensor(samples).reshape(-1, *input_shape),
            torch.from_numpy(target),
            None if weight is None else torch.from_numpy(weight).to(dtype),
            batch_size=batch_size,
            device=device,
        )


def _merge_equal_rows(
    samples: FloatArray, target: IntArray, weight: FloatArray | None
) -> tuple[FloatArray, IntArray, FloatArray | None]:
    table = np.column_stack([samples + 0.0, target.astype(samples.dtype)])  # no -0.0
    keys = table.view(np.dtype((np.void, table.dtype.itemsize * table.shape[1])))
    _, first, group = np.unique(keys.ravel(), return_index=True, return_inverse=True)
    merged = np.bincount(group.ravel(), weights=weight).astype(np.float64)
    same = bool(np.all(merged == merged[0]))
    return samples[first], target[first], None if same else merged


def to_tensor(array: FloatArray) -> Tensor:
    """View an array as a tensor, also one that is read-only; do not write to it."""
    if not array.flags.writeable:
        array = np.asarray(_WritableView(array))
    return torch.from_numpy(array)


class _WritableView:
    """Pass a read-only array's memory on without torch's warning about it."""

    def __init__(self, array: FloatArray) -> None:
        interface = array.__array_interface__
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}
        self.owner = array


def check_samples(
    estimator: Any,
    X: Any,
    y: Any = None,
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
    y : array-like of shape (n_samples,) or None, default=None
        Labels. In training a dataset may hold them itself.
    dtype : {"float32", "float64"}
        The net's precision.
    reset : bool
        Whether this is a first fit; otherwise X is checked against it.
    min_samples : int, default=1
        Fewer are an error.

    Returns
    -------
    samples : ndarray of shape (n_samples, n_features) or torch Dataset
    y : ndarray of shape (n_samples,) or None
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
    samples = validate_data(
        estimator,
        X,
        **({} if y is None and not reset else {"y": y}),
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
