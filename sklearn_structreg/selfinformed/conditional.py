"""Predict with all heads, or with each one only where it may matter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklearn_structreg.selfinformed.batched import batched
from sklearn_structreg.selfinformed.ends import Rescaling
from sklearn_structreg.selfinformed.heads import AugmentedNet
from sklearn_structreg.selfinformed.plain import PlainNet

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
        return _joined(old, new[:, :-1], evaluated, self.multilabel)

    def simplified(self) -> nn.Module:
        """Make a network of the same logits that runs all heads, without branches."""
        groups = [group_of for _, group_of, _ in self.rounds]
        plain = self.net.simplified()
        return _PlainConditionalNet(
            plain, self.gate, groups, self.top_k, self.multilabel
        )


class _PlainConditionalNet(nn.Module):
    """The same function in operations that can be exported."""

    together: Tensor

    def __init__(
        self,
        plain: PlainNet,
        gate: nn.Linear | Rescaling,
        groups: list[Tensor],
        top_k: int,
        multilabel: bool,
    ) -> None:
        super().__init__()
        self.plain, self.gate = plain, gate
        self.top_k, self.multilabel = top_k, multilabel
        same = [group_of[:, None] == group_of for group_of in groups]
        self.register_buffer("together", torch.stack(same).to(gate.weight))

    def forward(self, X: Tensor) -> Tensor:
        """Compute the logits, (n, n_classes)."""
        hidden, new = self.plain.run(X)
        old: Tensor = self.gate(hidden)
        best = torch.zeros_like(old).scatter(1, old.topk(self.top_k).indices, 1.0)
        evaluated = (best @ self.together > 0).all(dim=0)
        return _joined(old, new, evaluated, self.multilabel)


def _joined(old: Tensor, new: Tensor, evaluated: Tensor, multilabel: bool) -> Tensor:
    """Take the new logits of the evaluated classes, with the old probability of all."""
    if not multilabel:
        new = new + _log_mass(old, evaluated) - _log_mass(new, evaluated)
    return torch.where(evaluated, new, old)


def _log_mass(logits: Tensor, chosen: Tensor) -> Tensor:
    """Sum the exponentials of the chosen logits, (n, 1), as a logarithm."""
    return logits.masked_fill(~chosen, -torch.inf).logsumexp(dim=1, keepdim=True)
