"""The augmented network: an old one, frozen, with specialist heads beside it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sklearn_structreg.core import make_mlp
from sklearn_structreg.core.randomness import BUILD_LOCK, seeded
from sklearn_structreg.selfinformed.attach import (
    Junction,
    capture,
    take_classifier,
)

__all__ = ["AugmentedNet", "Head", "HeadRound"]


class Head(nn.Module):
    """A stack of ReLU layers that feeds the outputs of one group of classes.

    Parameters
    ----------
    n_features : int
        What it reads.
    layer_sizes : sequence of int
        Units per hidden layer; empty is a linear head.
    n_outputs : int
        Classes in the group.

    Examples
    --------
    >>> Head(64, (32,), 3)
    Head(
      (hidden): Sequential(
        (0): Linear(in_features=64, out_features=32, bias=True)
        (1): ReLU()
      )
      (output): Linear(in_features=32, out_features=3, bias=False)
    )
    """

    def __init__(
        self, n_features: int, layer_sizes: Sequence[int], n_outputs: int
    ) -> None:
        super().__init__()
        n_units = layer_sizes[-1] if len(layer_sizes) else n_features
        self.hidden = make_mlp(n_features, 1, layer_sizes)[:-1]
        # The classifier layer has a bias already.
        self.output = nn.Linear(n_units, n_outputs, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return what the head adds to the logits of its group, (n, n_outputs)."""
        added: Tensor = self.output(self.hidden(features))
        return added


class HeadRound(nn.Module):
    """The heads of one partition: every class is an output of exactly one of them.

    Parameters
    ----------
    n_features : int
        What the heads read.
    groups : sequence of sequence of int
        The class numbers of each group; together all classes, each once.
    layer_sizes : sequence of sequence of int
        The hidden layers of each head.
    """

    columns: Tensor

    def __init__(
        self,
        n_features: int,
        groups: Sequence[Sequence[int]],
        layer_sizes: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        self.groups = [[int(index) for index in group] for group in groups]
        self.heads = nn.ModuleList(
            Head(n_features, sizes, len(group))
            for group, sizes in zip(self.groups, layer_sizes, strict=True)
        )
        together = torch.tensor([index for group in self.groups for index in group])
        self.register_buffer("columns", together.argsort())

    def forward(self, features: Tensor) -> Tensor:
        """Return what the heads add to the logits, (n, n_classes)."""
        added = torch.cat([head(features) for head in self.heads], dim=1)
        return added.index_select(1, self.columns)


class AugmentedNet(nn.Module):
    """A trained network and its specialist heads; without any, the old network.

    The logits are the classifier layer's, on what the old network's last hidden layer
    gives, plus those of each round's heads. Everything that makes logits is retrained
    when heads are added; all other old weights stay as they are, in evaluation mode.

    Parameters
    ----------
    base : torch.nn.Module
        The trained network; it is copied.
    junction : Junction
        Where the heads attach and which layer classifies.

    Attributes
    ----------
    trunk : torch.nn.Module
        The old network without its classifier layer.
    classifier : torch.nn.Linear
        The classifier layer: the old one, until heads are added.
    rounds : torch.nn.ModuleList
        A `HeadRound` for every partition.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.core import make_mlp
    >>> from sklearn_structreg.selfinformed.attach import find_junction
    >>> base, x = make_mlp(8, 4, (16,)), torch.ones(2, 8)
    >>> net = AugmentedNet(base, find_junction(base, x, 4, "auto"))
    >>> torch.equal(net(x), base(x))
    True
    >>> net.add_heads([[0, 2], [1, 3]], [(5,), (5,)], seed=0)
    >>> sorted({name.split(".")[0] for name, p in net.named_parameters()
    ...         if p.requires_grad})
    ['classifier', 'rounds']
    """

    def __init__(self, base: nn.Module, junction: Junction) -> None:
        super().__init__()
        self.junction = junction
        self.trunk, self.classifier = take_classifier(
            copy.deepcopy(base), junction.classifier
        )
        self.rounds = nn.ModuleList()
        self.frozen = False
        self._reads_features = False

    def forward(self, X: Tensor) -> Tensor:
        """Return the logits, (n, n_classes)."""
        features, hidden = self._split(X) if self._reads_features else self.extract(X)
        return self.decide(features, hidden)

    def extract(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Run the trunk: what the heads read, and what the classifier layer reads."""
        with capture(self.trunk, self.junction) as captured:
            self.trunk(X)
        return captured["features"], captured["hidden"]

    def decide(self, features: Tensor, hidden: Tensor) -> Tensor:
        """Return the logits that classifier layer and heads make of the features."""
        logits: Tensor = self.classifier(hidden)
        for heads in self.rounds:
            logits = logits + heads(features)
        return logits

    def add_heads(
        self,
        groups: Sequence[Sequence[int]],
        layer_sizes: Sequence[Sequence[int]],
        *,
        seed: int,
    ) -> None:
        """Freeze what there is, add heads, and make everything before the logits new.

        Parameters
        ----------
        groups : sequence of sequence of int
            The class numbers of each group; together all classes, each once.
        layer_sizes : sequence of sequence of int
            The hidden layers of each head.
        seed : int
            Of the new weights, drawn on the CPU.
        """
        old = self.classifier
        with BUILD_LOCK, seeded(seed, torch.device("cpu")):
            classifier = nn.Linear(old.in_features, old.out_features)
            heads = HeadRound(self.junction.n_features, groups, layer_sizes)
            outputs = [
                nn.Linear(head.output.in_features, head.output.out_features, bias=False)
                for before in self.rounds
                for head in before.heads  # type: ignore[union-attr]
            ]
        device, dtype = old.weight.device, old.weight.dtype
        self.requires_grad_(False)
        for before in self.rounds:
            for head in before.heads:  # type: ignore[union-attr]
                head.output = outputs.pop(0).to(device, dtype)
        self.classifier = classifier.to(device, dtype)
        self.rounds.append(heads.to(device, dtype))
        self.frozen = True
        self.train(self.training)

    def unfreeze(self) -> None:
        """Let all weights learn, for fine-tuning."""
        self.requires_grad_(True)
        self.frozen = False

    def train(self, mode: bool = True) -> AugmentedNet:
        """Set the mode; a frozen trunk stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    # ---- the trunk's results, kept ---------------------------------------------

    def join(self, X: Tensor) -> Tensor:
        """Return all that is needed of the trunk as one row per sample."""
        features, hidden = self.extract(X)
        return hidden if self.junction.shared else torch.cat([features, hidden], dim=1)

    @contextmanager
    def reading_features(self, does: bool = True) -> Iterator[None]:
        """Take rows made by `join` for samples, inside of this context."""
        before, self._reads_features = self._reads_features, does
        try:
            yield
        finally:
            self._reads_features = before

    def _split(self, row: Tensor) -> tuple[Tensor, Tensor]:
        if self.junction.shared:
            return row, row
        sizes = [self.junction.n_features, self.junction.n_hidden]
        features, hidden = torch.split(row, sizes, dim=1)
        return features, hidden
