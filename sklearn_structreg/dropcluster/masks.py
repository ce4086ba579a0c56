"""Masks over clusters of pixels: Algorithm 2 of the DropCluster paper, on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from sklearn_structreg.core.randomness import own_generator

__all__ = ["KEPT", "cluster_mask", "draw_clusters"]

KEPT = 2
"""Clusters of a channel that stay in every draw, so that it is never all zeros."""


def draw_clusters(
    present: Tensor,
    drop_rate: float,
    rounding: str = "stochastic",
    shape: tuple[int, ...] = (),
) -> Tensor:
    """Draw the clusters that stay, bool (*shape, n_channels, n_clusters); line 6.

    `present` (n_channels, n_clusters) are the clusters that a channel has. All sets of
    as many of them are equally likely, and channels are independent.
    """
    device, source = present.device, own_generator(present.device)
    n_clusters = present.sum(1, keepdim=True)
    # In double precision no two numbers are equal, but 0.29 * 100 is 28.9999...
    expected = (drop_rate * n_clusters.double()).round(decimals=9)
    n_dropped = expected.floor()
    size = *shape, *present.shape
    order = torch.rand(size, dtype=torch.float64, device=device, generator=source)
    order = order.masked_fill(~present, 2.0)
    if rounding != "down":
        more = torch.rand(*size[:-1], 1, device=device, generator=source)
        n_dropped = n_dropped + (more < expected - n_dropped)
    n_dropped = n_dropped.minimum((n_clusters - KEPT).clamp_min(0).double()).long()
    last = order.sort(-1).values.gather(
        -1, (n_dropped - 1).clamp_min(0).expand(*size[:-1], 1)
    )
    return (order > last) | (n_dropped == 0)


def cluster_mask(
    kept: Tensor, labels: Tensor, sizes: Tensor, structured: Tensor
) -> Tensor:
    """Turn the clusters that stay into masks over pixels, float32 (..., n_channels, *).

    Their mean over the structured channels is one. The factor of line 14, pixels over
    pixels kept, does not count the other channels: these are zero in inference as well,
    so counting them would make activations grow with each.
    """
    kept = kept & structured[:, None]
    n_draws = kept.shape[:-2].numel()
    n_pixels = n_draws * structured.sum() * labels[0].numel()
    factor = n_pixels / (sizes * kept).sum().clamp_min(1)
    flat = labels.flatten(1).expand(*kept.shape[:-1], labels[0].numel())
    return (kept * factor).gather(-1, flat).view(*kept.shape[:-2], *labels.shape)
