"""The places in a network that heads read, and the layer that classifies."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sklearn_structreg.core.inspection import find_layer, listening

__all__ = ["AttachmentPoint", "Place", "capture", "check_layers", "point_of"]


@dataclass(frozen=True)
class Place:
    """What goes into a layer or comes out of it."""

    layer: str
    side: str  # "input" or "output"
    shape: tuple[int, ...]  # of a sample there

    @property
    def n_features(self) -> int:
        """The number of a sample's values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class AttachmentPoint:
    """The places that heads read, and the end of the network."""

    places: tuple[Place, ...]  # one for all rounds, or one for each
    classifier: str | None  # the torch.nn.Linear that makes the logits, if one does
    n_hidden: int  # inputs of the classifier layer, else the number of classes
    link: str = "identity"  # from the network's results to logits, without that layer

    def place(self, index: int) -> Place:
        """Return the place that a round of heads reads."""
        return self.places[min(index, len(self.places) - 1)]

    def shares(self, place: Place) -> bool:
        """Whether a place is the input of the classifier layer."""
        return place.side == "input" and place.layer == self.classifier

    @property
    def own_places(self) -> list[Place]:
        """The different places other than the input of the classifier layer."""
        return [p for p in dict.fromkeys(self.places) if not self.shares(p)]


def check_layers(layer: Any, n_rounds: int) -> str | list[str]:
    """Check the parameter `layer`: a name, or one for each round."""
    if isinstance(layer, str):
        return layer
    names = [*layer]
    if not all(isinstance(name, str) for name in names) or len(names) != n_rounds:
        raise ValueError(
            f"layer={names} must be the name of a layer, or a sequence of as many as "
            f"there are rounds, n_rounds={n_rounds}."
        )
    return [str(name) for name in names]


def point_of(saved: dict[str, Any]) -> AttachmentPoint:
    """Return the place that a file holds; the first files have one of flat features."""
    given = dict(saved)
    if "places" not in given:
        shape = (given.pop("n_features"),)
        given["places"] = [
            {"layer": given.pop("layer"), "side": given.pop("side"), "shape": shape}
        ]
    places = (each | {"shape": (*each["shape"],)} for each in given.pop("places"))
    return AttachmentPoint(tuple(Place(**each) for each in places), **given)


@contextmanager
def capture(
    trunk: nn.Module, point: AttachmentPoint, n_classes: int
) -> Iterator[dict[Any, Tensor]]:
    """Record all that heads read, by place, and the last layer's input as "hidden"."""
    # A trunk has an identity in the classifier layer's place, which gives zeros to all
    # that comes after it. Calls from other threads are left out, and so is the rest.
    captured: dict[Any, Tensor] = {}
    thread = threading.get_ident()

    def record(key: Any, value: Tensor) -> None:
        if threading.get_ident() == thread and "hidden" not in captured:
            captured[key] = value

    def reader(place: Place) -> Callable[..., None]:
        def read(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            value = args[0] if output is None else output
            flat = value.flatten(1)
            # A copy of an output: the next layer may work in place.
            record(place, flat if output is None else flat.clone())

        return read

    def hidden(_: nn.Module, args: tuple[Any, ...], __: Any) -> None:
        record("hidden", args[0])

    def silence(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        return output.new_zeros(len(output), n_classes)

    hooks: list[tuple[nn.Module, str, Callable[..., Any]]] = [
        (find_layer(trunk, place.layer), place.side, reader(place))
        for place in point.own_places
    ]
    if point.classifier is not None:
        end = find_layer(trunk, point.classifier)
        hooks += [(end, "input", hidden), (end, "output", silence)]
    with listening(hooks):
        yield captured
