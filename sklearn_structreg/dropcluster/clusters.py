"""Find the clusters of feature maps, and the channels without structure."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_structreg.dropcluster.hopkins import spatial_hopkins
from sklearn_structreg.dropcluster.rena import rena

__all__ = ["count_profiles", "find_clusters", "mean_hopkins", "resolve_clusters"]

PAPER_CLUSTERS = 15
MIN_PIXELS = 4


def resolve_clusters(n_clusters: int | str, n_pixels: int) -> int:
    """Return the number of clusters of a channel, or raise if the pixels are fewer.

    "auto" is the paper's 15, at most a quarter of the pixels: 0 below four of them.
    """
    if isinstance(n_clusters, str):
        return min(PAPER_CLUSTERS, n_pixels // MIN_PIXELS)
    if n_clusters > n_pixels:
        raise ValueError(
            f"n_clusters={n_clusters} is more than the {n_pixels} pixels of a channel; "
            "give fewer, or n_clusters='auto'."
        )
    return int(n_clusters)


@torch.no_grad()
def find_clusters(
    maps: Tensor,
    n_clusters: int,
    *,
    unstructured: str | None = "auto",
    hopkins_threshold: float = 0.55,
    sample_weight: Tensor | None = None,
    random_state: Any = None,
) -> tuple[Tensor, Tensor]:
    """Cluster the pixels of every channel, and find the channels with structure.

    Algorithm 1 of the DropCluster paper, with all channels of the maps, (n_samples,
    n_channels, ...), in one call of `rena`. All channels count as structured where none
    is: a net without any channel left would predict nothing.
    """
    if sample_weight is not None:
        present = sample_weight > 0
        maps, sample_weight = maps[present], sample_weight[present]
    labels = rena(maps, n_clusters, sample_weight=sample_weight).labels
    structured = torch.ones(len(labels), dtype=torch.bool, device=maps.device)
    if unstructured is not None:
        structured &= count_profiles(maps) >= n_clusters
    if unstructured == "hopkins":
        statistic = mean_hopkins(maps, sample_weight, random_state)
        structured &= statistic >= hopkins_threshold  # false for NaN
    return labels, structured if bool(structured.any()) else ~structured


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
