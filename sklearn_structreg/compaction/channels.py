"""Channels: entries of tensors that live or die together, and their constants."""

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
    """A tensor in the network, seen along its axis of channels."""

    ids: Ids  # channel of each entry; after a flatten all pixels of a map share one
    known: Bools  # the same number for every input, at every position
    constant: Floats  # that number, 0 where it is unknown
    axis: int  # of the tensor, at least 1

    @classmethod
    def unknown(cls, ids: Ids, axis: int) -> Value:
        """Make a value without constants."""
        return cls(ids, np.zeros(len(ids), bool), np.zeros(len(ids)), axis)

    def with_constants(self, known: Bools, constant: Floats) -> Value:
        """Replace the constants; those that are not finite count as unknown."""
        with np.errstate(invalid="ignore"):
            known = known & np.isfinite(constant)
        return replace(self, known=known, constant=np.where(known, constant, 0.0))

    def forgotten(self, keep: bool | Bools = False) -> Value:
        """Forget the constants except those in `keep`."""
        return self.with_constants(self.known & keep, self.constant)


class Channels:
    """Numbers for channels, the ties between them, and those that must stay."""

    def __init__(self) -> None:
        self._n_ids = 0
        self._ties: list[tuple[Ids, Ids]] = []
        self._fixed: list[Ids] = []

    def new(self, n: int) -> Ids:
        """Make numbers for `n` channels."""
        self._n_ids += n
        return np.arange(self._n_ids - n, self._n_ids)

    def tie(self, a: Ids, b: Ids) -> None:
        """Let the channels of two values live or die together, entry by entry."""
        self._ties.append((a, b))

    def fix(self, ids: Ids) -> None:
        """Keep channels, whatever happens."""
        self._fixed.append(ids)

    def solve(self) -> tuple[Ids, Bools]:
        """Find the class of every channel, and the classes that must stay."""
        empty: Any = np.zeros(0, np.int64)
        rows = np.concatenate([empty, *(a for a, _ in self._ties)])
        columns = np.concatenate([empty, *(b for _, b in self._ties)])
        n = max(1, self._n_ids)
        links = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(n, n))
        n_classes, labels = connected_components(links, directed=False)
        fixed = np.zeros(n_classes, bool)
        fixed[labels[np.concatenate([empty, *self._fixed])]] = True
        return labels.astype(np.int64), fixed
