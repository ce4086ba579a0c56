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
from sklearn_structreg.selfinformed.attachment import AttachmentPoint, Place, capture
from sklearn_structreg.selfinformed.ends import (
    Rescaling,
    as_logits,
    first_tensor,
)
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
        self,
        place: Place,
        layer_sizes: Sequence[int],
        n_outputs: int,
        kernel_size: int | None = None,
    ) -> None:
        super().__init__()
        if kernel_size is None:
            n_inputs = place.n_features
            self.hidden = make_mlp(n_inputs, 1, layer_sizes)[:-1]
        else:
            n_inputs = place.shape[0]
            self.hidden = _make_convolutions(place.shape, layer_sizes, kernel_size)
        n_units = layer_sizes[-1] if len(layer_sizes) else n_inputs
        # The classifier layer has a bias already.
        self.output = nn.Linear(n_units, n_outputs, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the addition to the logits of the group, (n, n_outputs)."""
        added: Tensor = self.output(self.hidden(features))
        return added


def _make_convolutions(
    shape: tuple[int, ...], n_channels: Sequence[int], kernel_size: int
) -> nn.Sequential:
    """Make convolutions with ReLU, and the mean over positions, for flattened maps."""
    n_axes, n_inputs = len(shape) - 1, shape[0]
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[n_axes - 1]
    pooling = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
    layers: list[nn.Module] = [nn.Unflatten(1, shape)]
    for n in n_channels:
        same = kernel_size // 2
        layers += [convolution(n_inputs, n, kernel_size, padding=same), nn.ReLU()]
        n_inputs = n
    return nn.Sequential(*layers, pooling[n_axes - 1](1), nn.Flatten())


class HeadRound(nn.Module):
    """The heads of one partition: every class is an output of exactly one of them."""

    columns: Tensor

    def __init__(
        self,
        place: Place,
        groups: Sequence[Sequence[int]],
        layer_sizes: Sequence[Sequence[int]],
        kernel_size: int | None = None,
    ) -> None:
        super().__init__()
        self.place = place
        self.groups = [[int(index) for index in group] for group in groups]
        self.heads = nn.ModuleList(
            Head(place, sizes, len(group), kernel_size)
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
        classifier: nn.Module = Rescaling(point.n_hidden)
        if point.classifier is None:
            classifier.to(next(trunk.parameters()))
        else:
            classifier = find_layer(trunk, point.classifier)
            trunk = replace_layer(trunk, point.classifier, nn.Identity())
        assert isinstance(classifier, nn.Linear | Rescaling)
        self.point, self.trunk, self.classifier = point, trunk, classifier
        self.rounds = nn.ModuleList()
        self.frozen = False
        self._reads_features = False

    def forward(self, X: Tensor) -> Tensor:
        """Compute the logits, (n, n_classes)."""
        features, hidden = self._split(X) if self._reads_features else self.extract(X)
        logits: Tensor = self.classifier(hidden)
        for heads in self.head_rounds():
            logits = logits + heads(features[heads.place])
        return logits

    def extract(self, X: Tensor) -> tuple[dict[Place, Tensor], Tensor]:
        """Run the trunk for the heads' inputs, by place, and the classifier layer's."""
        point = self.point
        with capture(self.trunk, point, self.classifier.out_features) as captured:
            result = self.trunk(X)
        if point.classifier is None:
            captured["hidden"] = as_logits(first_tensor(result), point.link)
        if len(captured) <= len(point.own_places):
            raise RuntimeError("heads read layers by hooks, which were not run here")
        hidden = captured["hidden"]
        return {p: captured.get(p, hidden) for p in point.places}, hidden

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
        kernel_size: int | None = None,
    ) -> None:
        """Freeze the network, and add a round of heads.

        All layers of logits learn, and are drawn anew where they are to be `fresh`.
        """
        old = self.classifier
        device, dtype = old.weight.device, old.weight.dtype
        earlier = [head for _, head in self.heads_by_group()]
        self.requires_grad_(False)
        with seeded(seed, torch.device("cpu")):
            classifier = (
                Rescaling(old.out_features)
                if self.point.classifier is None
                else nn.Linear(old.in_features, old.out_features)
            )
            place = self.point.place(len(self.rounds))
            heads = HeadRound(place, groups, layer_sizes, kernel_size)
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

    def simplified(self) -> PlainNet:
        """Make a plain network of copies of the layers, with the same outputs."""
        net = copy.deepcopy(self)
        plain = PlainNet(net.trunk, net.classifier, net.point)
        for heads in net.head_rounds():
            for group, head in zip(heads.groups, heads.heads, strict=True):
                assert isinstance(head, Head)
                plain.add_head(heads.place, group, head.hidden, head.output)
        return plain

    # ---- the features of a frozen trunk, computed once -------------------------

    @property
    def n_kept(self) -> int:
        """The width of a row that `join` makes of a sample."""
        return self.point.n_hidden + sum(p.n_features for p in self.point.own_places)

    def join(self, X: Tensor) -> Tensor:
        """Compute the inputs of the heads and the classifier layer as one row each."""
        features, hidden = self.extract(X)
        return torch.cat([*(features[p] for p in self.point.own_places), hidden], dim=1)

    @contextmanager
    def reading_features(self) -> Iterator[None]:
        """Take rows made by `join` in place of samples, inside of this context."""
        self._reads_features = True
        try:
            yield
        finally:
            self._reads_features = False

    def _split(self, row: Tensor) -> tuple[dict[Place, Tensor], Tensor]:
        own = self.point.own_places
        sizes = [*(place.n_features for place in own), self.point.n_hidden]
        *parts, hidden = torch.split(row, sizes, dim=1)
        features = dict(zip(own, parts, strict=True))
        return {p: features.get(p, hidden) for p in self.point.places}, hidden
