"""Losses that take sample weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["WeightedCrossEntropy"]


class WeightedCrossEntropy(nn.CrossEntropyLoss):
    """Mean of weight times cross entropy over the rows of a mini-batch.

    The weights have mean one over the training set, so dividing by the number of rows
    keeps every mini-batch's gradient an unbiased estimate of the weighted one, and a
    batch that holds the whole set gives the weighted mean itself.
    """

    def forward(  # noqa: D102 (inherited)
        self, logits: Tensor, target: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        if weight is None:
            return functional.cross_entropy(logits, target)
        losses = functional.cross_entropy(logits, target, reduction="none")
        return (losses * weight).mean()
