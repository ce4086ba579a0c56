"""Where in a network the specialist heads attach, and which layer classifies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.core.modules import run_once

__all__ = ["Junction", "capture", "find_junction", "take_classifier"]

_NAMES_SHOWN = 20


@dataclass(frozen=True)
class Junction:
    """Where heads attach and where the classifier layer is, by the layers' names.

    Attributes
    ----------
    layer : str
        The layer that the heads attach to.
    side : {"input", "output"}
        Whether they read what goes into that layer or what comes out of it.
    classifier : str
        The fully-connected layer whose outputs are the logits.
    n_features : int
        What the heads read of one sample, flattened.
    n_hidden : int
        Inputs of the classifier layer.
    """

    layer: str
    side: str
    classifier: str
    n_features: int
    n_hidden: int

    @property
    def shared(self) -> bool:
        """Whether the heads read just what the classifier layer reads."""
        return self.side == "input" and self.layer == self.classifier


def find_junction(
    module: nn.Module, sample: Tensor, n_outputs: int, attach: str
) -> Junction:
    """Run the network once and look where heads can attach.

    Parameters
    ----------
    module : torch.nn.Module
        The base network.
    sample : torch.Tensor of shape (n, ...)
        Samples as the module takes them.
    n_outputs : int
        Number of classes.
    attach : str
        "auto" is the input of the first fully-connected layer; else the name of a
        layer, as in `named_modules`, whose output the heads read; of a layer that runs
        more than once, the last one before the classifier layer.

    Returns
    -------
    Junction

    Raises
    ------
    ValueError
        If the network has no such layer, or does not end in a fully-connected one: only
        a softmax or logistic function, or its logarithm, may come after.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.core import make_convnet
    >>> net = make_convnet((1, 8, 8), 10)
    >>> find_junction(net, torch.zeros(2, 1, 8, 8), 10, "auto")
    Junction(layer='7', side='input', classifier='9', n_features=256, n_hidden=100)
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
            "The base network has no fully-connected layer (torch.nn.Linear) with an "
            f"output for each of the {n_outputs} classes; heads need one to join."
        )
    classifier, deadline = classifiers[-1]
    _check_end(next(e[2] for e in events[deadline:] if e[1] == "output"), result)
    if attach == "auto":
        layer, side = linear[0][0], "input"
    else:
        layer, side = attach, "output"
        _check_name(attach, list(layers), events, deadline)
    read = [e[2] for e in events[: deadline + 1] if e[:2] == (layer, side)][-1]
    return Junction(
        layer,
        side,
        classifier,
        n_features=read[0].numel(),
        n_hidden=events[deadline][2].shape[1],
    )


def _watch(
    module: nn.Module, sample: Tensor
) -> tuple[list[tuple[str, str, Tensor]], Any]:
    """Run the module; return what goes in and out of its layers in order, and of it."""
    events: list[tuple[str, str, Tensor]] = []

    def listen(name: str, layer: nn.Module) -> list[Any]:
        def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                events.append((name, "input", inputs[0]))

        def after(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                events.append((name, "output", output.clone()))

        return [
            layer.register_forward_pre_hook(before),
            layer.register_forward_hook(after),
        ]

    handles = [h for item in module.named_modules() for h in listen(*item)]
    try:
        result = run_once(module, sample)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"The base network does not take samples of shape "
            f"{tuple(sample.shape[1:])}: {reason}. Give X as the base was given it, or "
            "image_shape if X's rows are images."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return events, result


def _check_end(logits: Tensor, result: Any) -> None:
    """Check that the classifier layer's outputs are the network's."""
    if isinstance(result, tuple | list):
        result = result[0]
    known = [
        logits,
        logits.softmax(1),
        logits.log_softmax(1),
        logits.sigmoid(),
        functional.logsigmoid(logits),
    ]
    if not any(
        getattr(result, "shape", None) == end.shape
        and torch.allclose(result, end, rtol=1e-4, atol=1e-6, equal_nan=True)
        for end in known
    ):
        raise ValueError(
            "The base network changes the outputs of its last fully-connected layer "
            "(torch.nn.Linear) by more than a softmax, so they are not the logits "
            "that heads could add to; give a network that ends in that layer."
        )


def _check_name(
    attach: str,
    names: list[str],
    events: list[tuple[str, str, Tensor]],
    deadline: int,
) -> None:
    """Check that a layer exists and has its output before the classifier runs."""
    if attach not in names:
        shown = ", ".join(repr(name) for name in names[1 : _NAMES_SHOWN + 1])
        more = ", ..." if len(names) > _NAMES_SHOWN + 1 else ""
        raise ValueError(
            f"attach={attach!r} names no layer of the base network; its layers are "
            f"{shown}{more}."
        )
    if (attach, "output") not in [event[:2] for event in events[:deadline]]:
        raise ValueError(
            f"attach={attach!r} has no tensor to read before the classifier layer; "
            "name a layer that runs earlier in the network, or use 'auto'."
        )


def take_classifier(module: nn.Module, name: str) -> tuple[nn.Module, nn.Linear]:
    """Take the classifier layer out of a network, leaving an identity in its place.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place, unless it is the classifier layer itself.
    name : str
        The name of the layer; "" is the module itself.

    Returns
    -------
    trunk : torch.nn.Module
        The network without its classifier layer.
    classifier : torch.nn.Linear
        The layer.
    """
    classifier = module.get_submodule(name)
    assert isinstance(classifier, nn.Linear)
    if not name:
        return nn.Identity(), classifier
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, nn.Identity())
    return module, classifier


@contextmanager
def capture(trunk: nn.Module, junction: Junction) -> Iterator[dict[str, Tensor]]:
    """Listen for what heads and classifier read while the trunk runs.

    Parameters
    ----------
    trunk : torch.nn.Module
        A network whose classifier layer has been taken out.
    junction : Junction
        Where to listen.

    Yields
    ------
    dict
        Holds "features" and "hidden" once the trunk has been called. Calls from other
        threads are not heard, nor what comes after the classifier layer's place.
    """
    captured: dict[str, Tensor] = {}
    thread = threading.get_ident()

    def hear(what: str, value: Tensor) -> None:
        if threading.get_ident() == thread and "hidden" not in captured:
            captured[what] = value

    def features_in(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        hear("features", inputs[0].flatten(1))

    def features_out(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # A copy: the layer that comes next may work in place.
        hear("features", output.flatten(1).clone())

    def hidden_in(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        hear("hidden", inputs[0])

    layer = trunk.get_submodule(junction.layer)
    handles: list[Any] = [
        layer.register_forward_pre_hook(features_in)
        if junction.side == "input"
        else layer.register_forward_hook(features_out),
        trunk.get_submodule(junction.classifier).register_forward_pre_hook(hidden_in),
    ]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()
