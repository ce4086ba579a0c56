"""Training data as mini-batches of tensors.

Data in memory is gathered in blocks of many mini-batches, on the training device where
it fits, and handed out in slices: no Python code per row, one gather per block. A torch
`Dataset` is for data beyond memory and goes through torch's own `DataLoader`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

__all__ = ["Batch", "Batches", "DatasetBatches", "TensorBatches", "first_of"]

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Samples ``(b, ...)``, class indices ``(b,)``, weights ``(b,)`` or None."""

BLOCK_BYTES = 4 * 2**20  # a gathered block stays in a CPU's cache until it is used


class Batches(Protocol):
    """Mini-batches of one data set."""

    n_batches: int

    def epoch(self, seed: int | None) -> Iterator[Batch]:
        """Yield every row once, shuffled by `seed` or in order where it is None."""


class TensorBatches:
    """Mini-batches of data in memory.

    Parameters
    ----------
    X : torch.Tensor of shape (n, ...)
        Samples; never written to, and every batch is a copy, so that a module that
        works in place cannot change the caller's data.
    y : torch.Tensor of shape (n,)
        Class indices, int64.
    weight : torch.Tensor of shape (n,) or None
        Sample weights with mean one.
    batch_size : int
        Rows per mini-batch; the last one may be smaller.
    device : torch.device
        Where the batches go. The whole data set is moved there first where it takes
        at most half of what is free.
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
        self.X, self.y = X.to(home), y.to(home)
        self.weight = None if weight is None else weight.to(home)
        self.batch_size = min(batch_size, len(X))
        self.n_batches = -(-len(X) // self.batch_size)
        row_bytes = X[0].numel() * X.element_size()
        batches_per_block = BLOCK_BYTES // max(1, row_bytes * self.batch_size)
        self.block_size = self.batch_size * max(1, batches_per_block)

    def epoch(self, seed: int | None) -> Iterator[Batch]:
        """Yield every row once, shuffled by `seed` or in order where it is None."""
        order = torch.arange(len(self.X))
        if seed is not None and self.n_batches > 1:  # one batch has no order
            order = torch.randperm(
                len(self.X), generator=torch.Generator().manual_seed(seed)
            )
        for rows in torch.split(order.to(self.X.device), self.block_size):
            X = self._slices(self.X, rows)
            y = self._slices(self.y, rows)
            if self.weight is None:
                weight: tuple[Tensor | None, ...] = (None,) * len(y)
            else:
                weight = self._slices(self.weight, rows)
            yield from zip(X, y, weight, strict=True)

    def _slices(self, tensor: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        block = tensor.index_select(0, rows).to(self.device)
        return torch.split(block, self.batch_size)


class DatasetBatches:
    """Mini-batches of a torch `Dataset`, loaded row by row.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Map-style; an item is ``x`` or a tuple that starts with it.
    y : torch.Tensor of shape (n,)
        Class indices, int64.
    weight : torch.Tensor of shape (n,) or None
        Sample weights with mean one.
    rows : torch.Tensor of int64
        Which rows of `dataset` to use.
    input_shape : tuple of int
        Shape of one sample; items of another shape with as many entries are reshaped.
    dtype : torch.dtype
        Of the samples handed out.
    batch_size, device
        As in `TensorBatches`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        y: Tensor,
        weight: Tensor | None,
        *,
        rows: Tensor,
        input_shape: tuple[int, ...],
        dtype: torch.dtype,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.samples = _Samples(dataset, input_shape, dtype)
        self.y, self.weight, self.rows = y, weight, rows
        self.batch_size, self.device = min(batch_size, len(rows)), device
        self.n_batches = -(-len(rows) // self.batch_size)

    def epoch(self, seed: int | None) -> Iterator[Batch]:
        """Yield every row once, shuffled by `seed` or in order where it is None."""
        rows = self.rows
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            rows = rows[torch.randperm(len(rows), generator=generator)]
        loader = DataLoader(
            self.samples,
            batch_size=self.batch_size,
            sampler=rows.tolist(),
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else each epoch draws a global seed
        )
        for X, picked in zip(loader, torch.split(rows, self.batch_size), strict=True):
            weight = None if self.weight is None else self.weight[picked]
            yield (
                X.to(self.device, non_blocking=True),
                self.y[picked].to(self.device),
                None if weight is None else weight.to(self.device),
            )


class _Samples(Dataset[Tensor]):
    """The samples of a dataset alone, in one shape and type."""

    def __init__(
        self, dataset: Dataset[Any], input_shape: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        self.dataset, self.input_shape, self.dtype = dataset, input_shape, dtype

    def __getitem__(self, row: int) -> Tensor:
        x = first_of(self.dataset[row])
        return x.to(self.dtype).reshape(self.input_shape)


def first_of(item: Any) -> Tensor:
    """Return the sample of a dataset's item, ``x`` or ``(x, ...)``, as a tensor."""
    return torch.as_tensor(item[0] if isinstance(item, tuple | list) else item)


def _fits(X: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return X.numel() * X.element_size() <= free // 2
