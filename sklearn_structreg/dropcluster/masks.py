"""What to drop: masks over clusters of pixels and over blocks of them, on tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["block_mask", "block_seed_rate", "cluster_mask", "draw_clusters"]

_POOLS = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


def draw_clusters(
    n_channels: int,
    n_clusters: int,
    drop_rate: float,
    draw: str = "stochastic",
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw which clusters of each channel stay, by torch's global generator.

    Algorithm 2, line 6, of the DropCluster paper: all sets of as many clusters are
    equally likely, and channels are independent.

    Parameters
    ----------
    n_channels, n_clusters : int
        Channels, and clusters of each.
    drop_rate : float in [0, 1)
        Share p of the clusters to drop.
    draw : {"stochastic", "floor"}, default="stochastic"
        How many of the n clusters go. "stochastic" rounds p n up or down at random, so
        that its expectation is p n; "floor" takes the integer below, as the paper does.
    device : torch.device or str, default="cpu"
        Where to draw.

    Returns
    -------
    Tensor of bool, shape (n_channels, n_clusters)
        True is kept.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.dropcluster.masks import draw_clusters
    >>> _ = torch.manual_seed(0)
    >>> draw_clusters(3, 8, 0.25).sum(dim=1)
    tensor([6, 6, 6])
    """
    expected = round(drop_rate * n_clusters, 9)  # 0.29 * 100 is 28.999999999999996
    whole = math.floor(expected)
    # The ranks of random numbers are a random permutation: the lowest ones go.
    rank = torch.rand(n_channels, n_clusters, device=device).argsort(1)
    if draw == "floor" or whole == expected:
        return rank >= whole
    more = torch.rand(n_channels, 1, device=device) < expected - whole
    return rank >= whole + more.long()


def cluster_mask(
    kept: Tensor, labels: Tensor, sizes: Tensor, structured: Tensor
) -> Tensor:
    """Turn kept clusters into a mask over pixels whose mean is one.

    Algorithm 2 of the DropCluster paper. The factor of its line 14, pixels over pixels
    kept, counts structured channels alone: counting the others, which are zero in
    inference as well, would make activations grow with each channel that is masked.

    Parameters
    ----------
    kept : Tensor of bool, shape (n_channels, n_clusters)
        The clusters that stay.
    labels : Tensor of int64, shape (n_channels, ...)
        Cluster of each pixel.
    sizes : Tensor of int64, shape (n_channels, n_clusters)
        Pixels of each cluster.
    structured : Tensor of bool, shape (n_channels,)
        Channels that are not masked altogether.

    Returns
    -------
    Tensor of float32, shape (n_channels, ...)
        Zero or the factor. All zero if nothing is left.
    """
    kept = kept & structured[:, None]
    n_pixels = structured.sum() * labels[0].numel()
    n_kept = (sizes * kept).sum()
    factor = n_pixels / n_kept.clamp_min(1)
    return (kept * factor).gather(1, labels.flatten(1)).view(labels.shape)


def block_seed_rate(
    drop_rate: float, block: Sequence[int], shape: Sequence[int]
) -> float:
    """Return the probability of a block to start at a pixel, gamma of DropBlock.

    Equation 1 of Ghiasi, Lin, Le, "DropBlock: A regularization method for convolutional
    networks" (2018), for maps and blocks of any sides. It makes the expected sum of the
    blocks' sizes the share `drop_rate` of the pixels; where blocks overlap, less is
    dropped.

    Parameters
    ----------
    drop_rate : float in [0, 1)
        Share of pixels.
    block, shape : sequence of int
        Sides of a block, none longer than the map's, and of the map.

    Returns
    -------
    float
        In [0, 1).

    Examples
    --------
    >>> from sklearn_structreg.dropcluster.masks import block_seed_rate
    >>> block_seed_rate(0.25, (1, 1), (4, 7))
    0.25
    >>> block_seed_rate(0.18, (3, 3), (5, 5))
    0.055...
    """
    places = [side - b + 1 for side, b in zip(shape, block, strict=True)]
    return drop_rate * math.prod(shape) / (math.prod(block) * math.prod(places))


def block_mask(seeds: Tensor, block: Sequence[int]) -> Tensor:
    """Grow seeds, a block's first corner each, to the pixels that stay.

    Parameters
    ----------
    seeds : Tensor of shape (n, n_channels, *places)
        One where a block starts, else zero: `places` are the map's sides less those of
        a block, plus one, so that every block lies within the map.
    block : sequence of int
        Sides of a block, odd or even.

    Returns
    -------
    Tensor of shape (n, n_channels, *shape)
        One for pixels outside of all blocks, else zero.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.dropcluster.masks import block_mask
    >>> block_mask(torch.tensor([[[0.0, 1.0, 0.0, 0.0]]]), (2,))
    tensor([[[1., 0., 0., 1., 1.]]])
    """
    margins = [side - 1 for side in reversed(block) for _ in range(2)]
    padded = functional.pad(seeds, margins)
    return 1 - _POOLS[len(block)](padded, tuple(block), stride=1)
