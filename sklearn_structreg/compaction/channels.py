"""Channels: which entries of which tensors live or die together, and the constants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["Bools", "Channels", "Floats", "Ids", "Value"]

Ids = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Value:
    """A tensor that flows through the network, seen along its axis of channels.

    Attributes
    ----------
    ids : ndarray of shape (n,)
        The channel that each entry along the axis belongs to. After a flatten, all
        pixels of a map belong to one.
    known : ndarray of shape (n,)
        Whether the entry is the same number in every sample and at every position,
        whatever the input and its size.
    constant : ndarray of shape (n,)
        That number; 0 where it is not known.
    axis : int
        Of the tensor, at least 1.
    """

    ids: Ids
    known: Bools
    constant: Floats
    axis: int

    @classmethod
    def unknown(cls, ids: Ids, axis: int) -> Value:
        """Return a value that holds no constants."""
        return cls(ids, np.zeros(len(ids), bool), np.zeros(len(ids)), axis)

    def with_constants(self, known: Bools, constant: Floats) -> Value:
        """Return the same channels with other constants; those not finite are none."""
        with np.errstate(invalid="ignore"):
            known = known & np.isfinite(constant)
        return replace(self, known=known, constant=np.where(known, constant, 0.0))

    def forgotten(self, keep: bool | Bools = False) -> Value:
        """Return the same channels, their constants unknown but for those in `keep`."""
        return self.with_constants(self.known & keep, self.constant)


class Channels:
    """Numbers for channels; records which are tied together and which must stay."""

    def __init__(self) -> None:
        self._n_ids = 0
        self._ties: list[tuple[Ids, Ids]] = []
        self._fixed: list[Ids] = []

    def new(self, n: int) -> Ids:
        """Return numbers for `n` new channels."""
        self._n_ids += n
        return np.arange(self._n_ids - n, self._n_ids)

    def tie(self, a: Ids, b: Ids) -> None:
        """Let the channels of two values live or die together, entry by entry."""
        self._ties.append((a, b))

    def fix(self, ids: Ids) -> None:
        """Keep channels, whatever happens."""
        self._fixed.append(ids)

    def solve(self) -> tuple[Ids, Bools]:
        """Return the class of every id, and which of the classes are fixed."""
        empty: Any = np.zeros(0, np.int64)
        rows = np.concatenate([empty, *(a for a, _ in self._ties)])
        columns = np.concatenate([empty, *(b for _, b in self._ties)])
        n = max(1, self._n_ids)
        links = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(n, n))
        n_classes, labels = connected_components(links, directed=False)
        fixed = np.zeros(n_classes, bool)
        for ids in self._fixed:
            fixed[labels[ids]] = True
        return labels.astype(np.int64), fixed
