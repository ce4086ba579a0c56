"""Find the clusters of feature maps, and the channels that have none."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_structreg.dropcluster.hopkins import spatial_hopkins
from sklearn_structreg.dropcluster.rena import rena

__all__ = ["count_profiles", "find_clusters", "mean_hopkins", "resolve_n_clusters"]

PAPER_CLUSTERS = 15
MIN_PIXELS = 4


def resolve_n_clusters(n_clusters: int | str, n_pixels: int) -> int:
    """Return how many clusters a channel gets.

    Parameters
    ----------
    n_clusters : int or "auto"
        "auto" is the paper's 15, but at most a quarter of the pixels.
    n_pixels : int
        Of a channel.

    Returns
    -------
    int
        0 where "auto" finds fewer than four pixels.

    Raises
    ------
    ValueError
        If more clusters are asked for than there are pixels.

    Examples
    --------
    >>> from sklearn_structreg.dropcluster.clusters import resolve_n_clusters
    >>> [resolve_n_clusters("auto", n) for n in (3, 10, 256)]
    [0, 2, 15]
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
    """Cluster the pixels of every channel, and tell which channels have structure.

    Algorithm 1 of the DropCluster paper, all channels in one call of `rena`.

    Parameters
    ----------
    maps : Tensor of shape (n_samples, n_channels, ...)
        Feature maps of a mini-batch.
    n_clusters : int
        Clusters per channel, from 1 to the number of pixels.
    unstructured : {"auto", "hopkins"} or None, default="auto"
        Which channels are without structure: "auto" those with fewer than `n_clusters`
        different pixels (dead, or nearly), "hopkins" also those whose mean Spatial
        Hopkins statistic is below `hopkins_threshold`, None none.
    hopkins_threshold : float, default=0.55
        Noise has 0.5.
    sample_weight : Tensor of shape (n_samples,), default=None
        0 is an absent sample, 2 is two copies of it.
    random_state : int, RandomState instance or None, default=None
        Draws the pixels of the Hopkins statistic.

    Returns
    -------
    labels : Tensor of int64, shape (n_channels, ...)
        Every channel has clusters 0 to ``n_clusters - 1``.
    structured : Tensor of bool, shape (n_channels,)
        All true where no channel has structure: a net without any channel left would
        predict nothing.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.dropcluster import find_clusters
    >>> maps = torch.tensor([[[0.0, 0.1, 5.0, 5.1], [2.0, 2.0, 2.0, 2.0]],
    ...                      [[1.0, 1.1, 7.0, 7.0], [3.0, 3.0, 3.0, 3.0]]])
    >>> labels, structured = find_clusters(maps, 2)
    >>> labels[0].tolist(), structured.tolist()
    ([0, 0, 1, 1], [True, False])
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
    """Average each channel's Spatial Hopkins statistic over the samples.

    Parameters
    ----------
    maps : Tensor of shape (n_samples, n_channels, ...)
        Feature maps.
    sample_weight : Tensor of shape (n_samples,), default=None
        Weights of the samples.
    random_state : int, RandomState instance or None, default=None
        Draws the pixels.

    Returns
    -------
    Tensor of shape (n_channels,)
        NaN where a channel is constant in every sample.
    """
    statistic = spatial_hopkins(maps, random_state=random_state)
    known = statistic.isfinite().to(statistic.dtype)
    if sample_weight is not None:
        known = known * sample_weight.to(known)[:, None]
    return (statistic.nan_to_num() * known).sum(0) / known.sum(0)


def count_profiles(maps: Tensor) -> Tensor:
    """Count the different pixels of each channel.

    Two pixels are the same if they have equal values in all samples.

    Parameters
    ----------
    maps : Tensor of shape (n_samples, n_channels, ...)
        Finite.

    Returns
    -------
    Tensor of int64, shape (n_channels,)

    Notes
    -----
    Pixels are compared by hashes of their bits: integers, so that equal pixels have
    equal hashes on every device. Different pixels share one with a chance of 2^-32 at
    most.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.dropcluster.clusters import count_profiles
    >>> count_profiles(torch.tensor([[[1.0, 1.0, 2.0]], [[0.0, -0.0, 0.0]]]))
    tensor([2])
    """
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
