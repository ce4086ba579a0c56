"""Losses that take sample weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["WeightedBinaryCrossEntropy", "WeightedCrossEntropy"]


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


class WeightedBinaryCrossEntropy(nn.BCEWithLogitsLoss):
    """The same for logistic units: each row's binary cross entropies are summed."""

    def forward(  # noqa: D102 (inherited)
        self, logits: Tensor, target: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        losses = functional.binary_cross_entropy_with_logits(
            logits, target.to(logits.dtype), reduction="none"
        ).sum(dim=1)
        return (losses if weight is None else losses * weight).mean()
