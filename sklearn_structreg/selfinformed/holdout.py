"""The draw of the held-out samples: by a row's values, not by its position."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from sklearn_structreg.core.data import TrainingData

__all__ = ["HoldOut", "hold_out"]

# Nothing is held out where that would be fewer different rows per class on average.
MIN_ROWS_PER_CLASS = 2
_CHUNK_BYTES = 1 << 24


class HoldOut(NamedTuple):
    """The rows to train on, and those to score; the same ones if none is held out."""

    train: TrainingData
    scored: TrainingData
    held_out: NDArray[np.int64]


def hold_out(
    data: TrainingData, classes: NDArray[Any], fraction: float, seed: int
) -> HoldOut:
    """Split off a fraction of each class, weights counted in."""
    # Rows are drawn by a hash of their values, so copies of a row stay together, k
    # copies count as weight k, and the order of the rows has no influence. (Rows of a
    # torch `Dataset` are drawn by their position.) With several labels, a row counts
    # for the rarest of them.
    target = data.target[data.rows]
    weight = np.ones(data.n_rows) if data.weight is None else data.weight[data.rows]
    stratum = _rarest_label(target, weight) if target.ndim == 2 else target
    key = _row_keys(data, seed)
    order = np.lexsort((key, stratum))
    new_stratum = np.diff(stratum[order], prepend=-1) != 0
    new_row = new_stratum | (np.diff(key[order], prepend=key[order][:1]) != 0)
    new_row[0] = True
    row = np.cumsum(new_row) - 1
    row_weight = np.bincount(row, weights=weight[order])
    if fraction * row_weight.size < MIN_ROWS_PER_CLASS * len(classes):
        return HoldOut(data, data, np.empty(0, np.int64))
    first = np.flatnonzero(new_stratum[new_row])  # the first row of each stratum
    held = np.zeros(row_weight.size, dtype=bool)
    for start, stop in zip(first, [*first[1:], row_weight.size], strict=True):
        shares = np.cumsum(row_weight[start:stop]) - row_weight[start:stop] / 2
        held[start:stop] = shares <= fraction * row_weight[start:stop].sum()
        held[start] = stop - start > 1  # one at least on either side,
        held[stop - 1] = False  # but a lone row is needed for training
    is_held = np.zeros(data.n_rows, dtype=bool)
    is_held[order] = held[row]
    train = replace(data, rows=data.rows[~is_held])
    scored = replace(data, rows=data.rows[is_held])
    _check_present(data, train, classes)
    return HoldOut(train, scored, scored.rows)


def _rarest_label(target: NDArray[np.int64], weight: NDArray[Any]) -> NDArray[np.int64]:
    """Find each row's rarest true label; the number of labels stands for none."""
    frequency = np.append(weight @ target, np.inf)
    masked = np.where(target == 1, frequency[:-1], np.inf)
    masked = np.column_stack([masked, np.full(len(target), np.finfo(float).max)])
    return np.asarray(masked.argmin(axis=1))


def _row_keys(data: TrainingData, seed: int) -> NDArray[np.uint64]:
    """Draw a pseudo-random number for every row in use, equal for equal rows."""
    rng = np.random.default_rng(seed)
    samples = data.samples
    if isinstance(samples, Dataset):
        return rng.permutation(len(data.target)).astype(np.uint64)[data.rows]
    words = samples.shape[1] * samples.itemsize // 4
    factors = rng.integers(2**64, size=words, dtype=np.uint64) | np.uint64(1)
    keys = np.empty(data.n_rows, dtype=np.uint64)
    step = max(1, _CHUNK_BYTES // (8 * words))
    for start in range(0, data.n_rows, step):
        rows = samples[data.rows[start : start + step]] + samples.dtype.type(0)  # -0.0
        keys[start : start + step] = rows.view(np.uint32).astype(np.uint64) @ factors
    return _mix(keys)


def _mix(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Let every bit of a number influence all others."""
    for shift, factor in ((32, 0xD6E8FEB86659FD93), (32, 0xD6E8FEB86659FD93)):
        keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
    return keys ^ (keys >> np.uint64(32))


def _check_present(
    data: TrainingData, train: TrainingData, classes: NDArray[Any]
) -> None:
    """Check that the training part has samples of every class that occurs."""
    absent = _present(data, classes) & ~_present(train, classes)
    if absent.any():
        raise ValueError(
            "The training part has no sample of the class(es) "
            f"{classes[absent][:5].tolist()}, which have too few different samples to "
            "split; give more, or score the training part with holdout_fraction=0."
        )


def _present(data: TrainingData, classes: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the classes that occur."""
    target = data.target[data.rows]
    if target.ndim == 2:
        return np.asarray(target.any(axis=0))
    return np.bincount(target, minlength=len(classes)) > 0
