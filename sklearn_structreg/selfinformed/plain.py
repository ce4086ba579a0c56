"""The network with heads as a plain one, without hooks: torch.fx can follow it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sklearn_structreg.core.inspection import find_layer, replace_layer
from sklearn_structreg.selfinformed.attachment import AttachmentPoint, Place
from sklearn_structreg.selfinformed.ends import (
    NoLogits,
    Rescaling,
    as_logits,
    first_tensor,
)

__all__ = ["PlainNet"]


class Recorder(nn.Module):
    """A layer that notes its input or output, until "hidden" is noted."""

    def __init__(
        self, layer: nn.Module, side: str, key: Any, notes: dict[Any, Tensor]
    ) -> None:
        super().__init__()
        self.layer, self.side, self.key, self.notes = layer, side, key, notes

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer."""
        first = next(iter((*args, *kwargs.values())))
        # The stand-in of the classifier layer takes no keyword of its own.
        output = (
            self.layer(first) if self.key == "hidden" else self.layer(*args, **kwargs)
        )
        if "hidden" not in self.notes:
            self.notes[self.key] = first if self.side == "input" else output.clone()
        return output


class PlainNet(nn.Module):
    """Trunk, classifier layer and heads, made of the layers given."""

    def __init__(
        self,
        trunk: nn.Module,
        classifier: nn.Linear | Rescaling,
        point: AttachmentPoint,
    ) -> None:
        super().__init__()
        self.notes: dict[Any, Tensor] = {}
        recorded: list[tuple[str, str, Any]] = [
            (place.layer, place.side, place) for place in point.own_places
        ]
        if point.classifier is not None:
            stand_in = NoLogits(classifier.out_features).to(classifier.weight)
            trunk = replace_layer(trunk, point.classifier, stand_in)
            recorded.append((point.classifier, "input", "hidden"))
        # The parts of a layer before the layer, whose name then leads past them.
        for name, side, key in sorted(recorded, key=lambda each: -len(each[0])):
            recorder = Recorder(find_layer(trunk, name), side, key, self.notes)
            trunk = replace_layer(trunk, name, recorder)
        self.trunk, self.link = trunk, point.link
        self.classifier = classifier
        self.heads = nn.ModuleList()
        self.places: list[Place] = []

    @torch.no_grad()
    def add_head(
        self, place: Place, group: list[int], hidden: nn.Module, output: nn.Linear
    ) -> None:
        """Add a head whose outputs are all classes, those of other groups zero."""
        n_classes = self.classifier.out_features
        wide = nn.Linear(output.in_features, n_classes, bias=False).to(output.weight)
        wide.weight.zero_()[group] = output.weight
        self.heads.append(nn.Sequential(hidden, wide))
        self.places.append(place)

    def forward(self, X: Tensor) -> Tensor:
        """Compute the logits, (n, n_classes)."""
        return self.run(X)[1]

    def run(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the classifier layer's input and the logits."""
        self.notes.clear()
        result = self.trunk(X)
        if "hidden" not in self.notes:
            self.notes["hidden"] = as_logits(first_tensor(result), self.link)
        notes, hidden = dict(self.notes), self.notes["hidden"]
        self.notes.clear()
        logits: Tensor = self.classifier(hidden)
        for place, head in zip(self.places, self.heads, strict=True):
            features = notes.get(place, hidden)
            logits = logits + head(features.flatten(1))
        return hidden, logits
