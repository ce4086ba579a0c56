"""The masks of Blockout on tensors: draws of memberships, and what they do to weights.

A node set of d nodes and k clusters has memberships C of shape (d, k), with entries 0
and 1 where they are drawn, or between where probabilities stand in for them. All
functions take further leading dimensions, one model each.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["block_mask", "draw_memberships", "masked_linear", "masked_weight"]


def draw_memberships(probabilities: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    r"""Draw memberships, :math:`C \sim B(1, P)`, with the paper's gradient.

    Draws come from torch's default generator of the device.

    Parameters
    ----------
    probabilities : torch.Tensor of shape (..., d, k)
        P, in [0, 1].
    shape : tuple of int, default=()
        Leading dimensions of independent draws.

    Returns
    -------
    torch.Tensor of shape `shape` + (..., d, k)
        Zeros and ones. Backward, the gradient of C is multiplied by C: the clusters
        that were not drawn have none (Eq. 9).

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.blockout import draw_memberships
    >>> draw_memberships(torch.tensor([[0.0, 1.0]]))
    tensor([[0., 1.]])
    """
    drawn = torch.bernoulli(probabilities.detach().expand(*shape, *probabilities.shape))
    if not probabilities.requires_grad:
        return drawn
    # The difference is zero; its gradient is that of P.
    return drawn + drawn * (probabilities - probabilities.detach())


def block_mask(c_out: Tensor, c_in: Tensor, scale: float = 1.0) -> Tensor:
    r"""Return the mask of a weight, :math:`\frac{1}{k} C_{out} C_{in}^T` (Eq. 4).

    Parameters
    ----------
    c_out : torch.Tensor of shape (..., d_out, k)
        Memberships of a layer's outputs.
    c_in : torch.Tensor of shape (..., d_in, k)
        Memberships of its inputs.
    scale : float, default=1.0
        A further factor.

    Returns
    -------
    torch.Tensor of shape (..., d_out, d_in)
        The share of the k clusters that both nodes are in, times `scale`; one exactly
        where both are in all of them.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.blockout import block_mask
    >>> block_mask(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([[0.5000],
            [1.0000]])
    """
    mask = (c_out @ c_in.mT) / c_out.shape[-1]
    return mask if scale == 1 else mask * scale


def masked_weight(
    weight: Tensor, c_out: Tensor, c_in: Tensor, scale: float = 1.0
) -> Tensor:
    r"""Mask a weight, :math:`W = \frac{1}{k} \tilde W \odot C_{out} C_{in}^T` (Eq. 4).

    With probabilities in place of memberships it is the weight of inference, the mean
    over all draws (Eq. 5).

    Parameters
    ----------
    weight : torch.Tensor of shape (..., d_out, d_in)
        The unconstrained weight.
    c_out, c_in, scale
        As in `block_mask`.

    Returns
    -------
    torch.Tensor of shape (..., d_out, d_in)
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

    For a mask of each row's own no weight is masked: the layer is
    :math:`y = \frac{1}{k} \sum_l C_{out}[:, l] \odot \tilde W (C_{in}[:, l] \odot x)`.

    Parameters
    ----------
    x : torch.Tensor of shape (..., d_in)
        Inputs.
    weight : torch.Tensor of shape (d_out, d_in)
        The unconstrained weight.
    bias : torch.Tensor of shape (d_out,) or None
        Never masked.
    c_out : torch.Tensor of shape (d_out, k) or (..., d_out, k)
        Memberships of the outputs, the same for all rows or a row's own.
    c_in : torch.Tensor of shape (d_in, k) or (..., d_in, k)
        Memberships of the inputs, likewise.
    scale : float, default=1.0
        A further factor on the mask.

    Returns
    -------
    torch.Tensor of shape (..., d_out)
    """
    if c_out.ndim == c_in.ndim == 2:
        return functional.linear(x, masked_weight(weight, c_out, c_in, scale), bias)
    within = functional.linear(x.unsqueeze(-2) * c_in.mT, weight)  # (..., k, d_out)
    y = (within * c_out.mT).sum(-2) * (scale / c_out.shape[-1])
    return y if bias is None else y + bias
