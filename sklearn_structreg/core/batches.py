"""Training data as mini-batches of tensors.

Data in memory is gathered in blocks of many mini-batches, on the training device where
it fits, and handed out in slices: no Python code per row, one gather per block. A torch
`Dataset` is for data beyond memory and goes through torch's own `DataLoader`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from skorch.dataset import Dataset as SkorchDataset
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sklearn_structreg.core.recipe import TensorSpec

__all__ = ["Batch", "Batches", "DatasetBatches", "TensorBatches", "batch_sizes"]

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Samples ``(b, ...)``, class indices ``(b,)`` or targets ``(b, n_outputs)``, weights
``(b,)`` or None."""

BLOCK_BYTES = 4 * 2**20  # a gathered block stays in a CPU's cache until it is used


class Batches(Protocol):
    """Mini-batches of one data set."""

    n_batches: int
    sizes: list[int]

    def __len__(self) -> int:
        """Return the number of rows."""

    def epoch(self, seed: int | None) -> Iterator[Batch]:
        """Yield every row once, shuffled by `seed` or in order where it is None."""


class TensorBatches(SkorchDataset):
    """Mini-batches of data in memory; for callbacks a dataset of the rows in order.

    The whole data set is moved to `device` first where it takes at most half of the
    free memory. Every batch is a copy: a module that works in place cannot change the
    caller's data.
    """

    def __init__(
        self,
        X: Tensor,
        y: Tensor,
        weight: Tensor | None,
        *,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.device = device
        home = device if _fits(X, device) else X.device
        super().__init__(X.to(home), y.to(home))
        self.weight = None if weight is None else weight.to(home)
        self.sizes = batch_sizes(len(X), batch_size)
        self.n_batches = len(self.sizes)
        row_bytes = max(1, X[0].numel() * X.element_size())
        self.batches_per_block = max(1, BLOCK_BYTES // (row_bytes * self.sizes[0]))

    def epoch(self, seed: int | None) -> Iterator[Batch]:
        """Yield every row once, shuffled by `seed` or in order where it is None."""
        order = _row_order(len(self.X), None if self.n_batches == 1 else seed)
        order, start = order.to(self.X.device), 0
        for first in range(0, self.n_batches, self.batches_per_block):
            sizes = self.sizes[first : first + self.batches_per_block]
            rows = order[start : start + sum(sizes)]
            start += len(rows)
            weight: Iterable[Tensor | None] = [None] * len(sizes)
            if self.weight is not None:
                weight = self._slices(self.weight, rows, sizes)
            yield from zip(
                self._slices(self.X, rows, sizes),
                self._slices(self.y, rows, sizes),
                weight,
                strict=True,
            )

    def _slices(self, tensor: Tensor, rows: Tensor, sizes: list[int]) -> list[Tensor]:
        block = tensor.index_select(0, rows).to(self.device)
        return list(torch.split(block, sizes))


class DatasetBatches:
    """Mini-batches of some rows of a map-style torch `Dataset`, loaded row by row.

    An item is ``x`` or a tuple that starts with it, of the shape of `spec` or of as
    many entries.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        y: Tensor,
        weight: Tensor | None,
        *,
        rows: Tensor,
        spec: TensorSpec,
        batch_size: int,
    ) -> None:
        self.samples = _Samples(dataset, spec)
        self.y, self.weight, self.rows = y, weight, rows
        self.sizes, self.device = batch_sizes(len(rows), batch_size), spec.device
        self.n_batches = len(self.sizes)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def epoch(self, seed: int | None) -> Iterator[Batch]:
        """Yield every row once, shuffled by `seed` or in order where it is None."""
        rows = self.rows[_row_order(len(self.rows), seed)]
        batches = torch.split(rows, self.sizes)
        loader = DataLoader(
            self.samples,
            batch_sampler=[batch.tolist() for batch in batches],
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else each epoch draws a global seed
        )
        for X, batch in zip(loader, batches, strict=True):
            weight = None if self.weight is None else self.weight[batch]
            yield (
                X.to(self.device, non_blocking=True),
                self.y[batch].to(self.device),
                None if weight is None else weight.to(self.device),
            )


class _Samples(Dataset[Tensor]):
    """The samples of a dataset alone, in one shape and type."""

    def __init__(self, dataset: Dataset[Any], spec: TensorSpec) -> None:
        self.dataset, self.spec = dataset, spec

    def __getitem__(self, row: int) -> Tensor:
        x = first_of(self.dataset[row])
        return x.to(self.spec.dtype).reshape(self.spec.shape)


def batch_sizes(n_rows: int, batch_size: int) -> list[int]:
    """Cut an epoch into batches of at most `batch_size` rows, as even as can be.

    A small last batch would have as much weight in the training as a full one, and
    batch normalization cannot train on one row.

    Examples
    --------
    >>> from sklearn_structreg.core.batches import batch_sizes
    >>> batch_sizes(10, 4), batch_sizes(9, 4)
    ([4, 3, 3], [3, 3, 3])
    """
    n_batches = max(1, -(-n_rows // batch_size))
    size, n_larger = divmod(n_rows, n_batches)
    return [size + 1] * n_larger + [size] * (n_batches - n_larger)


def _row_order(n_rows: int, seed: int | None) -> Tensor:
    """Return row numbers, shuffled by `seed` or as they are where it is None."""
    if seed is None:
        return torch.arange(n_rows)
    return torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed))


def first_of(item: Any) -> Tensor:
    """Return the sample of a dataset's item, ``x`` or ``(x, ...)``, as a tensor."""
    x = item[0] if isinstance(item, tuple | list) else item
    return x if isinstance(x, Tensor) else torch.from_numpy(np.array(x))


def _fits(X: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return X.numel() * X.element_size() <= free // 2
