"""Validated training data and the mini-batches made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, train_test_split
from torch import Tensor
from torch.utils.data import Dataset

from sklearn_structreg.core.batches import (
    BLOCK_BYTES,
    Batch,
    Batches,
    DatasetBatches,
    TensorBatches,
)
from sklearn_structreg.core.device import dtype_name
from sklearn_structreg.core.recipe import TensorSpec
from sklearn_structreg.core.sparse_rows import SparseRows, SparseTensor
from sklearn_structreg.core.streams import Stream, StreamBatches

__all__ = ["TrainingData"]

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
TargetArray = NDArray[Any]


@dataclass(frozen=True)
class TrainingData:
    """Validated training data.

    Attributes
    ----------
    samples : ndarray of shape (n, n_features), SparseRows or torch Dataset
        In memory, flattened and in the net's precision; or rows loaded on demand.
    target : ndarray of shape (n,) or (n, n_outputs)
        Class indices or an indicator of several labels, int64; or standardized numbers
        in the net's precision, with a column for each target.
    weight : ndarray of shape (n,), float64, or None
        Non-negative; None is one for every row.
    rows : ndarray of int64
        The rows to use: those of positive weight, of the training or validation part.
    groups : ndarray of shape (n,) or None
        Numbers of groups that a hold-out keeps together.
    held_out : TrainingData or None
        Validation data that the user has given.
    encode : callable or None
        Makes targets of labels: for a stream, whose items have an order of their own.
    moments : dict
        Mean and scale of the samples, once measured, for networks that share them.
    seen : list of Batch
        The first mini-batches of the last epoch of training on a `Dataset`, a few.
    """

    samples: FloatArray | SparseRows | Dataset[Any]
    target: TargetArray
    weight: FloatArray | None
    rows: IntArray
    groups: IntArray | None = None
    held_out: TrainingData | None = None
    encode: Callable[[Any], TargetArray] | None = None
    moments: dict[Any, Any] = field(default_factory=dict, init=False)
    seen: list[Batch] = field(default_factory=list)

    @classmethod
    def from_arrays(
        cls,
        samples: FloatArray | SparseRows | Dataset[Any],
        target: TargetArray,
        weight: FloatArray | None = None,
        encode: Callable[[Any], TargetArray] | None = None,
    ) -> TrainingData:
        """Use the rows of positive weight: zero means absent."""
        rows = np.arange(len(target)) if weight is None else np.flatnonzero(weight)
        return cls(samples, target, weight, rows, encode=encode)

    @property
    def n_rows(self) -> int:
        """The number of rows in use."""
        return len(self.rows)

    def first_rows(self, n_rows: int, spec: TensorSpec) -> Tensor:
        """Return the first samples as the module will see them."""
        return self.first_batch(n_rows, spec)[0]

    def first_batch(self, n_rows: int, spec: TensorSpec) -> Batch:
        """Return the first samples with their targets and weights."""
        part = replace(self, rows=self.rows[:n_rows])
        batches = part.batches(spec, batch_size=n_rows, normalize=False)
        return next(iter(batches.epoch(None)))

    def split(self, fraction: float, seed: int) -> tuple[TrainingData, TrainingData]:
        """Hold out a fraction of the rows, stratified where every class allows it.

        Groups stay together instead; the fraction is then one of the groups.
        """
        if self.groups is not None:
            return self._split_groups(fraction, seed)
        target = self.target[self.rows]
        n_valid = math.ceil(fraction * self.n_rows)
        stratify = target.ndim == 1
        if stratify:
            counts = np.bincount(target)
            counts = counts[counts > 0]
            smaller = min(n_valid, self.n_rows - n_valid)
            stratify = counts.min() >= 2 and smaller >= len(counts)
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

    def _split_groups(
        self, fraction: float, seed: int
    ) -> tuple[TrainingData, TrainingData]:
        assert self.groups is not None
        groups = self.groups[self.rows]
        n_groups = len(np.unique(groups))
        if math.ceil(fraction * n_groups) >= n_groups:
            raise ValueError(
                f"A hold-out of {fraction} of {n_groups} groups leaves none to train "
                "on; give more groups, or pass an eval_set."
            )
        splitter = GroupShuffleSplit(1, test_size=fraction, random_state=seed)
        train, valid = next(splitter.split(self.rows, groups=groups))
        return (
            replace(self, rows=self.rows[train]),
            replace(self, rows=self.rows[valid]),
        )

    def with_few_rows_merged(self, at_most: int) -> TrainingData:
        """Merge equal rows where there are at most so many, in memory."""
        if self.n_rows > at_most or isinstance(self.samples, Dataset):
            return self
        return self.with_equal_rows_merged()

    def with_equal_rows_merged(self) -> TrainingData:
        """Return the rows in use in canonical order, one for all equal ones."""
        assert not isinstance(self.samples, Dataset)
        keys = _row_keys(self.samples, self.target, self.rows)
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        weight = None if self.weight is None else self.weight[self.rows]
        merged = np.bincount(group.ravel(), weights=weight).astype(np.float64)
        rows, weight = self.rows[first], None
        if not np.all(merged == merged[0]):
            weight = np.zeros(len(self.target))
            weight[rows] = merged
        return replace(self, rows=rows, weight=weight)

    def batches(
        self,
        spec: TensorSpec,
        *,
        batch_size: int,
        normalize: bool,
        loader_params: Mapping[str, Any] | None = None,
    ) -> Batches:
        """Make mini-batches of samples as `spec` has them.

        With `normalize` the weights are scaled to mean one, and rows that all fit in
        one batch are put in a canonical order, equal ones merged. The sums of a full
        batch then come out the same to the last bit however the rows were ordered,
        and whether a row came k times or with weight k.
        """
        samples = self.samples
        data = self.with_few_rows_merged(batch_size) if normalize else self
        target, weight, rows = data.target, data.weight, torch.from_numpy(data.rows)
        if weight is not None and normalize:
            weight = _with_mean_one(weight, data.rows)
        targets = torch.from_numpy(target), _as_tensor(weight, spec.dtype)
        if isinstance(samples, Stream):
            return StreamBatches(
                samples,
                self._first_of_stream(),
                data.encode,
                None if weight is None else _by_class(*targets),
                spec=spec,
                batch_size=batch_size,
                loader_params=loader_params,
                kept=self.seen,
            )
        if isinstance(samples, Dataset):
            return DatasetBatches(
                samples,
                *targets,
                rows=rows,
                spec=spec,
                batch_size=batch_size,
                loader_params=loader_params,
                kept=self.seen,
            )
        in_order = torch.equal(rows, torch.arange(len(samples)))
        return TensorBatches(
            _rows_of_shape(samples, spec.shape),
            *targets,
            batch_size=batch_size,
            device=spec.device,
            rows=None if in_order else rows,
        )

    def _first_of_stream(self) -> int:
        """Return the number of items, which must be the first ones."""
        if not np.array_equal(self.rows, np.arange(self.n_rows)):
            raise ValueError(
                "An IterableDataset has no rows to choose from, as a hold-out or a "
                "weight of zero does; pass validation data as eval_set, or a map-style "
                "Dataset."
            )
        return self.n_rows


def _by_class(target: Tensor, weight: Tensor | None) -> Tensor:
    """Return the weight of every class."""
    assert weight is not None
    factors = weight.new_zeros(int(target.max()) + 1)
    factors[target] = weight
    return factors


def _as_tensor(weight: FloatArray | None, dtype: torch.dtype) -> Tensor | None:
    """Return weights in the network's precision, whose range they must not leave."""
    if weight is None:
        return None
    tensor = torch.from_numpy(weight).to(dtype)
    if not tensor.isfinite().all():
        raise ValueError(
            f"The largest sample weight, {weight.max():g}, is beyond the range of "
            f"{dtype_name(dtype)}; scale the weights down."
        )
    return tensor


def _with_mean_one(weight: FloatArray, rows: IntArray) -> FloatArray:
    weight = weight / weight[rows].max()  # sums of huge weights would overflow
    scaled: FloatArray = weight / weight[rows].mean()
    return scaled


def _rows_of_shape(
    samples: FloatArray | SparseRows, shape: tuple[int, ...]
) -> Tensor | SparseTensor:
    """View samples in memory as tensors of a shape."""
    if not isinstance(samples, SparseRows):
        return to_tensor(samples).reshape(-1, *shape)
    matrix = samples.matrix
    parts = map(to_tensor, (matrix.data, matrix.indices, matrix.indptr))
    return SparseTensor(shape, *parts)


def _row_keys(
    samples: FloatArray | SparseRows, target: TargetArray, rows: IntArray
) -> NDArray[Any]:
    """Return 16 bytes for every row, equal for equal ones, a few rows at a time."""
    classes = target.dtype.kind == "i"  # whose numbers are exact in any precision
    targets = target.astype(samples.dtype) if classes else target
    keys = np.empty(len(rows), dtype="V16")
    step = max(1, BLOCK_BYTES // (samples.itemsize * samples.shape[1]))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        columns = samples[part] + 0.0, targets[part]  # no -0.0
        for number, row in enumerate(np.column_stack(columns), start):
            keys[number] = blake2b(row, digest_size=16).digest()
    return keys


def to_tensor(array: NDArray[Any]) -> Tensor:
    """View an array as a tensor, also one that is read-only; do not write to it."""
    if not array.flags.writeable:
        array = np.asarray(_WritableView(array))
    return torch.from_numpy(array)


class _WritableView:
    """Pass a read-only array's memory on without torch's warning about it."""

    def __init__(self, array: NDArray[Any]) -> None:
        interface = array.__array_interface__
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}
        self.owner = array
