"""Find the clusters of feature maps, and the channels without structure."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from sklearn_structreg.core.messages import shown
from sklearn_structreg.dropcluster.hopkins import spatial_hopkins
from sklearn_structreg.dropcluster.lattice import graph_edges
from sklearn_structreg.dropcluster.masks import KEPT
from sklearn_structreg.dropcluster.rena import rena

__all__ = [
    "MIN_CLUSTERS",
    "count_profiles",
    "find_clusters",
    "mean_hopkins",
    "pixel_graph",
    "resolve_clusters",
]

PAPER_CLUSTERS = 15
MIN_CLUSTERS = KEPT + 1
PIXELS_PER_CLUSTER = 4


def resolve_clusters(n_clusters: int | str, n_pixels: int) -> int:
    """Return the number of clusters of a channel, or raise if the pixels are fewer.

    "auto" is the paper's 15, at most a quarter of the pixels and at least 3: 0 below
    three of them.
    """
    if isinstance(n_clusters, str):
        few = max(MIN_CLUSTERS, n_pixels // PIXELS_PER_CLUSTER)
        return min(PAPER_CLUSTERS, few) if n_pixels >= MIN_CLUSTERS else 0
    if n_clusters > n_pixels:
        raise ValueError(
            f"n_clusters={n_clusters} is more than the {n_pixels} pixels of a channel; "
            "give fewer, or n_clusters='auto'."
        )
    return int(n_clusters)


def pixel_graph(connectivity: Any, n_pixels: int) -> Tensor | None:
    """Return the edges of a graph over pixels, None for the lattice."""
    if connectivity is None:
        return None
    edges = graph_edges(connectivity, n_pixels)
    if edges.numel() == 0:
        raise ValueError(
            "connectivity joins no two pixels, so there is nothing to cluster; give a "
            "graph with neighbours, or None for those on the map."
        )
    return edges


@torch.no_grad()
def find_clusters(
    maps: Tensor,
    n_clusters: int,
    *,
    connectivity: Any = None,
    clusterer: Any = None,
    unstructured: str | None = "auto",
    hopkins_threshold: float = 0.55,
    sample_weight: Tensor | None = None,
    random_state: Any = None,
) -> tuple[Tensor, Tensor]:
    """Cluster the pixels of every channel, and find the channels with structure.

    Algorithm 1 of the DropCluster paper, with all channels of the maps, (n_samples,
    n_channels, ...), in one call of `rena`, or one by one by another clusterer. All
    channels count as structured where none is: a net without any channel left would
    predict nothing.
    """
    if sample_weight is not None:
        present = sample_weight > 0
        maps, sample_weight = maps[present], sample_weight[present]
    if clusterer is not None:
        labels = _labels_of(clusterer, maps, sample_weight, random_state)
        n_clusters = MIN_CLUSTERS
    elif connectivity is not None:
        edges = pixel_graph(connectivity, maps[0, 0].numel())
        labels = _on_graph(maps, n_clusters, edges, sample_weight)
    else:
        labels = rena(maps, n_clusters, sample_weight=sample_weight).labels
    structured = torch.ones(len(labels), dtype=torch.bool, device=maps.device)
    if unstructured is not None:
        structured &= count_profiles(maps) >= n_clusters
    if unstructured == "hopkins":
        statistic = mean_hopkins(maps, sample_weight, random_state)
        structured &= statistic >= hopkins_threshold  # false for NaN
    return labels, structured if bool(structured.any()) else ~structured


def _on_graph(
    maps: Tensor, n_clusters: int, edges: Any, sample_weight: Tensor | None
) -> Tensor:
    """Cluster the pixels that have neighbours; the others are the last cluster."""
    joined = edges.unique()
    n_clusters = min(n_clusters, len(joined))
    found = rena(
        maps.flatten(2)[:, :, joined.to(maps.device)],
        n_clusters,
        edges=torch.searchsorted(joined, edges.contiguous()),
        sample_weight=sample_weight,
    ).labels
    labels = found.new_full((len(found), maps[0, 0].numel()), int(found.max()) + 1)
    labels[:, joined.to(maps.device)] = found
    return labels.view(maps.shape[1:])


def _labels_of(
    clusterer: Any, maps: Tensor, sample_weight: Tensor | None, random_state: Any
) -> Tensor:
    """Cluster the pixels of one channel after the other by a clusterer of rows."""
    if sample_weight is not None:  # squared distances are weighted sums over samples
        root = sample_weight.to(maps).sqrt()
        maps = maps * root.view(-1, *[1] * (maps.ndim - 1))
    model, labels = clone(clusterer), []
    seeded = "random_state" in model.get_params()
    if seeded and model.get_params()["random_state"] is None:
        model.set_params(random_state=random_state)
    for rows in maps.flatten(2).permute(1, 2, 0).cpu().double().numpy():
        found = np.zeros(len(rows), np.int64)
        if (rows != rows[0]).any():  # a dead channel is one cluster
            found = np.asarray(getattr(model.fit(rows), "labels_", ()))
        if found.shape != (len(rows),):
            raise ValueError(
                f"clusterer={shown(clusterer)} left labels_ of shape {found.shape} for "
                f"{len(rows)} pixels; give one that clusters rows, such as KMeans(15)."
            )
        labels.append(np.unique(found, return_inverse=True)[1])
    stacked = torch.from_numpy(np.stack(labels)).to(maps.device)
    return stacked.view(maps.shape[1:])


def mean_hopkins(
    maps: Tensor, sample_weight: Tensor | None = None, random_state: Any = None
) -> Tensor:
    """Average each channel's statistic over samples; NaN if constant in all of them."""
    statistic = spatial_hopkins(maps, random_state=random_state)
    known = statistic.isfinite().to(statistic.dtype)
    if sample_weight is not None:
        known = known * sample_weight.to(known)[:, None]
    return (statistic.nan_to_num() * known).sum(0) / known.sum(0)


def count_profiles(maps: Tensor) -> Tensor:
    """Count the distinct pixels of each channel; equal ones are so in all samples."""
    # By hashes of their bits: integers, so that equal pixels have equal hashes on every
    # device. Different pixels share one with a probability of at most 2^-32.
    n_samples, n_channels = maps.shape[:2]
    if maps.dtype != torch.float64:
        maps = maps.to(torch.float32)
    pixels = maps.reshape(n_samples, -1, 1) + 0.0  # no -0.0
    words = pixels.view(torch.int32)
    factors = np.random.default_rng(0).integers(
        2**62, size=(n_samples, words.shape[2]), dtype=np.int64
    )
    hashes = torch.zeros(words.shape[1], dtype=torch.int64, device=maps.device)
    for sample, row in zip(words, factors.tolist(), strict=True):
        for word, factor in zip(sample.T, row, strict=True):
            hashes += word.long() * factor  # modulo 2^64
    ordered = hashes.view(n_channels, -1).sort(1).values
    return (ordered[:, 1:] != ordered[:, :-1]).sum(1) + 1
