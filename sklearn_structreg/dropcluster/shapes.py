"""Checks that the dropping layers share."""

from __future__ import annotations

from torch import Tensor

__all__ = ["as_maps", "check_drop_rate"]

AXES = {1: "length", 2: "height, width", 3: "depth, height, width"}


def as_maps(x: Tensor, n_dims: int) -> Tensor:
    """View a mini-batch as feature maps; flat rows are signals of one channel.

    Parameters
    ----------
    x : Tensor of shape (n, n_channels, ...) or (n, length)
        The mini-batch.
    n_dims : int
        Spatial dimensions.

    Returns
    -------
    Tensor of shape (n, n_channels, ...)

    Raises
    ------
    ValueError
        If `x` has another number of dimensions.
    """
    if n_dims == 1 and x.ndim == 2:
        return x[:, None]
    if x.ndim != n_dims + 2:
        raise ValueError(
            f"A mini-batch of shape {tuple(x.shape)} came to a layer for "
            f"(n, n_channels, {AXES[n_dims]}); use the layer for "
            f"{max(x.ndim - 2, 0)} spatial dimension(s), or reshape."
        )
    return x


def check_drop_rate(drop_rate: float) -> float:
    """Return a rate in [0, 1), or raise."""
    if not 0 <= drop_rate < 1:
        raise ValueError(f"drop_rate={drop_rate} must be at least 0 and below 1.")
    return float(drop_rate)
