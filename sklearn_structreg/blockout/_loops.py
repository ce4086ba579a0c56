"""Masking a weight, and the gradients of that, as plain loops for numba to compile.

A weight is too large for the caches, so that time goes by the number of passes over
it: one for masking, one for its three gradients together. Outputs in the same clusters
have the same row of the mask; `order` lists the rows, those of the same clusters side
by side, and `fresh` marks the first row of each such run.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def mask_weight(
    weight: Array,
    c_out: Array,
    c_in: Array,
    order: Array,
    fresh: Array,
    scale: float,
    out: Array,
) -> None:
    """Write the masked weight into `out`; `c_in` comes as (k, d_in)."""
    n_inputs = c_in.shape[1]
    mask = np.empty(n_inputs, weight.dtype)
    for i in range(len(order)):
        t = order[i]
        if fresh[i]:
            mask_row(c_out[t], c_in, scale, mask)
        row, masked = weight[t], out[t]
        for s in range(n_inputs):
            masked[s] = row[s] * mask[s]


def mask_gradient(
    gradient: Array,
    weight: Array,
    c_out: Array,
    c_in: Array,
    order: Array,
    fresh: Array,
    scale: float,
    d_out: Array,
    d_in: Array,
) -> None:
    """Turn the gradient of the masked weight into that of the weight, in place.

    The gradients of the memberships are added to zeros: to `d_out`, (d_out, k), and to
    `d_in`, (k, d_in).
    """
    n_clusters, n_inputs = c_in.shape
    mask = np.empty(n_inputs, weight.dtype)
    product = np.empty(n_inputs, weight.dtype)
    total = np.zeros(n_inputs, weight.dtype)
    factor = weight.dtype.type(scale / n_clusters)
    for i in range(len(order)):
        t = order[i]
        if fresh[i]:
            if i > 0:
                add_rows(c_out[order[i - 1]], total, d_in)
                total[:] = 0.0
            mask_row(c_out[t], c_in, scale, mask)
        row, dual = weight[t], gradient[t]
        for s in range(n_inputs):
            product[s] = row[s] * dual[s]
            total[s] += product[s]
            dual[s] *= mask[s]
        for cluster in range(n_clusters):
            members, dot = c_in[cluster], weight.dtype.type(0.0)
            for s in range(n_inputs):
                dot += product[s] * members[s]
            d_out[t, cluster] = dot * factor
    add_rows(c_out[order[len(order) - 1]], total, d_in)
    for cluster in range(n_clusters):
        column = d_in[cluster]
        for s in range(n_inputs):
            column[s] *= factor


def mask_row(c: Array, c_in: Array, scale: float, mask: Array) -> None:
    """Write a row of the mask: the share of the k clusters that are common."""
    n_clusters, n_inputs = c_in.shape
    mask[:] = 0.0
    for cluster in range(n_clusters):
        if c[cluster] != 0.0:
            members, share = c_in[cluster], c[cluster]
            for s in range(n_inputs):
                mask[s] += share * members[s]
    whole, factor = mask.dtype.type(n_clusters), mask.dtype.type(scale)
    for s in range(n_inputs):
        mask[s] = mask[s] / whole * factor


def add_rows(c: Array, total: Array, d_in: Array) -> None:
    """Add `total` to the rows of `d_in`, times the membership of each cluster."""
    for cluster in range(len(c)):
        if c[cluster] != 0.0:
            row, share = d_in[cluster], c[cluster]
            for s in range(len(total)):
                row[s] += share * total[s]
