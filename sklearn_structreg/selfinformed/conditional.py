"""Evaluate a head only for the samples that it may matter to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklearn_structreg.selfinformed.heads import AugmentedNet

__all__ = ["ConditionalNet"]


class ConditionalNet(nn.Module):
    """An augmented network that asks the old one which heads a sample needs.

    A head is evaluated for the samples that have one of its classes among the old
    network's best; to the logits of the others it adds nothing. This is the
    conditional computation of the paper's section 6.

    Parameters
    ----------
    net : AugmentedNet
        The network; it is used, not copied.
    gate : torch.nn.Linear
        The old network's classifier layer.
    top_k : int
        How many of the old network's best classes to look at.

    Examples
    --------
    With as many as there are classes, all heads are evaluated:

    >>> import torch
    >>> from sklearn_structreg.core import make_mlp
    >>> from sklearn_structreg.selfinformed.attach import find_junction
    >>> base, x = make_mlp(8, 4, (16,)), torch.randn(5, 8)
    >>> net = AugmentedNet(base, find_junction(base, x, 4, "auto"))
    >>> gate = net.classifier
    >>> net.add_heads([[0, 2], [1, 3]], [(5,), (5,)], seed=0)
    >>> torch.allclose(ConditionalNet(net, gate, 4)(x), net(x), atol=1e-6)
    True
    """

    def __init__(self, net: AugmentedNet, gate: nn.Linear, top_k: int) -> None:
        super().__init__()
        self.net, self.gate = net, gate
        self.top_k = min(top_k, gate.out_features)

    def forward(self, X: Tensor) -> Tensor:
        """Return the logits, (n, n_classes)."""
        features, hidden = self.net.extract(X)
        best = self.gate(hidden).topk(self.top_k, dim=1).indices
        logits: Tensor = self.net.classifier(hidden)
        for heads in self.net.rounds:
            for group, head in zip(heads.groups, heads.heads, strict=True):  # type: ignore[arg-type]
                members = torch.tensor(group, device=best.device)
                rows = torch.isin(best, members).any(dim=1).nonzero().squeeze(1)
                if len(rows):
                    logits[rows[:, None], members] += head(features[rows])
        return logits
