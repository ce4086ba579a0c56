"""Graphs over features: lattices of pixels, and sparse matrices from the user.

A graph is a tensor of edges, shape (2, n_edges), int64: column e joins the features
``edges[0, e] < edges[1, e]``, columns in lexicographic order, no edge twice. The order
breaks ties between equal distances, so the clusters depend on it.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

# Differences computed at a time, to need little memory.
_BLOCK = 2**22


def lattice_steps(shape: Sequence[int]) -> list[int]:
    """Return the steps in a flattened lattice to the next pixel of each axis."""
    return [prod(shape[axis + 1 :]) for axis in _long_axes(shape)]


def lattice_links(
    shape: Sequence[int], *, device: torch.device | str = "cpu"
) -> Tensor:
    """Return the edges' places, ascending, in a flat table (n_pixels, n_steps)."""
    axes = _long_axes(shape)
    has_next = torch.ones((*shape, len(axes)), dtype=torch.bool, device=device)
    for step, axis in enumerate(axes):
        has_next[..., step].select(axis, shape[axis] - 1).fill_(False)
    return has_next.view(-1).nonzero()[:, 0]


def lattice_edges(
    shape: Sequence[int], *, device: torch.device | str = "cpu"
) -> Tensor:
    """Return the edges that join every pixel to the next one along each axis."""
    steps = torch.tensor(lattice_steps(shape), dtype=torch.int64, device=device)
    pixel = torch.arange(prod(shape), device=device)[:, None]
    table = torch.stack([pixel.expand(-1, len(steps)), pixel + steps])
    return table.flatten(1).index_select(1, lattice_links(shape, device=device))


def _long_axes(shape: Sequence[int]) -> list[int]:
    """Return the axes longer than one pixel, last first, so that steps ascend."""
    return [axis for axis in reversed(range(len(shape))) if shape[axis] > 1]


def lattice_lengths(
    samples: Tensor, steps: list[int], weight: Tensor | None = None
) -> Tensor:
    """Return squared distances of pixels to those a step further, (n_pixels, n_steps).

    They are summed over samples of shape (n_samples, n_pixels). Entries that wrap
    around a border belong to no edge and have no meaning.
    """
    n_samples, n_nodes = samples.shape
    total = samples.new_zeros(len(steps), n_nodes)
    weight = samples.new_ones(n_samples) if weight is None else weight
    n_rows = max(1, _BLOCK // n_nodes)
    blocks = zip(torch.split(samples, n_rows), torch.split(weight, n_rows), strict=True)
    for rows, factors in blocks:
        for sums, step in zip(total, steps, strict=True):
            change = (rows[:, step:] - rows[:, :-step]).square_()
            sums[:-step] += change.mul_(factors[:, None]).sum(0)
    return total.T.contiguous()


def graph_edges(connectivity: Any, n_features: int) -> Tensor:
    """Return the edges of a symmetric adjacency matrix, sparse or dense."""
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
    if np.isnan(sp.csr_array(connectivity).data).any():
        raise ValueError("connectivity contains NaN; give 0 where nothing is joined.")
    joined: Any = sp.csr_array(connectivity).astype(bool)
    if (joined != joined.T).nnz:
        raise ValueError(
            "connectivity is not symmetric: it joins some feature i to j but not j to "
            "i; pass connectivity + connectivity.T to ignore directions."
        )
    low, high = joined.nonzero()
    edges = np.stack([low, high])[:, low < high].astype(np.int64)
    return torch.from_numpy(edges[:, np.lexsort(edges[::-1])])
