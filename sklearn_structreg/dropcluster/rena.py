"""Recursive nearest agglomeration: clusters of features in linear time.

Every feature links to its nearest neighbour on a graph, linked features become one
cluster, and clusters play the features' part in the next round. A round at least
halves the number of clusters, so the first one, which reads all the data, is most of
the cost. Here it is tensor operations over all nodes of all channels at once, the
channels being separate components of one graph; `_loops` does the same on a CPU, a
channel at a time.
"""

from collections.abc import Callable
from math import log2
from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from sklearn_structreg.core.checks import check_integer, is_integer
from sklearn_structreg.dropcluster._compiled import can_compile, cluster_compiled
from sklearn_structreg.dropcluster.lattice import (
    lattice_edges,
    lattice_lengths,
    lattice_links,
    lattice_steps,
)
from sklearn_structreg.dropcluster.tensors import as_numbers

# Differences computed at a time, to need little memory.
_BLOCK = 2**22


class ReNAResult(NamedTuple):
    """Clusters found by `rena`."""

    labels: Tensor
    n_clusters: Tensor
    n_iter: int


@torch.no_grad()
def rena(
    X: Tensor | npt.ArrayLike,
    n_clusters: int,
    *,
    edges: Tensor | None = None,
    sample_weight: Tensor | npt.ArrayLike | None = None,
    max_iter: int = 1000,
) -> ReNAResult:
    """Cluster the features of each channel by recursive nearest agglomeration.

    Section 3 of the DropCluster paper (Chen, Gautier, Aydore, 2020), after
    Hoyos-Idrobo et al. (2018). Every round links each cluster to the one at the least
    squared Euclidean distance over samples, and represents linked clusters by the mean
    of them (whatever their sizes, as published).
    Ties go to the edge between the smaller cluster numbers, so equal input gives equal
    output on every device. When a round would leave fewer than `n_clusters` clusters,
    only its shortest links are made.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features) or (n_samples, n_channels, ...)
        Data, such as a mini-batch of feature maps; also an array.
        float64 is computed in float64, everything else in float32.
    n_clusters : int
        Clusters per channel, from 1 to the number of features of a channel.
    edges : Tensor of int64, shape (2, n_edges), default=None
        Graph over the (flattened) features, the same for every channel: pairs of
        features. None joins the neighbours on the lattice of the last axes of `X`: two
        on a chain, where X has two dimensions, four in images, six in volumes.
    sample_weight : Tensor of shape (n_samples,), default=None
        Non-negative weight of each sample in the distances: 0 is an absent sample, 2
        is two copies of it.
    max_iter : int, default=1000
        Most rounds to make. Some log2(n_features / n_clusters) are enough.

    Returns
    -------
    labels : Tensor of int64, shape (n_features,) or (n_channels, ...)
        Cluster of each feature, from 0 in each channel, numbered by first feature. This
        and the next two are the attributes of a named tuple.
    n_clusters : Tensor of int64, shape () or (n_channels,)
        Clusters reached; more than asked for where the graph has more components.
    n_iter : int
        Rounds of agglomeration.

    Raises
    ------
    ValueError
        If `X` is not finite or has no sample of positive weight, or if `n_clusters` or
        `max_iter` is out of range.

    Notes
    -----
    Data on the CPU are clustered by compiled loops, which add up distances in another
    order than torch does; all else is the same. The first call ever for a dtype
    compiles for some seconds.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.dropcluster import rena
    >>> X = torch.tensor([[0.0, 0.1, 5.0, 5.1, 9.0], [1.0, 1.1, 7.0, 7.0, 2.0]])
    >>> rena(X, 3)
    ReNAResult(labels=tensor([0, 0, 1, 1, 2]), n_clusters=tensor(3), n_iter=1)
    """
    data = as_numbers(X, "X")
    maps, weight = _checked(data, sample_weight)
    n_features = maps.shape[2:].numel()
    if not is_integer(n_clusters) or n_clusters > n_features:
        raise ValueError(
            f"n_clusters={n_clusters!r} must be an integer from 1 to the number of "
            f"features, n_features={n_features}."
        )
    check_integer("max_iter", max_iter, 0)
    if edges is not None:
        edges = _checked_edges(edges, n_features).to(maps.device)
    cluster = cluster_compiled if can_compile(maps, edges) else cluster_tensors
    labels, count, n_iter = cluster(maps, int(n_clusters), edges, weight, max_iter)
    if data.ndim == 2:
        return ReNAResult(labels[0], count[0], n_iter)
    return ReNAResult(labels.view(maps.shape[1:]), count, n_iter)


def cluster_tensors(
    maps: Tensor,
    n_clusters: int,
    edges: Tensor | None,
    weight: Tensor | None,
    max_iter: int,
) -> tuple[Tensor, Tensor, int]:
    """Do the same as `cluster_compiled` by tensor operations."""
    n_channels, n_features = maps.flatten(2).shape[1:]
    ends, lengths, samples = _first_round(maps, edges, weight)
    rows = samples.T.contiguous()  # of the nodes

    def measure(merged: Tensor, ends: Tensor) -> Tensor:
        nonlocal rows
        rows = node_means(rows, merged)
        return edge_lengths(rows, ends, weight)

    labels, count, n_iter = agglomerate(
        lengths, ends, (n_channels, n_features), n_clusters, max_iter, measure
    )
    start = count.cumsum(0) - count
    return labels.view(n_channels, n_features) - start[:, None], count, n_iter


def agglomerate(
    lengths: Tensor,
    ends: Tensor,
    shape: tuple[int, int],
    n_clusters: int,
    max_iter: int,
    measure: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor, int]:
    """Merge the nodes of channels, ``shape`` in all, until `n_clusters` are left.

    `measure` returns the lengths of edges after some nodes have been merged.
    """
    n_channels, n_features = shape
    labels = torch.arange(n_channels * n_features, device=ends.device)
    channel = labels // n_features
    count = torch.full((n_channels,), n_features, device=ends.device)
    n_iter = 0
    while n_iter < max_iter and len(lengths) and bool((count > n_clusters).any()):
        merged = _link(lengths, ends, channel, count - n_clusters)
        n_iter += 1
        labels = merged.index_select(0, labels)
        n_nodes = int(merged.max()) + 1
        channel = channel.new_empty(n_nodes).scatter_(0, merged, channel)
        count = torch.bincount(channel, minlength=n_channels)
        unfinished = count > n_clusters
        if bool(unfinished.any()):
            active = None if bool(unfinished.all()) else unfinished[channel]
            ends = _contracted(ends, merged, n_nodes, active)
            lengths = measure(merged, ends)
    return labels, count, n_iter


def _checked(X: Tensor, sample_weight: Any) -> tuple[Tensor, Tensor | None]:
    """Return X as (n_samples, n_channels, *shape) and the weights, zeros left out."""
    if X.ndim < 2 or X.numel() == 0:
        raise ValueError(
            "X must have at least one sample and one feature, got shape "
            f"{tuple(X.shape)}."
        )
    maps = X[:, None] if X.ndim == 2 else X
    if maps.dtype != torch.float64:
        maps = maps.to(torch.float32)
    if sample_weight is None:
        return maps, None
    weight = as_numbers(sample_weight, "sample_weight").to(maps)
    if weight.shape != maps.shape[:1]:
        raise ValueError(
            f"sample_weight has shape {tuple(weight.shape)}, but X has "
            f"{maps.shape[0]} samples."
        )
    if not bool(weight.isfinite().all()):
        raise ValueError("sample_weight contains NaN or infinity.")
    present = weight > 0
    if not bool(present.any()) or bool((weight < 0).any()):
        raise ValueError(
            "sample_weight must not be negative and must leave at least one sample "
            "of positive weight."
        )
    # Only ratios of weights matter: a power of two keeps them exact and in range.
    weight = weight[present]
    return maps[present], weight.ldexp(-weight.max().frexp().exponent)


def _first_round(
    maps: Tensor, edges: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return edges of all channels, their lengths, and the data (n_samples, n_nodes).

    A channel whose squares would leave the range of its dtype is multiplied by a power
    of two, which changes no comparison: data of any scale can be clustered.
    """
    n_samples, n_channels, *shape = maps.shape
    samples = maps.reshape(n_samples, -1).contiguous()
    n_features = samples.shape[1] // n_channels
    links: Tensor | None = None
    if edges is None:
        links = lattice_links(shape, device=maps.device)
        edges = lattice_edges(shape, device=maps.device)
    if n_channels > 1:
        first = n_features * torch.arange(n_channels, device=maps.device)[:, None]
        edges = (edges[:, None] + first).flatten(1)

    def measure(samples: Tensor) -> Tensor:
        if links is None:
            return edge_lengths(samples.T.contiguous(), edges, weight)
        table = lattice_lengths(samples, lattice_steps(shape), weight)
        return table.view(n_channels, -1).index_select(1, links).view(-1)

    lengths = measure(samples)
    if len(lengths):
        exponent = _exponents(lengths.view(n_channels, -1), samples)
        if bool(exponent.any()):
            maps = samples.view(n_samples, n_channels, n_features)
            samples = maps.ldexp(-exponent[:, None]).view(n_samples, -1)
            lengths = measure(samples)
    return edges, lengths, samples


def _exponents(lengths: Tensor, samples: Tensor) -> Tensor:
    """Return powers of two to divide each channel by, 0 where squares are in range."""
    info = torch.finfo(lengths.dtype)
    peak = lengths.amax(1)
    fine = (peak > info.tiny / info.eps**2) & (peak < info.max * info.eps**2)
    exponent = torch.zeros(len(peak), dtype=torch.int32, device=peak.device)
    if not bool(fine.all()):
        suspects = samples.view(len(samples), len(peak), -1)[:, ~fine]
        largest = suspects.abs().amax((0, 2))
        if not bool(largest.isfinite().all()):
            raise ValueError("X contains NaN or infinity: impute or drop them first.")
        limit = round(-log2(info.tiny))
        exponent[~fine] = largest.frexp().exponent.clamp(-limit, limit)
    return exponent


def edge_lengths(rows: Tensor, ends: Tensor, weight: Tensor | None) -> Tensor:
    """Return squared distances between the rows that edges join, (n_edges,)."""
    lengths = rows.new_empty(ends.shape[1])
    n_edges = max(1, _BLOCK // rows.shape[1])
    for start in range(0, ends.shape[1], n_edges):
        a, b = ends[:, start : start + n_edges]
        change = rows.index_select(0, a).sub_(rows.index_select(0, b)).square_()
        out = lengths[start : start + n_edges]
        if weight is None:
            torch.sum(change, 1, out=out)
        else:
            torch.mv(change, weight, out=out)
    return lengths


def _link(lengths: Tensor, ends: Tensor, channel: Tensor, budget: Tensor) -> Tensor:
    """Link nodes to their nearest neighbours and return each node's component.

    Edges are totally ordered by (length, number), so nearest-neighbour links form a
    forest whose only cycles are pairs nearest to each other: every node but one per
    component owns a link, and dropping a link is making its owner a root.
    Each channel makes at most `budget` links. Components are numbered by their first
    nodes.
    """
    node = torch.arange(len(channel), device=ends.device)
    edge = _shortest_edges(lengths, ends, len(node))
    alone = edge == len(lengths)
    edge.clamp_(max=len(lengths) - 1)
    parent = (ends[0] + ends[1]).index_select(0, edge).sub_(node)
    parent = torch.where(alone, node, parent)
    mutual = edge.index_select(0, parent) == edge
    parent = torch.where(mutual & (node < parent), node, parent)

    linked = parent != node
    excess = _count(channel, linked, len(budget)) > budget
    if bool(excess.any()):
        owner = (linked & excess.index_select(0, channel)).nonzero()[:, 0]
        dropped = _longest(owner, edge, lengths, channel, budget)
        parent[dropped] = dropped

    while not torch.equal(parent, grand := parent.index_select(0, parent)):
        parent = grand
    first = torch.full_like(node, len(node)).scatter_reduce_(0, parent, node, "amin")
    first = first.index_select(0, parent)
    return ((first == node).cumsum(0) - 1).index_select(0, first)


def _count(channel: Tensor, mask: Tensor, n_channels: int) -> Tensor:
    """Count the true entries of each channel."""
    count = channel.new_zeros(n_channels)
    return count.index_add_(0, channel, mask.to(count.dtype))


def _longest(
    owner: Tensor, edge: Tensor, lengths: Tensor, channel: Tensor, budget: Tensor
) -> Tensor:
    """Return the owners of all but the `budget` shortest links of each channel."""
    owner = owner[edge[owner].argsort()]
    owner = owner[lengths[edge[owner]].sort(stable=True).indices]
    owner = owner[channel[owner].sort(stable=True).indices]
    owned = channel[owner]
    n_links = torch.bincount(owned, minlength=len(budget))
    rank = torch.arange(len(owner), device=owner.device)
    rank -= (n_links.cumsum(0) - n_links)[owned]
    return owner[rank >= budget[owned]]


def _shortest_edges(lengths: Tensor, ends: Tensor, n_nodes: int) -> Tensor:
    """Return each node's shortest edge, ties to the lowest number, n_edges if none."""
    n_edges = len(lengths)
    number = torch.arange(n_edges, device=ends.device)
    shortest = lengths.new_full((n_nodes,), torch.inf)
    for end in ends:
        shortest.scatter_reduce_(0, end, lengths, "amin")
    best = torch.full((n_nodes,), n_edges, device=ends.device)
    for end in ends:
        is_shortest = lengths == shortest.index_select(0, end)
        candidate = torch.where(is_shortest, number, n_edges)
        best.scatter_reduce_(0, end, candidate, "amin")
    return best


def _contracted(
    ends: Tensor, merged: Tensor, n_nodes: int, active: Tensor | None = None
) -> Tensor:
    """Return the edges between (active) merged nodes, sorted, each once."""
    a, b = (merged.index_select(0, end) for end in ends)
    low = torch.minimum(a, b)
    keep = a != b
    if active is not None:
        keep &= active.index_select(0, low)
    # low * n_nodes + high, as one number to sort by.
    key = torch.add(a + b, low, alpha=n_nodes - 1).masked_select(keep)
    if n_nodes**2 < 2**31:
        key = key.int()  # half the bytes to sort
    key = torch.unique_consecutive(key.sort().values).long()
    low = key // n_nodes
    return torch.stack([low, key - low * n_nodes])


def node_means(rows: Tensor, merged: Tensor) -> Tensor:
    """Average the rows of each merged node, in the order of its members."""
    order = merged.sort(stable=True).indices
    n_members = torch.bincount(merged)
    start = n_members.cumsum(0) - n_members
    # Unlike index_add_, embedding_bag adds in a fixed order on a GPU too.
    return embedding_bag(order, rows, start, mode="sum").div_(n_members[:, None])


def _checked_edges(edges: Tensor, n_features: int) -> Tensor:
    """Return edges sorted and without repetition."""
    edges = as_numbers(edges, "edges")
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.is_floating_point():
        raise ValueError(
            f"edges must be integers of shape (2, n_edges), got {edges.dtype} of "
            f"shape {tuple(edges.shape)}."
        )
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < n_features:
        raise ValueError(
            f"edges join features from {int(edges.min())} to {int(edges.max())}, but a "
            f"channel of X has features 0 to {n_features - 1}."
        )
    itself = torch.arange(n_features, device=edges.device)
    return _contracted(edges.long(), itself, n_features)
