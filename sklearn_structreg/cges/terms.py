"""The penalty of one weight: its groups, its constants, and the norm behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["LayerPenalty", "folded_scale", "measured_scale"]

NO_SCALE = 1e-6  # instead of zero, where a channel is switched off


@dataclass(frozen=True)
class LayerPenalty:
    """One weight, its groups, and the factors of its two terms on alpha.

    They are the shares of the terms until the constants of the layer are measured. The
    dimensions of the groups are those of the weight after its first one is split, into
    groups of channels or into gates; `fan_in` is the number of weights of one output.
    Weights count times the scale of the batch normalization `norm` behind them, which
    has the shape `channels`.
    """

    name: str
    group_dims: tuple[int, ...]
    group: float
    exclusive: float
    is_measured: bool = True
    split: tuple[int, ...] = ()
    fan_in: int = 1
    norm: str = ""
    channels: tuple[int, ...] = ()

    def view(self, w: Tensor) -> Tensor:
        """Split the first dimension of the weight, or of a tensor of its shape."""
        return w.view(*self.split, *w.shape[1:]) if self.split else w

    def scale(self, norm: Any) -> Tensor:
        """Return the scale of the batch normalization, for the view of the weight."""
        return folded_scale(norm).reshape(self.channels)

    def folded(self, module: nn.Module) -> Tensor:
        """Return the weight of a network, times the scale behind it."""
        w = self.view(module.get_parameter(self.name).detach())
        return w * self.scale(module.get_submodule(self.norm)) if self.norm else w


def measured_scale(
    gradient: Tensor, dims: tuple[int, ...], penalty: str, fan_in: int
) -> tuple[float, float]:
    """Return a layer's constants a and b, from the gradient of its weight.

    >>> gradient = torch.tensor([[3.0, 0.0], [4.0, 0.0]])
    >>> a, _ = measured_scale(gradient, (-2,), "group", 2)
    >>> round(a**2, 3)  # the mean of 25 and 0
    12.5
    """
    # A penalty of strength 1 then pulls at every group, or weight, about as hard as the
    # data do at the beginning. The exclusive term pulls with b times the 1-norm of the
    # group; torch's initial weights have mean magnitude 1 / (2 sqrt(d)). Beside it, the
    # group term gets a tenth, so that it takes away the groups that the competition has
    # emptied and hardly shrinks the others.
    n_members = math.prod(gradient.shape[d] for d in dims)
    each = float(gradient.square().mean().sqrt())
    of_groups = each * math.sqrt(n_members)
    a = {"l1": each, "cges": 0.1 * of_groups}.get(penalty, of_groups)
    return a, 2.0 * math.sqrt(fan_in) / n_members * each


def folded_scale(norm: _BatchNorm) -> Tensor:
    """Return each channel's factor in a batch normalization, by its running variance.

    The variance of 1 that it starts from is taken out: there may be one step so far.
    """
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    n_batches = norm.num_batches_tracked.to(norm.running_var.dtype)
    kept = (1.0 - (norm.momentum or 1.0)) ** n_batches
    seen = (norm.running_var - kept) / (1.0 - kept)
    variance = torch.where(kept < 1.0, seen, norm.running_var).clamp_(min=0.0)
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().abs()
    return scale.clamp_(min=NO_SCALE)
