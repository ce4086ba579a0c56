"""The masks of Blockout on tensors: memberships are drawn, and mask weights.

A node set of d nodes and k clusters has memberships C of shape (d, k), with entries 0
and 1 where they are drawn, or between where probabilities stand in for them. All
functions take further leading dimensions, one model each.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sklearn_structreg.core.processes import draw_for_rows
from sklearn_structreg.core.randomness import own_generator

__all__ = [
    "block_mask",
    "draw_memberships",
    "masked_linear",
    "masked_weight",
    "with_gradient",
]


def draw_memberships(probabilities: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    r"""Draw :math:`C \sim B(1, P)` by the generator of the training; `shape` leads."""
    P = probabilities.detach()

    def draw(shape: tuple[int, ...]) -> Tensor:
        source = own_generator(P.device)
        return torch.bernoulli(P.expand(*shape, *P.shape), generator=source)

    return draw_for_rows(draw, shape)


def with_gradient(drawn: Tensor, probabilities: Tensor, gradient: str) -> Tensor:
    """Attach a gradient to drawn memberships: that of P, "paper" times C (Eq. 9)."""
    if not probabilities.requires_grad:
        return drawn
    none = probabilities - probabilities.detach()  # zero, with the gradient of P
    return drawn + (drawn * none if gradient == "paper" else none)


def block_mask(c_out: Tensor, c_in: Tensor, scale: float = 1.0) -> Tensor:
    r"""Return the mask of a weight, :math:`\frac{s}{k} C_{out} C_{in}^T` (Eq. 4).

    Without a scale it is exactly one where both nodes are in all clusters.
    """
    mask = (c_out @ c_in.mT) / c_out.shape[-1]
    return mask if scale == 1 else mask * scale


def masked_weight(
    weight: Tensor, c_out: Tensor, c_in: Tensor, scale: float = 1.0
) -> Tensor:
    r"""Mask a weight: :math:`W = \frac{s}{k} \tilde W \odot C_{out} C_{in}^T` (Eq. 4).

    With probabilities in place of memberships it is the weight of inference, the mean
    over all draws (Eq. 5).
    """
    return weight * block_mask(c_out, c_in, scale)


def masked_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    c_out: Tensor,
    c_in: Tensor,
    scale: float = 1.0,
) -> Tensor:
    r"""Apply a masked linear layer, with one mask for all rows or one for each.

    Memberships are of shape (d, k), or (..., d, k) where each row has its own. Then no
    weight is masked: the layer is
    :math:`y = \frac{s}{k} \sum_l C_{out}[:, l] \odot \tilde W (C_{in}[:, l] \odot x)`.
    """
    if c_out.ndim == c_in.ndim == 2:
        return functional.linear(x, masked_weight(weight, c_out, c_in, scale), bias)
    within = functional.linear(x.unsqueeze(-2) * c_in.mT, weight)  # (..., k, d_out)
    y = (within * c_out.mT).sum(-2) * (scale / c_out.shape[-1])
    return y if bias is None else y + bias
