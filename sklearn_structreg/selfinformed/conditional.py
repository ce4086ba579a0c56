"""Predict with all heads, or with each one only where it may matter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklearn_structreg.selfinformed.batched import batched
from sklearn_structreg.selfinformed.ends import Rescaling
from sklearn_structreg.selfinformed.heads import AugmentedNet

__all__ = ["ConditionalNet", "PredictingNet"]


class PredictingNet(nn.Module):
    """An augmented network with all of a round's heads in one product, if possible."""

    def __init__(self, net: AugmentedNet) -> None:
        super().__init__()
        self.net = net
        self.added = [
            (heads.place, batched(heads) or heads) for heads in net.head_rounds()
        ]

    def forward(self, X: Tensor) -> Tensor:
        """Compute the logits, (n, n_classes)."""
        features, hidden = self.net.extract(X)
        logits: Tensor = self.net.classifier(hidden)
        for place, heads in self.added:
            logits = logits + heads(features[place])
        return logits


class ConditionalNet(nn.Module):
    """An augmented network with the heads of the old network's best classes alone."""

    # The conditional computation of the paper's section 6: a head is evaluated for the
    # samples that have one of its classes among the `top_k` best of the old classifier
    # layer, `gate`. All other classes keep the old network's logits. With one label per
    # sample, the evaluated classes keep the probability that the old network gives them
    # all together; their heads redistribute it. Heads run one by one where the work is
    # to be `counted`: a product of all heads has rows that stand for nothing.

    def __init__(
        self,
        net: AugmentedNet,
        gate: nn.Linear | Rescaling,
        top_k: int,
        multilabel: bool = False,
        counted: bool = False,
    ) -> None:
        super().__init__()
        self.net, self.gate, self.multilabel = net, gate, multilabel
        self.top_k = min(top_k, gate.out_features)
        self.rounds = [
            (
                heads.place,
                heads.group_of(),
                heads if counted else batched(heads) or heads,
            )
            for heads in net.head_rounds()
        ]

    def forward(self, X: Tensor) -> Tensor:
        """Compute the logits, (n, n_classes)."""
        features, hidden = self.net.extract(X)
        old: Tensor = self.gate(hidden)
        best = old.topk(self.top_k, dim=1).indices
        logits: Tensor = self.net.classifier(hidden)
        # A column after the last class takes what fills products up.
        new = torch.cat([logits, logits.new_zeros(len(X), 1)], dim=1)
        evaluated = torch.ones_like(logits, dtype=torch.bool)
        for place, group_of, heads in self.rounds:
            wanted = logits.new_zeros(len(X), heads.n_groups, dtype=torch.bool)
            wanted.scatter_(1, group_of[best], True)
            evaluated &= wanted[:, group_of]
            heads.add_some(new, features[place], wanted)
        new = new[:, :-1]
        if not self.multilabel:
            new = new + _log_mass(old, evaluated) - _log_mass(new, evaluated)
        return torch.where(evaluated, new, old)


def _log_mass(logits: Tensor, chosen: Tensor) -> Tensor:
    """Sum the exponentials of the chosen logits, (n, 1), as a logarithm."""
    return logits.masked_fill(~chosen, -torch.inf).logsumexp(dim=1, keepdim=True)
