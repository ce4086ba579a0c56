"""Rows of a sparse matrix, which come dense a few at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["SparseRows", "SparseTensor"]


class SparseRows:
    """Rows of a sparse matrix; those that are taken are dense.

    Parameters
    ----------
    matrix : csr_array or csr_matrix of shape (n_rows, n_features)
        Left as it is.
    """

    def __init__(self, matrix: Any) -> None:
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        self.matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and of features."""
        n_rows, n_features = self.matrix.shape
        return n_rows, n_features

    @property
    def dtype(self) -> np.dtype[Any]:
        """The precision of the entries."""
        dtype: np.dtype[Any] = self.matrix.dtype
        return dtype

    @property
    def itemsize(self) -> int:
        """The bytes of an entry of a dense row."""
        return self.dtype.itemsize

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return some rows, dense."""
        dense: NDArray[Any] = self.matrix[rows].toarray()
        return dense


class SparseTensor:
    """Sparse rows on a device, where some of them become a dense tensor.

    Parameters
    ----------
    shape : tuple of int
        Of a dense row.
    values, columns : Tensor of shape (n_entries,)
        The entries, row by row, and their places in a row.
    starts : Tensor of shape (n_rows + 1,)
        The number of the first entry of every row, and of all entries.
    """

    def __init__(
        self, shape: tuple[int, ...], values: Tensor, columns: Tensor, starts: Tensor
    ) -> None:
        self.values, self.columns, self.starts = values, columns, starts
        self.shape = (len(starts) - 1, *shape)
        self.device, self.itemsize = values.device, values.itemsize

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """The bytes of all entries and their places."""
        return self.values.nbytes + self.columns.nbytes + self.starts.nbytes

    def to(self, device: torch.device) -> SparseTensor:
        """Move to a device."""
        parts = (x.to(device) for x in (self.values, self.columns, self.starts))
        return SparseTensor(self.shape[1:], *parts)

    def __getitem__(self, row: Any) -> Tensor:
        """Return a row, or several, dense."""
        rows = torch.as_tensor(row, device=self.device)
        dense = self.index_select(0, rows.reshape(-1))
        return dense.reshape(*rows.shape, *self.shape[1:])

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """Return some rows, dense, as a dense tensor's method does for `dim` 0."""
        n_features = math.prod(self.shape[1:])
        first = self.starts[rows].long()
        counts = self.starts[rows + 1] - first
        numbers = torch.arange(len(rows), device=self.device)
        row = torch.repeat_interleave(numbers, counts)
        skipped = first - counts.cumsum(0) + counts  # entries of rows in between
        entry = torch.arange(len(row), device=self.device) + skipped[row]
        dense = self.values.new_zeros(len(rows) * n_features)
        dense[row * n_features + self.columns[entry]] = self.values[entry]
        return dense.reshape(-1, *self.shape[1:])
