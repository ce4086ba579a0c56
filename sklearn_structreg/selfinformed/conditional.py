"""Evaluate a head only for the samples that it may matter to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklearn_structreg.selfinformed.heads import AugmentedNet

__all__ = ["ConditionalNet"]


class ConditionalNet(nn.Module):
    """An augmented network that asks the old one which heads a sample needs.

    A head is evaluated for the samples that have one of its classes among the old
    network's best: the conditional computation of the paper's section 6. All other
    classes keep the old network's logits. With one label per sample the evaluated
    classes keep the probability that the old network gives them all together; their
    heads share it out anew.

    Parameters
    ----------
    net : AugmentedNet
        The network; it is used, not copied.
    gate : torch.nn.Linear
        The old network's classifier layer.
    top_k : int
        How many of the old network's best classes to look at.
    multilabel : bool, default=False
        Whether the outputs are logistic units, each with a probability of its own.

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
    >>> conditional = ConditionalNet(net, gate, 4)
    >>> torch.allclose(conditional(x).softmax(1), net(x).softmax(1), atol=1e-6)
    True
    """

    def __init__(
        self, net: AugmentedNet, gate: nn.Linear, top_k: int, multilabel: bool = False
    ) -> None:
        super().__init__()
        self.net, self.gate, self.multilabel = net, gate, multilabel
        self.top_k = min(top_k, gate.out_features)

    def forward(self, X: Tensor) -> Tensor:
        """Return the logits, (n, n_classes)."""
        features, hidden = self.net.extract(X)
        old: Tensor = self.gate(hidden)
        best = old.topk(self.top_k, dim=1).indices
        new: Tensor = self.net.classifier(hidden)
        evaluated = torch.ones_like(new, dtype=torch.bool)
        for heads in self.net.rounds:
            for group, head in zip(heads.groups, heads.heads, strict=True):  # type: ignore[arg-type]
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
    """Return the logarithm of what the chosen classes weigh together, (n, 1)."""
    return logits.masked_fill(~chosen, -torch.inf).logsumexp(dim=1, keepdim=True)
