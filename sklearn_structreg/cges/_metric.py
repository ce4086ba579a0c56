"""The operators in a metric: a positive factor for each weight's squared distance.

With metric d the operator of a penalty P sends w to the x with the smallest
P(x) + sum_i d_i (x_i - w_i)^2 / 2. Of the two operators on groups the exclusive one
comes first here: in a metric they do not commute.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sklearn_structreg.cges._loops import MAX_STEPS
from sklearn_structreg.cges._thresholds import Strength

__all__ = ["check_metric", "group_factor", "shrink_in_metric"]


def check_metric(metric: Tensor, w: Tensor) -> Tensor:
    """Validate a metric: a positive, finite factor for each weight."""
    if metric.shape != w.shape or not metric.is_floating_point():
        raise ValueError(
            f"metric must hold a floating-point number for each weight; got "
            f"{metric.dtype} of shape {tuple(metric.shape)} for weights of shape "
            f"{tuple(w.shape)}."
        )
    low, high = torch.aminmax(metric.detach()) if metric.numel() else (1.0, 1.0)
    if not 0.0 < float(low) <= float(high) < math.inf:
        raise ValueError(
            f"metric must be positive and finite; it reaches from {float(low):g} to "
            f"{float(high):g}."
        )
    return metric.detach().to(w.device, torch.float64)


def shrink_in_metric(
    w: Tensor,
    metric: Tensor,
    group: Strength | None,
    exclusive: Strength | None,
    dim: int | tuple[int, ...],
    exact: bool,
) -> Tensor:
    """Apply the exclusive operator and then the group one, in double precision."""
    magnitude = w.detach().abs().double()
    if exclusive is not None:
        strength = _double(exclusive.value, magnitude)
        magnitude = _compete(magnitude, strength / metric, dim, exact)
    if group is not None:
        threshold = _double(group.value, magnitude)
        magnitude = magnitude * group_factor(magnitude, threshold, dim, metric)
    return torch.copysign(magnitude, w).to(w.dtype) + 0.0  # no -0.0


def _double(value: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device=like.device)


def _compete(
    magnitude: Tensor, rate: Tensor, dim: int | tuple[int, ...], exact: bool
) -> Tensor:
    """Take tau times its rate off each magnitude; tau is the 1-norm of the result."""
    # sum_i (|w_i| - tau r_i)_+ = tau is convex and piecewise linear in tau: Newton's
    # steps from 0 increase tau, and end once the number of active members stays.
    tau = torch.zeros_like(magnitude.sum(dim, keepdim=True))
    if not exact:
        tau = magnitude.sum(dim, keepdim=True)
    n_before = torch.full_like(tau, -1.0)
    while exact:
        active = magnitude > tau * rate
        n_active = active.sum(dim, keepdim=True).double()
        if torch.equal(n_active, n_before):
            break
        total = torch.where(active, magnitude, 0.0).sum(dim, keepdim=True)
        rates = torch.where(active, rate, 0.0).sum(dim, keepdim=True)
        tau, n_before = torch.maximum(tau, total / (1.0 + rates)), n_active
    return (magnitude - tau * rate).relu_()


def group_factor(
    magnitude: Tensor, threshold: Tensor, dim: int | tuple[int, ...], metric: Tensor
) -> Tensor:
    """Return the factor of each weight, ``d n / (d n + t)``, n the norm of its group.

    The norm of the result solves the secular equation || w / (n + t / d) || = 1.
    """
    # Newton's steps for the inverse of the left-hand side increase n from any value
    # below the root, as for a trust region: from | w | - s with s the mean of t / d,
    # weighted by w^2 (Jensen's inequality). A threshold of 0 leaves the group alone.
    off, positive = threshold == 0, torch.where(threshold == 0, 1.0, threshold)
    shift = positive / metric
    size = torch.linalg.vector_norm(magnitude, dim=dim, keepdim=True)
    square = torch.where(size > 0, size * size, 1.0)
    mean = (magnitude * magnitude * shift).sum(dim, keepdim=True) / square
    norm = (size - mean).relu_()
    alive = torch.linalg.vector_norm(magnitude / shift, dim=dim, keepdim=True) > 1.0
    for _ in range(MAX_STEPS):
        scaled = magnitude / (norm + shift)
        q = torch.linalg.vector_norm(scaled, dim=dim, keepdim=True)
        slope = (scaled * scaled / (norm + shift)).sum(dim, keepdim=True)
        step = torch.where(alive, (q - 1.0) * (q * q) / slope, 0.0).relu_()
        norm = norm + step
        if bool((step <= 4e-16 * norm).all()):
            break
    factor = torch.where(alive, norm / (norm + shift), 0.0)
    return torch.where(off, 1.0, factor)
