"""The network with heads as a plain one, without hooks: torch.fx can follow it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sklearn_structreg.core.inspection import find_layer, replace_layer
from sklearn_structreg.selfinformed.attachment import AttachmentPoint

__all__ = ["PlainNet"]


class Recorder(nn.Module):
    """A layer that notes its input or output, until "hidden" is noted."""

    def __init__(
        self, layer: nn.Module, side: str, key: str, notes: dict[str, Tensor]
    ) -> None:
        super().__init__()
        self.layer, self.side, self.key, self.notes = layer, side, key, notes

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer."""
        output = self.layer(*args, **kwargs)
        if "hidden" not in self.notes:
            first = next(iter((*args, *kwargs.values())))
            self.notes[self.key] = first if self.side == "input" else output.clone()
        return output


class PlainNet(nn.Module):
    """Trunk, classifier layer and heads, made of the layers given."""

    def __init__(
        self, trunk: nn.Module, classifier: nn.Linear, point: AttachmentPoint
    ) -> None:
        super().__init__()
        self.notes: dict[str, Tensor] = {}
        places = [(point.classifier, "input", "hidden")]
        if not point.shared:
            places.append((point.layer, point.side, "features"))
        for name, side, key in places:
            recorder = Recorder(find_layer(trunk, name), side, key, self.notes)
            trunk = replace_layer(trunk, name, recorder)
        self.trunk, self.classifier = trunk, classifier
        self.heads = nn.ModuleList()

    @torch.no_grad()
    def add_head(self, group: list[int], hidden: nn.Module, output: nn.Linear) -> None:
        """Add a head whose outputs are all classes, those of other groups zero."""
        n_classes = self.classifier.out_features
        wide = nn.Linear(output.in_features, n_classes, bias=False).to(output.weight)
        wide.weight.zero_()[group] = output.weight
        self.heads.append(nn.Sequential(hidden, wide))

    def forward(self, X: Tensor) -> Tensor:
        """Compute the logits, (n, n_classes)."""
        self.notes.clear()
        self.trunk(X)
        hidden = self.notes["hidden"]
        features = self.notes.get("features", hidden).flatten(1)
        self.notes.clear()
        logits: Tensor = self.classifier(hidden)
        for head in self.heads:
            logits = logits + head(features)
        return logits
