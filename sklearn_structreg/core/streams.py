"""An `IterableDataset` as training data: read once for its labels, then every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from sklearn_structreg.core.batches import Batch, batch_sizes, first_kept
from sklearn_structreg.core.dataset_items import (
    label_of,
    labels_of,
    sample_of,
    stack_labels,
    stack_samples,
)
from sklearn_structreg.core.randomness import kept_global_state, seed_globals
from sklearn_structreg.core.recipe import TensorSpec

__all__ = ["Stream", "StreamBatches"]


class Stream(Dataset[Any]):
    """A stream that has been read once, in one process.

    Parameters
    ----------
    dataset : IterableDataset
        Items as those of a map-style dataset; each pass may have another order.

    Attributes
    ----------
    n_items : int
        The number of its items.
    targets : ndarray of shape (n_items, ...)
        The labels in the order of this pass; absent where the first item has none.
    """

    def __init__(self, dataset: IterableDataset[Any]) -> None:
        self.dataset = dataset
        self.n_items, self.first, labels = 0, None, []
        with kept_global_state():
            seed_globals(0, 0)
            for item in dataset:
                if self.n_items == 0:
                    self.first, labelled = item, has_label(item)
                if labelled:
                    labels.append(label_of(item, self.n_items))
                self.n_items += 1
        if labels:
            self.targets = stack_labels(labels)

    def __len__(self) -> int:
        return self.n_items

    def __getitem__(self, row: int) -> Any:
        if row == 0:
            return self.first
        raise TypeError(f"{type(self.dataset).__name__} cannot be indexed.")


def has_label(item: Any) -> bool:
    """Whether an item comes with a label."""
    if isinstance(item, Mapping):
        return bool(labels_of(item))
    return isinstance(item, tuple | list) and len(item) > 1


class StreamBatches:
    """Mini-batches of the first items of every pass through a stream.

    Parameters
    ----------
    stream : Stream
        The data.
    n_items : int
        Of every pass, from its beginning.
    encode : callable or None
        Makes targets of labels; None is for items that may have none.
    factors : Tensor or None
        The weight of every class.
    kept : list or None
        Gets the first batches of a training epoch.
    """

    def __init__(
        self,
        stream: Stream,
        n_items: int,
        encode: Callable[[Any], NDArray[Any]] | None,
        factors: Tensor | None,
        *,
        spec: TensorSpec,
        batch_size: int,
        loader_params: Mapping[str, Any] | None = None,
        kept: list[Batch] | None = None,
    ) -> None:
        self.stream, self.n_items, self.spec = stream, n_items, spec
        self.encode, self.factors = encode, factors
        self.sizes, self.device = batch_sizes(n_items, batch_size), spec.device
        self.n_batches = len(self.sizes)
        self.loader_params, self._kept = dict(loader_params or {}), kept

    def __len__(self) -> int:
        """Return the number of items."""
        return self.n_items

    def epoch(self, seed: int | None) -> Iterator[Batch]:
        """Yield the items of a pass, whose random draws follow from `seed`."""
        loaded = self._loaded(seed)
        yield from loaded if seed is None else first_kept(loaded, self._kept)

    def _loaded(self, seed: int | None) -> Iterator[Batch]:
        chunks = self._chunks(seed or 0)
        X, y = next(chunks)
        for size in self.sizes:
            while len(X) < size:
                more = next(chunks, None)
                if more is None:
                    raise ValueError(
                        f"{type(self.stream.dataset).__name__} had {len(self.stream)} "
                        "items when it was read first, but fewer in a later pass; "
                        "make all passes of one length."
                    )
                X, y = torch.cat([X, more[0]]), torch.cat([y, more[1]])
            weight = None if self.factors is None else self.factors[y[:size]]
            yield (
                X[:size].to(self.device, non_blocking=True),
                y[:size].to(self.device),
                None if weight is None else weight.to(self.device),
            )
            X, y = X[size:], y[size:]
        if self.n_items == len(self.stream) and (len(X) or next(chunks, None)):
            raise ValueError(
                f"{type(self.stream.dataset).__name__} had {len(self.stream)} items "
                "when it was read first, but has more in a later pass; where workers "
                "load them, let each take its share (torch.utils.data.get_worker_info)."
            )

    def _chunks(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield samples and targets in the sizes in which they are loaded."""
        loader = DataLoader(
            self.stream.dataset,
            batch_size=self.sizes[0],
            collate_fn=partial(stacked, shape=self.spec.shape, dtype=self.spec.dtype),
            generator=torch.Generator().manual_seed(seed),
            **self.loader_params,
        )
        items = iter(loader)
        number = 0
        while True:
            with kept_global_state():
                seed_globals(seed, number)
                chunk = next(items, None)
            if chunk is None:
                return
            X, labels = chunk
            y = np.zeros(len(X), np.int64)
            if self.encode is not None:
                y = self.encode(stack_labels(labels))
            yield X, torch.from_numpy(y)
            number += 1


def stacked(
    items: Sequence[Any], shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[Tensor, list[Any]]:
    """Stack the samples of some items, and list their labels."""
    samples = [sample_of(item, row, shape, dtype) for row, item in enumerate(items)]
    labels = [label_of(x, row) if has_label(x) else None for row, x in enumerate(items)]
    return stack_samples(samples, range(len(items))), labels
