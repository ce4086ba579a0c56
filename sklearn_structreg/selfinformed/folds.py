"""Folds of the rows: drawn by a row's values, not by its position."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import check_cv
from torch.utils.data import Dataset

from sklearn_structreg.core.data import TrainingData

__all__ = ["Fold", "make_folds", "take_folds"]

# There are no folds where that would be fewer different rows per class on average.
MIN_ROWS_PER_CLASS = 2
_CHUNK_BYTES = 1 << 24


class Fold(NamedTuple):
    """The rows to train on, and those to score."""

    train: TrainingData
    scored: TrainingData


def make_folds(
    data: TrainingData, n_classes: int, n_folds: int, seed: int
) -> list[Fold]:
    """Divide the rows into folds, each class evenly, weights counted in.

    A class of one row, copies not counted, is in the training part of every fold, so
    that no network has fewer classes than another. There are no folds of few rows.
    """
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
    if row_weight.size < MIN_ROWS_PER_CLASS * max(n_classes, n_folds):
        return []
    first = np.flatnonzero(new_stratum[new_row])  # the first row of each stratum
    fold_of_row = np.full(row_weight.size, -1)
    for start, stop in zip(first, [*first[1:], row_weight.size], strict=True):
        if stop - start > 1:
            part = row_weight[start:stop]
            middles = np.cumsum(part) - part / 2  # the first and the last differ by
            fold_of_row[start:stop] = n_folds * middles / part.sum()  # half the sum
    fold = np.empty(data.n_rows, int)
    fold[order] = fold_of_row[row]
    splits = [(data.rows[fold != i], data.rows[fold == i]) for i in range(n_folds)]
    return [
        Fold(replace(data, rows=rest), replace(data, rows=rows))
        for rest, rows in splits
        if rows.size
    ]


def take_folds(data: TrainingData, cv: Any) -> list[Fold]:
    """Divide the rows as a splitter or an iterable of (train, test) does.

    A splitter is shown the rows of positive weight, an iterable counts all. Rows of a
    class that the training part would lack are in it, and are not scored.
    """
    rows, target = data.rows, data.target
    groups = None if data.groups is None else data.groups[rows]
    splits = list(check_cv(cv).split(rows, target[rows], groups))
    if hasattr(cv, "split"):
        splits = [(rows[train], rows[test]) for train, test in splits]
    folds = []
    for train, test in splits:
        lacking = np.zeros(len(target), dtype=bool)
        if target.ndim == 1:
            lacking = ~np.isin(target, target[np.intersect1d(train, rows)])
        learned = np.isin(rows, train) | lacking[rows]
        scored = np.isin(rows, test) & ~lacking[rows]
        parts = rows[learned], rows[scored]
        folds.append(Fold(*(replace(data, rows=part) for part in parts)))
    return [fold for fold in folds if fold.scored.n_rows]


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
