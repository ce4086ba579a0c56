"""Graphs over features: lattices of pixels, and the user's sparse matrices.

A graph is a tensor of edges, shape (2, n_edges), int64: column e joins the features
``edges[0, e] < edges[1, e]``, columns in lexicographic order, no edge twice. That order
is what breaks ties between equal distances, so it is part of the result.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

# Numbers that one vector operation should have, without a GPU and with one.
_LONG = (2**15, 2**22)


def lattice_steps(shape: Sequence[int]) -> list[int]:
    """Return the steps in a flattened lattice to the next pixel of each axis.

    Parameters
    ----------
    shape : sequence of int
        Lattice shape, C order. An axis of length 1 joins nothing and has no step.

    Returns
    -------
    list of int
        The steps, ascending and distinct.

    Examples
    --------
    >>> lattice_steps((4, 1, 5))
    [1, 5]
    """
    return [prod(shape[axis + 1 :]) for axis in _long_axes(shape)]


def lattice_links(
    shape: Sequence[int], *, device: torch.device | str = "cpu"
) -> Tensor:
    """Say which pixels of a lattice have a next pixel along which axis.

    Parameters
    ----------
    shape : sequence of int
        Lattice shape.
    device : torch.device or str, default="cpu"
        Where to build the answer.

    Returns
    -------
    Tensor of int64, shape (n_edges,)
        Places, ascending, in a flattened table of shape (n_pixels, n_steps).

    Examples
    --------
    >>> lattice_links((2, 2)).tolist()
    [0, 1, 3, 4]
    """
    axes = _long_axes(shape)
    has_next = torch.ones((*shape, len(axes)), dtype=torch.bool, device=device)
    for step, axis in enumerate(axes):
        has_next[..., step].select(axis, shape[axis] - 1).fill_(False)
    return has_next.view(-1).nonzero()[:, 0]


def lattice_edges(
    shape: Sequence[int],
    *,
    links: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Join every pixel of a lattice to the next one along each axis.

    Parameters
    ----------
    shape : sequence of int
        Lattice shape of any dimension: (length,), (height, width), ...
    links : Tensor of int64, shape (n_edges,), default=None
        ``lattice_links(shape)``, for a caller who has it already.
    device : torch.device or str, default="cpu"
        Where to build the edges.

    Returns
    -------
    Tensor of int64, shape (2, n_edges)
        Pixels are numbered in C order.

    Examples
    --------
    >>> lattice_edges((2, 2)).tolist()
    [[0, 0, 1, 2], [1, 2, 3, 3]]
    """
    steps = torch.tensor(lattice_steps(shape), dtype=torch.int64, device=device)
    pixel = torch.arange(prod(shape), device=device)[:, None]
    table = torch.stack([pixel.expand(-1, len(steps)), pixel + steps])
    if links is None:
        links = lattice_links(shape, device=device)
    return table.flatten(1).index_select(1, links)


def _long_axes(shape: Sequence[int]) -> list[int]:
    """Return the axes that join pixels, last first, so that steps ascend."""
    return [axis for axis in reversed(range(len(shape))) if shape[axis] > 1]


def lattice_lengths(
    samples: Tensor, steps: list[int], weight: Tensor | None = None
) -> Tensor:
    """Compute squared distances of all pixels to the pixels a step further.

    Parameters
    ----------
    samples : Tensor of shape (n_samples, n_pixels)
        Data, contiguous.
    steps : list of int
        ``lattice_steps(shape)``.
    weight : Tensor of shape (n_samples,), default=None
        Weights of the samples.

    Returns
    -------
    Tensor of shape (n_pixels, n_steps)
        Sums over samples. Entries that wrap around a border belong to no edge and have
        no meaning.
    """
    n_samples, n_nodes = samples.shape
    together = 1
    if weight is None:
        # Several small samples laid end to end are one long one, with their own sums.
        together = min(n_samples, max(1, _LONG[samples.is_cuda] // n_nodes))
    rest = n_samples % together
    long = samples[: n_samples - rest].view(-1, together * n_nodes)
    total = _summed_squares(long, steps, weight)
    total = total.view(len(steps), together, n_nodes).sum(1)
    if rest:
        total += _summed_squares(samples[n_samples - rest :], steps, None)
    return total.T.contiguous()


def graph_edges(connectivity: Any, n_features: int) -> Tensor:
    """Read the edges off a symmetric adjacency matrix.

    Parameters
    ----------
    connectivity : sparse matrix, sparse array or array-like of shape \
            (n_features, n_features)
        Features i and j are joined where entry (i, j) is not zero. Values and diagonal
        do not matter.
    n_features : int
        The size that the graph must have.

    Returns
    -------
    Tensor of int64, shape (2, n_edges)
        Every pair of joined features once, in lexicographic order.

    Raises
    ------
    ValueError
        If the matrix has another size, or joins i to j but not j to i.

    Examples
    --------
    >>> graph_edges([[1, 1, 0], [1, 1, 0], [0, 0, 1]], 3).tolist()
    [[0], [1]]
    """
    if not sp.issparse(connectivity):
        connectivity = np.asarray(connectivity)
        if connectivity.ndim != 2 or connectivity.dtype.kind not in "biuf":
            raise ValueError(
                "connectivity must be a square sparse matrix or array of numbers that "
                f"joins features, got {connectivity.dtype} of shape "
                f"{connectivity.shape}."
            )
    if connectivity.shape != (n_features, n_features):
        raise ValueError(
            f"connectivity has shape {connectivity.shape}, but X has {n_features} "
            f"features: pass a graph of shape ({n_features}, {n_features})."
        )
    joined: Any = sp.csr_array(connectivity).astype(bool)
    if (joined != joined.T).nnz:
        raise ValueError(
            "connectivity is not symmetric: it joins some feature i to j but not j to "
            "i; pass connectivity + connectivity.T to ignore directions."
        )
    low, high = joined.nonzero()
    edges = np.stack([low, high])[:, low < high].astype(np.int64)
    return torch.from_numpy(edges[:, np.lexsort(edges[::-1])])


def _summed_squares(rows: Tensor, steps: list[int], weight: Tensor | None) -> Tensor:
    """Sum (x[i + step] - x[i])^2 over rows x, (n_steps, length of a row).

    Row by row, so that all but the rows stays in the cache.
    """
    total = rows.new_zeros(len(steps), rows.shape[1])
    change = torch.empty_like(rows[0])
    values = [1.0] * len(rows) if weight is None else weight.tolist()
    pairs = [
        zip(rows[:, step:].unbind(), rows[:, :-step].unbind(), strict=True)
        for step in steps
    ]
    into = [
        (sums[:-step], change[:-step]) for sums, step in zip(total, steps, strict=True)
    ]
    for value in values:
        for pair, (sums, buffer) in zip(pairs, into, strict=True):
            torch.sub(*next(pair), out=buffer)
            sums.addcmul_(buffer, buffer, value=value)
    return total
