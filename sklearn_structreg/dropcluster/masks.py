"""Masks over clusters of pixels: Algorithm 2 of the DropCluster paper, on tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sklearn_structreg.core.randomness import own_generator

__all__ = ["cluster_mask", "draw_clusters"]

CPU = torch.device("cpu")


def draw_clusters(
    n_channels: int,
    n_clusters: int,
    drop_rate: float,
    rounding: str = "stochastic",
    device: torch.device = CPU,
) -> Tensor:
    """Draw the clusters that stay, bool (n_channels, n_clusters); line 6.

    All sets of as many clusters are equally likely, and channels are independent.
    """
    expected = round(drop_rate * n_clusters, 9)  # 0.29 * 100 is 28.999999999999996
    whole = math.floor(expected)
    # The ranks of random numbers are a random permutation: the lowest ones go.
    source = own_generator(device)
    rank = torch.rand(n_channels, n_clusters, device=device, generator=source)
    rank = rank.argsort(1)
    if rounding == "down" or whole == expected:
        return rank >= whole
    more = torch.rand(n_channels, 1, device=device, generator=source)
    return rank >= whole + (more < expected - whole).long()


def cluster_mask(
    kept: Tensor, labels: Tensor, sizes: Tensor, structured: Tensor
) -> Tensor:
    """Turn the clusters that stay into a mask over pixels, float32 (n_channels, ...).

    Its mean over the structured channels is one, or zero if nothing is left. The factor
    of line 14, pixels over pixels kept, does not count the other channels: these are
    zero in inference as well, so counting them would make activations grow with each.
    """
    kept = kept & structured[:, None]
    n_pixels = structured.sum() * labels[0].numel()
    n_kept = (sizes * kept).sum()
    factor = n_pixels / n_kept.clamp_min(1)
    return (kept * factor).gather(1, labels.flatten(1)).view(labels.shape)
