"""Evaluate a head only for the samples that it may matter to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklearn_structreg.selfinformed.heads import AugmentedNet

__all__ = ["ConditionalNet"]


class ConditionalNet(nn.Module):
    """An augmented network with the heads of the old network's best classes alone."""

    # The conditional computation of the paper's section 6: a head is evaluated for the
    # samples that have one of its classes among the `top_k` best of the old classifier
    # layer, `gate`. All other classes keep the old network's logits. With one label per
    # sample, the evaluated classes keep the probability that the old network gives them
    # all together; their heads redistribute it.

    def __init__(
        self, net: AugmentedNet, gate: nn.Linear, top_k: int, multilabel: bool = False
    ) -> None:
        super().__init__()
        self.net, self.gate, self.multilabel = net, gate, multilabel
        self.top_k = min(top_k, gate.out_features)

    def forward(self, X: Tensor) -> Tensor:
        """Compute the logits, (n, n_classes)."""
        features, hidden = self.net.extract(X)
        old: Tensor = self.gate(hidden)
        best = old.topk(self.top_k, dim=1).indices
        new: Tensor = self.net.classifier(hidden)
        evaluated = torch.ones_like(new, dtype=torch.bool)
        for group, head in self.net.heads_by_group():
            members = torch.tensor(group, device=best.device)
            wanted = torch.isin(best, members).any(dim=1)
            evaluated[:, members] &= wanted[:, None]
            rows = wanted.nonzero().squeeze(1)
            if len(rows):
                new[rows[:, None], members] += head(features[rows])
        if not self.multilabel:
            new = new + _log_mass(old, evaluated) - _log_mass(new, evaluated)
        return torch.where(evaluated, new, old)


def _log_mass(logits: Tensor, chosen: Tensor) -> Tensor:
    """Sum the exponentials of the chosen logits, (n, 1), as a logarithm."""
    return logits.masked_fill(~chosen, -torch.inf).logsumexp(dim=1, keepdim=True)
