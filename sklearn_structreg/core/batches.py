"""Training data as mini-batches of tensors.

Data in memory is gathered in blocks of many mini-batches, on the training device where
it fits, and handed out in slices: no Python code per row, one gather per block. A torch
`Dataset` is for data beyond memory and goes through torch's own `DataLoader`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Protocol

import torch
from skorch.dataset import Dataset as SkorchDataset
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sklearn_structreg.core.dataset_items import read_samples
from sklearn_structreg.core.recipe import TensorSpec
from sklearn_structreg.core.sparse_rows import SparseTensor

__all__ = [
    "Batch",
    "Batches",
    "DatasetBatches",
    "TensorBatches",
    "all_after",
    "batch_sizes",
    "first_kept",
    "side_by_side",
]

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Samples ``(b, ...)``, class indices ``(b,)`` or targets ``(b, n_outputs)``, weights
``(b,)`` or None."""

BLOCK_BYTES = 4 * 2**20  # a gathered block stays in a CPU's cache until it is used
KEPT_BATCHES, KEPT_BYTES = 16, 2**24  # of an epoch; one batch at least


class Batches(Protocol):
    """Mini-batches of one data set."""

    n_batches: int
    sizes: list[int]

    def __len__(self) -> int:
        """Return the number of rows."""

    def epoch(self, seed: int | None) -> Iterator[Batch]:
        """Yield every row once, shuffled by `seed` or in order where it is None."""


class TensorBatches(SkorchDataset):
    """Mini-batches of some rows of data in memory; None is all of them.

    For callbacks this is a dataset of the rows in their order.

    They are moved to `device` first where they take at most half of its free memory.
    Every batch is a copy: a module that works in place cannot change the caller's data.
    Of sparse rows it is a dense one.
    """

    def __init__(
        self,
        X: Tensor | SparseTensor,
        y: Tensor,
        weight: Tensor | None,
        *,
        batch_size: int,
        device: torch.device,
        rows: Tensor | None = None,
    ) -> None:
        n_rows = len(X) if rows is None else len(rows)
        row_bytes = X.itemsize * math.prod(X.shape[1:])
        sparse = isinstance(X, SparseTensor)
        n_bytes = X.nbytes if sparse else n_rows * row_bytes
        if device.type != "cpu" and _fits(n_bytes, device):
            if rows is not None and not sparse:
                X, y = X[rows], y[rows]
                weight, rows = None if weight is None else weight[rows], None
            weight = None if weight is None else weight.to(device)
            X, y = X.to(device), y.to(device)
        self._X, self._y, self.weight, self.rows = X, y, weight, rows
        self.device = device
        self.sizes = batch_sizes(n_rows, batch_size)
        self.n_batches = len(self.sizes)
        self.batches_per_block = max(1, BLOCK_BYTES // (row_bytes * self.sizes[0]))

    @property
    def X(self) -> Tensor:  # noqa: N802 (skorch's name)
        """The samples of the rows, dense."""
        if self.rows is None and isinstance(self._X, Tensor):
            return self._X
        return self._X[torch.arange(len(self)) if self.rows is None else self.rows]

    @property
    def y(self) -> Tensor:
        """The targets of the rows."""
        return self._y if self.rows is None else self._y[self.rows]

    def __len__(self) -> int:
        """Return the number of rows."""
        return sum(self.sizes)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Return a sample and its target."""
        row = i if self.rows is None else int(self.rows[i])
        return self._X[row], self._y[row]

    def epoch(self, seed: int | None) -> Iterator[Batch]:
        """Yield every row once, shuffled by `seed` or in order where it is None."""
        yield from self._batches(self._order(seed))

    def _order(self, seed: int | None) -> Tensor:
        order = _row_order(sum(self.sizes), None if self.n_batches == 1 else seed)
        return order if self.rows is None else self.rows[order]

    def _batches(self, order: Tensor) -> Iterator[Batch]:
        """Yield rows in an order, (n,), or in several beside each other, (n, K)."""
        order, start = order.to(self._X.device), 0
        per_block = max(1, self.batches_per_block * len(order) // order.numel())
        for first in range(0, self.n_batches, per_block):
            sizes = self.sizes[first : first + per_block]
            rows = order[start : start + sum(sizes)]
            start += len(rows)
            weight: Iterable[Tensor | None] = [None] * len(sizes)
            if self.weight is not None:
                weight = self._slices(self.weight, rows, sizes)
            yield from zip(
                self._slices(self._X, rows, sizes),
                self._slices(self._y, rows, sizes),
                weight,
                strict=True,
            )

    def _slices(
        self, tensor: Tensor | SparseTensor, rows: Tensor, sizes: list[int]
    ) -> list[Tensor]:
        block = tensor.index_select(0, rows.flatten()).to(self.device)
        return list(torch.split(block.view(*rows.shape, *block.shape[1:]), sizes))


def side_by_side(parts: Sequence[TensorBatches], seeds: Sequence[Any]) -> Iterator[Any]:
    """Yield mini-batches of the same sizes with all samples (b, K, ...), and so on."""
    first = parts[0]
    of_parts = zip(parts, seeds, strict=True)
    if all(_is_same(part._X, first._X) and part.weight is None for part in parts):
        yield from first._batches(torch.stack([p._order(s) for p, s in of_parts], 1))
        return
    for batches in zip(*(p.epoch(s) for p, s in of_parts), strict=True):
        X, y, weights = zip(*batches, strict=True)
        weight = None
        if any(w is not None for w in weights):
            one = torch.ones(len(y[0]), dtype=X[0].dtype, device=X[0].device)
            weight = torch.stack([one if w is None else w for w in weights], dim=1)
        yield torch.stack(X, dim=1), torch.stack(y, dim=1), weight


def all_after(
    layer: nn.Module, parts: Sequence[TensorBatches | None]
) -> list[TensorBatches | None] | None:
    """Return the same mini-batches of samples that a layer has acted on, if few."""
    samples = [part._X for part in parts if part is not None]
    known = {X.data_ptr(): X for X in samples if isinstance(X, Tensor)}
    sparse = any(isinstance(X, SparseTensor) for X in samples)
    if sparse or sum(X.nbytes for X in known.values()) > KEPT_BYTES:
        return None
    results = {key: layer(X) for key, X in known.items()}
    others = [copy.copy(part) for part in parts]
    for other in others:
        if other is not None and isinstance(other._X, Tensor):
            other._X = results[other._X.data_ptr()]
    return others


class DatasetBatches:
    """Mini-batches of some rows of a map-style torch `Dataset`, loaded row by row.

    Samples have the shape of `spec`, or as many entries. Those that are random follow
    from the seed of the epoch and the row. The first batches of a training epoch are
    put in `kept`.
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
        loader_params: Mapping[str, Any] | None = None,
        kept: list[Batch] | None = None,
    ) -> None:
        self.dataset, self.spec = dataset, spec
        self.y, self.weight, self.rows = y, weight, rows
        self.sizes, self.device = batch_sizes(len(rows), batch_size), spec.device
        self.n_batches = len(self.sizes)
        params = {"pin_memory": spec.device.type == "cuda", **(loader_params or {})}
        if params.get("num_workers"):
            params.setdefault("persistent_workers", True)
        self._order, self._kept = _Order(), kept
        self._loader = DataLoader(
            _Samples(dataset, spec),
            batch_sampler=self._order,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # else each epoch draws a global seed
            **params,
        )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def epoch(
        self, seed: int | None, part: Callable[[int], slice] = slice
    ) -> Iterator[Batch]:
        """Yield every row once, shuffled by `seed` or in order where it is None.

        Of so many samples of a mini-batch those of `part` are loaded; others are zeros.
        """
        rows = self.rows[_row_order(len(self.rows), seed)]
        batches, parts = torch.split(rows, self.sizes), [*map(part, self.sizes)]
        self._order.batches = [
            [seed or 0, *batch[part].tolist()]
            for batch, part in zip(batches, parts, strict=True)
        ]
        loaded = self._loaded(batches, parts)
        yield from loaded if seed is None else first_kept(loaded, self._kept, parts)

    def _loaded(
        self, batches: Iterable[Tensor], parts: Iterable[slice]
    ) -> Iterator[Batch]:
        for own, batch, part in zip(self._loader, batches, parts, strict=True):
            weight = None if self.weight is None else self.weight[batch]
            X = own.to(self.device, non_blocking=True)
            if len(own) < len(batch):
                X = X.new_zeros(len(batch), *X.shape[1:])
                X[part] = own
            yield (
                X,
                self.y[batch].to(self.device),
                None if weight is None else weight.to(self.device),
            )


def first_kept(
    batches: Iterator[Batch],
    kept: list[Batch] | None,
    parts: Iterable[slice] = repeat(slice(None)),
) -> Iterator[Batch]:
    """Pass mini-batches on, and put copies of parts of the first in place of others."""
    if kept is None:
        yield from batches
        return
    kept.clear()
    n_bytes = 0
    for (X, y, weight), part in zip(batches, parts, strict=False):
        if len(kept) < KEPT_BATCHES and n_bytes < KEPT_BYTES:
            some = None if weight is None else weight[part]
            kept.append((X[part].clone(), y[part], some))
            n_bytes += X.nbytes
        yield X, y, weight


class _Order:
    """The seed of an epoch, before the rows of each of its batches.

    Workers that stay from epoch to epoch are told the seed beside the rows.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Samples(Dataset[Tensor]):
    """The samples of a dataset alone, a batch at a time."""

    def __init__(self, dataset: Dataset[Any], spec: TensorSpec) -> None:
        self.dataset, self.spec = dataset, spec

    def __getitems__(self, batch: list[int]) -> Tensor:
        seed, *rows = batch
        return read_samples(self.dataset, rows, seed, self.spec.shape, self.spec.dtype)


def _as_it_is(batch: Any) -> Any:
    return batch


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


def _is_same(one: Tensor | SparseTensor, two: Tensor | SparseTensor) -> bool:
    """Whether samples, and so their targets, are the same memory."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.data_ptr() == two.data_ptr() and one.shape == two.shape
    return one is two


def _fits(n_bytes: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return n_bytes <= free // 2
