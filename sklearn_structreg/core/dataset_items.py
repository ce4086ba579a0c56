"""Items of a map-style torch `Dataset`: samples and labels by row, random ones by seed.

An item is ``x``, a tuple ``(x, label, ...)``, or a mapping with one of the names below
for each. What it draws from the global generators of torch, numpy and Python follows
from a seed and its row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    Dataset,
    Subset,
    TensorDataset,
    default_collate,
)

from sklearn_structreg.core.device import dtype_name
from sklearn_structreg.core.randomness import kept_global_state, seed_globals

__all__ = [
    "dataset_targets",
    "first_sample",
    "label_of",
    "labels_of",
    "read_samples",
    "sample_of",
    "stack_labels",
    "stack_samples",
]

SAMPLES = ("x", "X", "image", "img", "pixel_values", "input", "inputs", "data")
LABELS = ("y", "label", "labels", "target", "targets")
CHUNK_ROWS = 256


def first_sample(dataset: Dataset[Any]) -> Tensor:
    """Return the sample of the first item, in its own shape."""
    x: Tensor = _read(dataset, [0], 0, _sample)[0]
    return x


def read_samples(
    dataset: Dataset[Any],
    rows: Sequence[int],
    seed: int,
    shape: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    """Return the samples of some rows, (n, *shape), all of them finite."""

    def take(item: Any, row: int) -> Tensor:
        return sample_of(item, row, shape, dtype)

    return stack_samples(_read(dataset, rows, seed, take), rows)


def dataset_targets(dataset: Dataset[Any]) -> NDArray[Any]:
    """Find the targets of a map-style dataset, without loading samples if possible.

    They come from an attribute `targets` or `labels`, a `TensorDataset`, a `Subset` or
    `ConcatDataset` of such, or else from the items, each read once.
    """
    targets = _known_targets(dataset)
    if targets is None:
        rows = range(len(dataset))  # type: ignore[arg-type]
        chunks = (rows[i : i + CHUNK_ROWS] for i in rows[::CHUNK_ROWS])
        labels = [x for chunk in chunks for x in _read(dataset, chunk, 0, label_of)]
        targets = stack_labels(labels)
    return targets


def _known_targets(dataset: Dataset[Any]) -> NDArray[Any] | None:
    """Return the targets if no item must be loaded for them."""
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for name in ("targets", "labels"):
        if hasattr(dataset, name):
            known = getattr(dataset, name)
            return stack_labels(known) if isinstance(known, list) else _as_array(known)
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return _as_array(dataset.tensors[1])
    if isinstance(dataset, Subset):
        inner = _known_targets(dataset.dataset)
        return None if inner is None else np.take(inner, dataset.indices, axis=0)
    if isinstance(dataset, ConcatDataset):
        parts = [_known_targets(part) for part in dataset.datasets]
        found = [part for part in parts if part is not None]
        return np.concatenate(found) if len(found) == len(parts) else None
    return None


def stack_labels(labels: Sequence[Any]) -> NDArray[Any]:
    """Make one array of labels, of one shape and all numbers or all strings."""
    arrays = [_as_array(label) for label in labels]
    for row, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"Row {row} of the dataset has a label of shape {array.shape}, but row "
                f"0 has one of shape {arrays[0].shape}; give all labels one shape."
            )
        if (array.dtype.kind in "US") != (arrays[0].dtype.kind in "US"):
            raise ValueError(
                f"Row {row} of the dataset has the label {labels[row]!r}, but row 0 "
                f"has {labels[0]!r}; give numbers alone, or strings alone."
            )
    return np.array(arrays)


def _as_array(values: Any) -> NDArray[Any]:
    return np.asarray(values.cpu() if isinstance(values, Tensor) else values)


# ---- items -------------------------------------------------------------------------


def _read(
    dataset: Dataset[Any],
    rows: Collection[int],
    seed: int,
    take: Callable[[Any, int], Any],
) -> list[Any]:
    """Return `take(item, row)` of some rows."""
    with kept_global_state():
        found = []
        for row in rows:
            seed_globals(seed, row)
            found.append(take(dataset[row], row))
        return found


def sample_of(item: Any, row: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return an item's sample in a shape of as many entries."""
    x = _sample(item, row)
    if x.numel() != math.prod(shape):
        raise ValueError(
            f"Row {row} of the dataset has a sample of shape {tuple(x.shape)}, but "
            f"others are of shape {tuple(shape)}; give all samples one shape."
        )
    return x.to(dtype).reshape(shape)


def stack_samples(samples: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
    """Stack the samples of some rows, all of them finite."""
    X: Tensor = default_collate([*samples])  # which a worker does in shared memory
    # The sum is faster, but may overflow.
    if not (bool(X.sum().isfinite()) or bool(X.isfinite().all())):
        bad = int((~X.flatten(1).isfinite().all(dim=1)).int().argmax())
        raise ValueError(
            f"Row {rows[bad]} of the dataset holds NaN, infinity, or a number too "
            f"large for {dtype_name(X.dtype)}; impute such values, or leave the row "
            "out."
        )
    return X


def _sample(item: Any, row: int) -> Tensor:
    """Return an item's sample as a tensor; pictures as (channels, height, width)."""
    if isinstance(item, Mapping):
        x = item[_name(item, SAMPLES, "sample", row)]
    else:
        x = item[0] if isinstance(item, tuple | list) and len(item) else item
    if isinstance(x, Tensor):
        return x
    try:
        if type(x).__module__.startswith("PIL."):
            x = np.array(x)
            x = x if x.ndim == 2 else x.transpose(2, 0, 1).copy()
        return torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Row {row} of the dataset has a sample of type {type(x).__name__}, which "
            f"is no tensor, array or picture ({error}); convert it in the dataset."
        ) from error


def label_of(item: Any, row: int) -> Any:
    """Return an item's label."""
    if isinstance(item, Mapping):
        return item[_name(item, LABELS, "label", row)]
    if not (isinstance(item, tuple | list) and len(item) > 1):
        raise ValueError(
            f"Row {row} of the dataset holds no label; pass y, or a dataset whose "
            "items are (x, label)."
        )
    return item[1]


def labels_of(item: Mapping[str, Any]) -> list[str]:
    """Return the names of an item's entries that may be the label."""
    return [name for name in LABELS if name in item]


def _name(item: Mapping[str, Any], names: Sequence[str], kind: str, row: int) -> str:
    """Return the only one of the names that an item has."""
    found = [name for name in names if name in item]
    if len(found) != 1:
        raise ValueError(
            f"Row {row} of the dataset has the keys {list(item)}, of which "
            f"{'several' if found else 'none'} may be the {kind}; name exactly one of "
            f"them {' or '.join(map(repr, names))}."
        )
    return found[0]
