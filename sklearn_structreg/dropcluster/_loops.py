"""Recursive nearest agglomeration as plain loops, written for numba to compile.

A channel at a time, so that a small one stays in the cache from its first distances to
its last. Nodes and edges are numbered as in the torch path and means are the same to
the last bit; distances agree up to the order in which samples are added.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Pixels whose sums of squares stay in the innermost cache while samples go by.
_BLOCK = 2048
# Pixels transposed at a time.
_LINE = 128


def cluster_channels(
    X: Array,
    shape: Array,
    low: Array,
    high: Array,
    weight: Array,
    n_clusters: int,
    max_iter: int,
    limits: tuple[float, float, int],
    labels: Array,
    count: Array,
) -> int:
    """Fill in `labels` and `count`; return the rounds made, -1 if X is not finite.

    `X` is (n_samples, n_channels, n_features). The graph is the lattice of `shape`,
    its axes longer than 1, or, if that is empty, the sorted edges from `low` to `high`.
    `limits` are a length too small and one too large for squares to be exact, and the
    largest exponent to scale by.
    """
    n_samples, n_channels, n_features = X.shape
    steps = np.empty(shape.size, np.int64)
    entry = np.empty(0, np.int32)
    if shape.size:
        low, high, entry = lattice(shape, steps)
    weights = np.zeros(padded(n_samples), X.dtype)
    weights[:n_samples] = weight
    itself = np.arange(n_features).astype(np.int32)
    n_iter = 0
    for channel in range(n_channels):
        labels[channel] = itself
        count[channel] = n_features
        if not low.size:
            continue
        data, c = X, channel
        lengths, rows = first_lengths(data, c, low, high, entry, steps, weights, itself)
        exponent = scale_exponent(data, c, lengths, limits)
        if exponent > limits[2]:
            return -1
        if exponent:
            data, c = scaled(X, channel, exponent), 0
            lengths, rows = first_lengths(
                data, c, low, high, entry, steps, weights, itself
            )
        n_nodes, n_rounds = n_features, 0
        a, b = low, high
        while n_nodes > n_clusters and a.size and n_rounds < max_iter:
            merged, n_nodes = agglomerate(lengths, a, b, n_nodes, n_nodes - n_clusters)
            n_rounds += 1
            for i in range(n_features):
                labels[channel, i] = merged[labels[channel, i]]
            if n_nodes > n_clusters:
                a, b = contracted(a, b, merged, n_nodes)
                if rows.size:
                    rows = means(rows, merged, n_nodes)
                else:
                    rows = first_means(data, c, merged, n_nodes)
                lengths = row_lengths(rows, a, b, weights)
        count[channel] = n_nodes
        n_iter = max(n_iter, n_rounds)
    return n_iter


def padded(n_samples: int) -> int:
    """Round the length of rows up to an odd multiple of 16.

    Loops then have no remainder, and the values of one sample do not compete for the
    same place in the cache.
    """
    return 16 * ((n_samples + 15) // 16 | 1)


def lattice(shape: Array, steps: Array) -> tuple[Array, Array, Array]:
    """Fill in steps, last axis first; return edges and their places in a table."""
    n_axes, n_pixels = shape.size, 1
    period, place = np.empty(n_axes, np.int64), np.zeros(n_axes, np.int64)
    for k in range(n_axes):
        steps[k] = n_pixels
        n_pixels *= shape[n_axes - 1 - k]
        period[k] = n_pixels
    low = np.empty(n_pixels * n_axes, np.int32)
    high, entry = np.empty_like(low), np.empty_like(low)
    e = 0
    for i in range(n_pixels):
        for k in range(n_axes):
            # Always written, but kept only if there is a next pixel along the axis.
            low[e], high[e], entry[e] = i, i + steps[k], k * n_pixels + i
            e += place[k] < period[k] - steps[k]
            place[k] = place[k] + 1 if place[k] + 1 < period[k] else 0
    return low[:e], high[:e], entry[:e]


def first_lengths(
    X: Array,
    c: int,
    low: Array,
    high: Array,
    entry: Array,
    steps: Array,
    weights: Array,
    itself: Array,
) -> tuple[Array, Array]:
    """Return lengths of the edges of a channel, and its rows where they are needed."""
    if not steps.size:
        rows = first_means(X, c, itself, itself.size)
        return row_lengths(rows, low, high, weights), rows
    last, n_pixels = X.shape[0] - 1, X.shape[2]
    table = np.zeros(steps.size * n_pixels, X.dtype)
    for start in range(0, n_pixels, _BLOCK):
        for s in range(0, last + 1, 4):
            # Four samples at a time, so that a sum is loaded and stored once for them.
            # Past the end the last sample is repeated with a weight of zero.
            x0, x1 = X[s, c], X[min(s + 1, last), c]
            x2, x3 = X[min(s + 2, last), c], X[min(s + 3, last), c]
            w0, w1, w2, w3 = weights[s], weights[s + 1], weights[s + 2], weights[s + 3]
            for k in range(steps.size):
                stop = min(start + _BLOCK, n_pixels - steps[k])
                first, end = start + steps[k], stop + steps[k]
                a0, b0 = x0[start:stop], x0[first:end]
                a1, b1 = x1[start:stop], x1[first:end]
                a2, b2 = x2[start:stop], x2[first:end]
                a3, b3 = x3[start:stop], x3[first:end]
                total = table[k * n_pixels + start : k * n_pixels + stop]
                for i in range(total.size):
                    d0, d1 = a0[i] - b0[i], a1[i] - b1[i]
                    d2, d3 = a2[i] - b2[i], a3[i] - b3[i]
                    two = w0 * (d0 * d0) + w1 * (d1 * d1)
                    total[i] += two + (w2 * (d2 * d2) + w3 * (d3 * d3))
    lengths = np.empty(low.size, X.dtype)
    for e in range(low.size):
        lengths[e] = table[entry[e]]
    return lengths, np.empty((0, 0), X.dtype)


def scale_exponent(
    X: Array, c: int, lengths: Array, limits: tuple[float, float, int]
) -> int:
    """Return the exponent to scale a channel by; above the limit where it has NaN."""
    too_small, too_large, reach = limits
    fine, peak = True, lengths[0]
    for length in lengths:
        fine &= length < too_large
        peak = length if length > peak else peak
    if fine and peak > too_small:
        return 0
    largest = 0.0
    for s in range(X.shape[0]):
        for value in X[s, c]:
            if not math.isfinite(value):
                return reach + 1
            largest = max(largest, abs(np.float64(value)))
    return max(-reach, min(reach, math.frexp(largest)[1]))


def scaled(X: Array, c: int, exponent: int) -> Array:
    """Return a channel divided by a power of two."""
    result = np.empty((X.shape[0], 1, X.shape[2]), X.dtype)
    factor = X.dtype.type(math.ldexp(1.0, -exponent))
    for s in range(X.shape[0]):
        for i in range(X.shape[2]):
            result[s, 0, i] = X[s, c, i] * factor
    return result


def row_lengths(rows: Array, low: Array, high: Array, weights: Array) -> Array:
    """Return squared distances between the rows that edges join."""
    lengths = np.empty(low.size, rows.dtype)
    for e in range(low.size):
        a, b = rows[low[e]], rows[high[e]]
        total = rows.dtype.type(0.0)
        for s in range(weights.size):
            change = a[s] - b[s]
            total += weights[s] * (change * change)
        lengths[e] = total
    return lengths


def agglomerate(
    lengths: Array, low: Array, high: Array, n_nodes: int, budget: int
) -> tuple[Array, int]:
    """Link nodes to nearest neighbours; return each node's component, and their number.

    Components are numbered by their first nodes. Links close no cycle; only the
    `budget` shortest are made.
    """
    # Without branches, as the processor cannot predict them. Of equally short edges the
    # first one counts, so the second loop runs backwards and overwrites later ones.
    shortest = np.full(n_nodes, np.inf, lengths.dtype)
    nearest = np.full(n_nodes, -1, np.int32)
    for e in range(low.size):
        a, b = low[e], high[e]
        shortest[a] = min(shortest[a], lengths[e])
        shortest[b] = min(shortest[b], lengths[e])
    for e in range(low.size - 1, -1, -1):
        a, b = low[e], high[e]
        nearest[a] += (e - nearest[a]) * (lengths[e] == shortest[a])
        nearest[b] += (e - nearest[b]) * (lengths[e] == shortest[b])

    links = np.empty(low.size + 1, np.int32)
    n_links = 0
    for e in range(low.size):
        links[n_links] = e
        n_links += (nearest[low[e]] == e) | (nearest[high[e]] == e)
    links = links[:n_links]
    if n_links > budget:
        longest = np.sort(lengths[links])[budget - 1]
        n_equal = budget - np.sum(lengths[links] < longest)
        n_links = 0
        for link in links:
            length = lengths[link]
            n_equal -= length == longest
            links[n_links] = link
            n_links += length < longest or (length == longest and n_equal >= 0)
        links = links[:n_links]

    # Parents come before their children, so one pass numbers the components.
    parent = np.arange(n_nodes).astype(np.int32)
    for link in links:
        a, b = low[link], high[link]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        parent[max(a, b)] = min(a, b)
    n_merged = 0
    for i in range(n_nodes):
        if parent[i] == i:
            parent[i] = n_merged
            n_merged += 1
        else:
            parent[i] = parent[parent[i]]
    return parent, n_merged


def contracted(
    low: Array, high: Array, merged: Array, n_nodes: int
) -> tuple[Array, Array]:
    """Return the edges between merged nodes, sorted, each once.

    Counting sorts them, by upper end and then by lower.
    """
    lower, upper = np.empty((2, low.size + 1), np.int32)
    n_edges = 0
    for e in range(low.size):
        # Always written, but kept only if it joins two nodes.
        a, b = merged[low[e]], merged[high[e]]
        lower[n_edges], upper[n_edges] = min(a, b), max(a, b)
        n_edges += a != b

    end = np.zeros(n_nodes + 1, np.int32)
    for e in range(n_edges):
        end[upper[e]] += 1
    for i in range(n_nodes):
        end[i + 1] += end[i]
    listed = np.empty(n_edges, np.int32)
    for e in range(n_edges):
        end[upper[e]] -= 1
        listed[end[upper[e]]] = lower[e]

    start = np.zeros(n_nodes + 1, np.int32)
    last = np.full(n_nodes, -1, np.int32)
    n_kept = 0
    for b in range(n_nodes):
        for e in range(end[b], end[b + 1]):
            a = listed[e]
            lower[n_kept], upper[n_kept] = a, b
            n_kept += last[a] != b
            start[a + 1] += last[a] != b
            last[a] = b
    for i in range(n_nodes):
        start[i + 1] += start[i]
    new_low, new_high = np.empty(n_kept, np.int32), np.empty(n_kept, np.int32)
    for e in range(n_kept):
        place = start[lower[e]]
        new_low[place], new_high[place] = lower[e], upper[e]
        start[lower[e]] += 1
    return new_low, new_high


def first_means(X: Array, c: int, merged: Array, n_nodes: int) -> Array:
    """Average the features of each merged node into rows, (n_nodes, n_samples)."""
    n_samples, _, n_features = X.shape
    line = np.zeros((_LINE, padded(n_samples)), X.dtype)
    rows = np.empty((n_nodes, line.shape[1]), X.dtype)
    size = np.zeros(n_nodes, np.int64)
    for start in range(0, n_features, _LINE):
        stop = min(start + _LINE, n_features)
        for s in range(n_samples):
            x = X[s, c, start:stop]
            for i in range(x.size):
                line[i, s] = x[i]
        add_rows(line, merged[start:stop], rows, size)
    divide_rows(rows, size)
    return rows


def means(rows: Array, merged: Array, n_nodes: int) -> Array:
    """Average the rows of each merged node, in the order of its members."""
    result = np.empty((n_nodes, rows.shape[1]), rows.dtype)
    size = np.zeros(n_nodes, np.int64)
    add_rows(rows, merged, result, size)
    divide_rows(result, size)
    return result


def add_rows(rows: Array, merged: Array, total: Array, size: Array) -> None:
    """Add rows to those of their nodes; a node's first one is the start of its sum."""
    for i in range(merged.size):
        row, into = rows[i], total[merged[i]]
        if size[merged[i]]:
            for s in range(row.size):
                into[s] += row[s]
        else:
            for s in range(row.size):
                into[s] = row[s]
        size[merged[i]] += 1


def divide_rows(rows: Array, size: Array) -> None:
    """Divide sums by the numbers of their terms."""
    for i in range(size.size):
        row, divisor = rows[i], rows.dtype.type(size[i])
        for s in range(row.size):
            row[s] /= divisor


# The functions that `cluster_channels` calls, for the compiler.
PARTS = (
    padded,
    lattice,
    first_lengths,
    scale_exponent,
    scaled,
    row_lengths,
    agglomerate,
    contracted,
    first_means,
    means,
    add_rows,
    divide_rows,
)
