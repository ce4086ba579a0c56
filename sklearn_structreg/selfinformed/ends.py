"""The end of a network: what becomes of its logits, and layers that take its place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NoLogits", "Rescaling", "as_logits", "first_tensor", "link_of", "same_end"]

TINY = 1e-7


class Rescaling(nn.Module):
    """A factor and an offset for each class: what learns where no layer classifies."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.in_features = self.out_features = n_classes
        self.weight = nn.Parameter(torch.ones(n_classes))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, logits: Tensor) -> Tensor:
        """Rescale logits, (n, n_classes)."""
        return logits * self.weight + self.bias


class NoLogits(nn.Module):
    """A classifier layer's stand-in: zeros of the same shape for what comes after."""

    zeros: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(1, n_classes), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return zeros, (n, n_classes)."""
        return self.zeros.repeat(input.shape[0], 1)


def first_tensor(result: Any) -> Any:
    """Return the first of several results."""
    return result[0] if isinstance(result, tuple | list) and result else result


def same_end(logits: Tensor, result: Tensor) -> bool:
    """Whether a result is the logits, or follows from them as probabilities do."""
    known = [logits, logits.softmax(1), logits.log_softmax(1)]
    known += [logits.sigmoid(), functional.logsigmoid(logits)]
    return logits.shape == result.shape and any(
        torch.allclose(result, end, rtol=1e-4, atol=1e-6, equal_nan=True)
        for end in known
    )


def link_of(result: Tensor) -> str:
    """Tell probabilities of classes ("softmax") or labels ("logistic") from others."""
    if not ((result >= 0) & (result <= 1)).all():
        return "identity"  # of logits, and of logarithms of probabilities
    sums = result.sum(dim=1)
    return "softmax" if torch.allclose(sums, torch.ones_like(sums)) else "logistic"


def as_logits(result: Tensor, link: str) -> Tensor:
    """Return the logits that probabilities are made of."""
    if link == "softmax":
        return result.clamp_min(TINY).log()
    if link == "logistic":
        inside = result.clamp(TINY, 1 - TINY)
        return inside.log() - (1 - inside).log()
    return result
