"""The augmented network: an old one, frozen, with specialist heads beside it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sklearn_structreg.core import make_mlp
from sklearn_structreg.core.checks import check_sizes
from sklearn_structreg.core.inspection import find_layer, replace_layer
from sklearn_structreg.core.randomness import seeded
from sklearn_structreg.selfinformed.attachment import AttachmentPoint, capture
from sklearn_structreg.selfinformed.plain import PlainNet

__all__ = ["AugmentedNet", "check_layer_sizes"]

SMALL = 0.01  # not zero, or the layers below would get no gradient at first


def check_layer_sizes(sizes: Sequence[int] | str) -> None:
    """Check the hidden layers of a head; without any it is a linear head."""
    if not isinstance(sizes, str):
        check_sizes("head_layer_sizes", sizes, empty=True)


class Head(nn.Module):
    """A stack of ReLU layers that adds to the logits of one group of classes."""

    def __init__(
        self, n_features: int, layer_sizes: Sequence[int], n_outputs: int
    ) -> None:
        super().__init__()
        n_units = layer_sizes[-1] if len(layer_sizes) else n_features
        self.hidden = make_mlp(n_features, 1, layer_sizes)[:-1]
        # The classifier layer has a bias already.
        self.output = nn.Linear(n_units, n_outputs, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the addition to the logits of the group, (n, n_outputs)."""
        added: Tensor = self.output(self.hidden(features))
        return added


class HeadRound(nn.Module):
    """The heads of one partition: every class is an output of exactly one of them."""

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

    @property
    def n_groups(self) -> int:
        """The number of heads."""
        return len(self.groups)

    def group_of(self) -> Tensor:
        """Return the group of each class."""
        sizes = torch.tensor([len(group) for group in self.groups])
        numbers = torch.arange(len(sizes)).repeat_interleave(sizes)
        return numbers.to(self.columns.device)[self.columns]

    def add_some(self, logits: Tensor, features: Tensor, wanted: Tensor) -> None:
        """Add to logits what the wanted heads (n, n_groups) do, one by one."""
        for group, head, rows in zip(self.groups, self.heads, wanted.T, strict=True):
            chosen = rows.nonzero()
            if len(chosen):
                added = head(features[chosen.squeeze(1)])
                logits[chosen, torch.tensor(group, device=chosen.device)] += added

    @torch.no_grad()
    def shrink_outputs(self, factor: float) -> None:
        """Let the heads add that much less."""
        for head in self.heads:
            head.get_parameter("output.weight").mul_(factor)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the addition to the logits, (n, n_classes)."""
        added = torch.cat([head(features) for head in self.heads], dim=1)
        return added.index_select(1, self.columns)


class AugmentedNet(nn.Module):
    """A trained network and its specialist heads; without any, the old network."""

    # The logits are the sum of the classifier layer's, on the input that it has in the
    # old network, and of each round's heads. All layers of logits learn when heads are
    # added; all other old weights stay as they are, in evaluation mode.

    def __init__(self, old: nn.Module, point: AttachmentPoint) -> None:
        super().__init__()
        trunk = copy.deepcopy(old)
        classifier = find_layer(trunk, point.classifier)
        assert isinstance(classifier, nn.Linear)
        self.point = point
        self.trunk = replace_layer(trunk, point.classifier, nn.Identity())
        self.classifier = classifier
        self.rounds = nn.ModuleList()
        self.frozen = False
        self._reads_features = False

    def forward(self, X: Tensor) -> Tensor:
        """Compute the logits, (n, n_classes)."""
        features, hidden = self._split(X) if self._reads_features else self.extract(X)
        logits: Tensor = self.classifier(hidden)
        for heads in self.rounds:
            logits = logits + heads(features)
        return logits

    def extract(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Run the trunk for the inputs of the heads and of the classifier layer."""
        with capture(self.trunk, self.point) as captured:
            self.trunk(X)
        if "hidden" not in captured:
            raise RuntimeError("heads read layers by hooks, which were not run here")
        return captured["features"], captured["hidden"]

    def head_rounds(self) -> Iterator[HeadRound]:
        """Iterate over the rounds."""
        for heads in self.rounds:
            assert isinstance(heads, HeadRound)
            yield heads

    def heads_by_group(self) -> Iterator[tuple[list[int], Head]]:
        """Iterate over the heads of all rounds, each with the classes of its group."""
        for heads in self.head_rounds():
            yield from zip(heads.groups, heads.heads, strict=True)

    def add_heads(
        self,
        groups: Sequence[Sequence[int]],
        layer_sizes: Sequence[Sequence[int]],
        *,
        seed: int,
        fresh: bool = True,
    ) -> None:
        """Freeze the network, and add a round of heads.

        All layers of logits learn, and are drawn anew where they are to be `fresh`.
        """
        old = self.classifier
        device, dtype = old.weight.device, old.weight.dtype
        earlier = [head for _, head in self.heads_by_group()]
        self.requires_grad_(False)
        with seeded(seed, torch.device("cpu")):
            classifier = nn.Linear(old.in_features, old.out_features)
            heads = HeadRound(self.point.n_features, groups, layer_sizes)
            if fresh:
                self.classifier = classifier.to(device, dtype)
                for head in earlier:
                    sizes = head.output.in_features, head.output.out_features
                    head.output = nn.Linear(*sizes, bias=False).to(device, dtype)
        if not fresh:
            for layer in [old, *(head.output for head in earlier)]:
                layer.requires_grad_(True)
            heads.shrink_outputs(SMALL)
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

    def simplified(self) -> nn.Module:
        """Make a plain network of copies of the layers, with the same outputs."""
        net = copy.deepcopy(self)
        plain = PlainNet(net.trunk, net.classifier, net.point)
        for group, head in net.heads_by_group():
            plain.add_head(group, head.hidden, head.output)
        return plain

    # ---- the features of a frozen trunk, computed once -------------------------

    @property
    def n_kept(self) -> int:
        """The width of a row that `join` makes of a sample."""
        point = self.point
        return point.n_hidden + (0 if point.shared else point.n_features)

    def join(self, X: Tensor) -> Tensor:
        """Compute the inputs of the heads and the classifier layer as one row each."""
        features, hidden = self.extract(X)
        return hidden if self.point.shared else torch.cat([features, hidden], dim=1)

    @contextmanager
    def reading_features(self) -> Iterator[None]:
        """Take rows made by `join` in place of samples, inside of this context."""
        self._reads_features = True
        try:
            yield
        finally:
            self._reads_features = False

    def _split(self, row: Tensor) -> tuple[Tensor, Tensor]:
        if self.point.shared:
            return row, row
        sizes = [self.point.n_features, self.point.n_hidden]
        features, hidden = torch.split(row, sizes, dim=1)
        return features, hidden
