"""ReNA of data in blocks of rows, of which each is read where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_array
from torch import Tensor

from sklearn_structreg.dropcluster.images import flatten_images
from sklearn_structreg.dropcluster.rena import (
    ReNAResult,
    agglomerate,
    edge_lengths,
    node_means,
)

__all__ = ["cluster_blocks"]

Mapper = Callable[..., Iterable[Tensor]]


def cluster_blocks(
    blocks: Iterable[Any],
    n_features: int,
    n_clusters: int,
    edges: Tensor,
    max_iter: int,
    mapper: Mapper,
) -> ReNAResult:
    """Cluster features; `mapper` applies a function to each block."""
    merges: list[Tensor] = []

    def measure(merged: Tensor | None, ends: Tensor) -> Tensor:
        if merged is not None:
            merges.append(merged)
        of_block = partial(_lengths, n_features=n_features, merges=merges, ends=ends)
        total, n_blocks = ends.new_zeros(ends.shape[1], dtype=torch.float64), 0
        for lengths in mapper(of_block, blocks):
            total, n_blocks = total + lengths, n_blocks + 1
        if not n_blocks:
            raise ValueError(
                "there are no blocks: pass a list of at least one, not a generator, "
                "since every round reads them again."
            )
        if not bool(total.isfinite().all()):
            raise ValueError(
                "squared distances leave the range of double precision: divide the "
                "data by a large number."
            )
        return total

    lengths = measure(None, edges)
    shape = 1, n_features
    labels, count, n_iter = agglomerate(
        lengths, edges, shape, n_clusters, max_iter, measure
    )
    return ReNAResult(labels, count[0], n_iter)


def _lengths(
    block: Any, *, n_features: int, merges: list[Tensor], ends: Tensor
) -> Tensor:
    """Return the squared lengths of edges over the rows of a block."""
    rows = check_array(flatten_images(block), dtype=np.float64, order="C")
    if rows.shape[1] != n_features:
        raise ValueError(
            f"a block has {rows.shape[1]} features a row, but image_shape or "
            f"connectivity has {n_features}."
        )
    nodes = torch.from_numpy(rows.T.copy())
    for merged in merges:
        nodes = node_means(nodes, merged)
    return edge_lengths(nodes, ends, None)
