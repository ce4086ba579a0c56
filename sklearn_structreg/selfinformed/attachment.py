"""The place in a network where heads attach, and the layer that classifies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.core.inspection import find_layer, listening, run_once

__all__ = ["AttachmentPoint", "capture", "find_attachment_point"]

N_TRIED = 16
Event = tuple[str, str, Tensor]
"""A layer's name, "input" or "output", and the tensor."""


@dataclass(frozen=True)
class AttachmentPoint:
    """The layer that heads attach to and the layer that classifies, by their names."""

    layer: str
    side: str  # whether heads read its "input" or its "output"
    classifier: str  # a torch.nn.Linear whose outputs are the logits
    n_features: int  # of a sample, flattened, that heads read
    n_hidden: int  # inputs of the classifier layer

    @property
    def shared(self) -> bool:
        """Whether the heads read the input of the classifier layer."""
        return self.side == "input" and self.layer == self.classifier


def find_attachment_point(
    module: nn.Module, sample: Tensor, n_outputs: int, layer: str | None
) -> AttachmentPoint:
    """Run the network and find the place where heads attach.

    Without a layer it is the input of the first fully-connected one.
    """
    events, result = _watch(module, sample)
    layers = dict(module.named_modules())
    linear = [
        (name, moment)
        for moment, (name, side, value) in enumerate(events)
        if side == "input" and isinstance(layers[name], nn.Linear) and value.ndim == 2
    ]
    classifiers = [at for at in linear if layers[at[0]].out_features == n_outputs]
    if not classifiers:
        raise ValueError(
            "The network has no fully-connected layer (torch.nn.Linear) with an output "
            f"for each of the {n_outputs} classes; give one that ends in such a layer, "
            "to which heads can add."
        )
    classifier, deadline = classifiers[-1]
    _check_end(next(e[2] for e in events[deadline:] if e[1] == "output"), result)
    if layer is None:
        name, side = linear[0][0], "input"
    elif layer == "auto":
        place = _first_bottleneck(module, sample, events, linear, classifier)
        name, side = place, "input"
    else:
        name, side = _first_name(module, layer), "output"
        if (name, side) not in [event[:2] for event in events[:deadline]]:
            raise ValueError(
                f"layer={layer!r} has no tensor to read before the classifier layer; "
                "name a layer that runs earlier in the network, or use 'auto'."
            )
    # Of a layer that runs more than once, the last time before the classifier counts.
    read = [e[2] for e in events[: deadline + 1] if e[:2] == (name, side)][-1]
    n_hidden = events[deadline][2].shape[1]
    return AttachmentPoint(name, side, classifier, read[0].numel(), n_hidden)


def _watch(module: nn.Module, sample: Tensor) -> tuple[list[Event], Any]:
    """Run the module; list its layers' inputs and outputs in order, and its result."""
    events: list[Event] = []

    def note(name: str, side: str) -> Callable[..., None]:
        def listener(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            value = next(iter(args), None) if side == "input" else output
            if isinstance(value, Tensor):
                events.append((name, side, value.clone()))

        return listener

    hooks = [
        (layer, side, note(name, side))
        for name, layer in module.named_modules()
        for side in ("input", "output")
    ]
    try:
        with listening(hooks):
            return events, run_once(module, sample)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"The network does not take samples of shape {tuple(sample.shape[1:])}: "
            f"{reason}. Give X as the estimator was given it, or image_shape if X's "
            "rows are images."
        ) from error


def _first_bottleneck(
    module: nn.Module,
    sample: Tensor,
    events: list[Event],
    linear: list[tuple[str, int]],
    classifier: str,
) -> str:
    """Find the first linear layer that all computation passes through.

    It reads what other layers have made of the sample, if any layer does.
    """
    # A squeeze-and-excitation layer, or one in a residual block, is by the way: with
    # its output the same for all samples, the classifier layer still reads different
    # values. That is tried on a sample with noise.
    layers = dict(module.named_modules())
    weighted = [
        moment
        for moment, (name, side, _) in enumerate(events)
        if side == "input" and _has_matrix(layers[name])
    ]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((N_TRIED, *sample.shape[1:]), generator=generator).to(sample)
    rows = sample[:1] + noise * (1 + sample[:1].abs())
    for name, moment in linear:
        if name == classifier:
            break
        if moment > weighted[0] and _is_bottleneck(module, rows, name, classifier):
            return name
    return classifier


def _has_matrix(layer: nn.Module) -> bool:
    """Whether a layer mixes its inputs by weights of its own."""
    return any(weight.ndim > 1 for weight in layer.parameters(recurse=False))


def _is_bottleneck(module: nn.Module, rows: Tensor, name: str, end: str) -> bool:
    """Whether a constant output of a layer makes the inputs of the last one equal."""
    read: list[Tensor] = []

    def level(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        return output[:1].expand_as(output)

    def listen(_: nn.Module, args: tuple[Any, ...], __: Any) -> None:
        read.append(args[0].clone())

    hooks: list[tuple[nn.Module, str, Callable[..., Any]]] = [
        (find_layer(module, end), "input", listen)
    ]
    with listening(hooks):
        run_once(module, rows)
    with listening([*hooks, (find_layer(module, name), "output", level)]):
        run_once(module, rows)
    free, held = read[0], read[-1]
    return torch.equal(held, held[:1].expand_as(held)) and not torch.equal(
        free, free[:1].expand_as(free)
    )


def _check_end(logits: Tensor, result: Any) -> None:
    """Check that the classifier layer's outputs are the network's."""
    if isinstance(result, tuple | list):
        result = result[0]
    known = [logits, logits.softmax(1), logits.log_softmax(1)]
    known += [logits.sigmoid(), functional.logsigmoid(logits)]
    if getattr(result, "shape", None) != logits.shape or not any(
        torch.allclose(result, end, rtol=1e-4, atol=1e-6, equal_nan=True)
        for end in known
    ):
        raise ValueError(
            "The network changes the outputs of its last fully-connected layer "
            "(torch.nn.Linear) by more than a softmax or logistic function, so they "
            "are not the logits that heads could add to; give a network that ends in "
            "that layer."
        )


def _first_name(module: nn.Module, name: str) -> str:
    """Find the first name of a layer that may have several."""
    layer = find_layer(module, name)
    names: dict[int, str] = {id(part): key for key, part in module.named_modules()}
    return names[id(layer)]


@contextmanager
def capture(trunk: nn.Module, point: AttachmentPoint) -> Iterator[dict[str, Tensor]]:
    """Record the inputs of heads and classifier layer as "features" and "hidden"."""
    # A trunk has an identity in the classifier layer's place. Calls from other threads
    # are left out, and so is all that comes after that place.
    captured: dict[str, Tensor] = {}
    thread = threading.get_ident()

    def record(key: str, value: Tensor) -> None:
        if threading.get_ident() == thread and "hidden" not in captured:
            captured[key] = value

    def features(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        value = args[0] if point.side == "input" else output
        # A copy of an output: the next layer may work in place.
        record(
            "features", value.flatten(1) if output is None else value.flatten(1).clone()
        )

    def hidden(_: nn.Module, args: tuple[Any, ...], __: Any) -> None:
        if point.shared:
            record("features", args[0].flatten(1))
        record("hidden", args[0])

    hooks: list[tuple[nn.Module, str, Callable[..., None]]] = [
        (find_layer(trunk, point.classifier), "input", hidden)
    ]
    if not point.shared:
        hooks.append((find_layer(trunk, point.layer), point.side, features))
    with listening(hooks):
        yield captured
