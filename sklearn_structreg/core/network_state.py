"""A trained net as plain values, and back onto a network of the same layers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.plain_values import to_plain

__all__ = ["dtype_of", "fill", "layers_of", "network_state"]

WIDTHS = (
    *("in_features", "out_features", "in_channels", "out_channels", "num_features"),
    *("num_channels", "num_parameters", "groups", "num_groups"),
)
State = dict[str, Any]


def network_state(net: StructuredNet) -> State:
    """Return all that makes a trained net, but for the code of its layers."""
    module, optimizer = net.module_, net.optimizer_
    recipe = {}
    for field in fields(net.recipe):
        with suppress(TypeError):  # code, or the task, which follows from the targets
            recipe[field.name] = to_plain(getattr(net.recipe, field.name), field.name)
    trained = bool(optimizer.state) and "optimizer" in recipe
    return {
        "tensors": dict(module.state_dict()),
        "dtype": str(next(module.parameters()).dtype).removeprefix("torch."),
        "frozen": [n for n, p in module.named_parameters() if not p.requires_grad],
        "layers": layers_of(module),
        "regularizers": {
            name: {"object": to_plain(each, name), "fitted": each.fitted_state()}
            for name, each in net.regularizers.items()
        },
        "recipe": recipe,
        "seed": net.seed,
        "history": list(net.history),
        "best_figures": net._best_figures,
        "optimizer": optimizer.state_dict() if trained else None,
    }


def layers_of(module: nn.Module) -> dict[str, State]:
    """Return the class and the widths of every layer; ours may change their names."""
    found: dict[str, State] = {}
    for name, layer in module.named_modules():
        ours = type(layer).__module__.startswith("sklearn_structreg.")
        found[name] = {"class": "ours" if ours else type(layer).__name__}
        numbers = {key: getattr(layer, key, None) for key in WIDTHS}
        found[name] |= {key: n for key, n in numbers.items() if type(n) is int}
    return found


def dtype_of(network: State) -> torch.dtype:
    """Return the precision of the weights."""
    dtype: torch.dtype = getattr(torch, network["dtype"])
    return dtype


def check_layers(module: nn.Module, network: State) -> None:
    """Refuse other layers."""
    built, saved = layers_of(module), network["layers"]
    for name in {**saved, **built}:
        none = {"class": "absent"}
        now, then = (each.get(name, none)["class"] for each in (built, saved))
        if now != then:
            raise ValueError(f"layer {name!r} is {now}, and was {then} in the fit")


def fill(module: nn.Module, network: State) -> None:
    """Give a network of the saved layers the saved weights.

    Raises
    ------
    ValueError
        If they do not fit: with the reason, as part of a sentence.
    """
    check_layers(module, network)
    if network["compacted"]:
        resize(module, network)
    try:
        module.load_state_dict(network["tensors"])
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip().rstrip(". ")
        raise ValueError(reason) from error
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in network["frozen"])
    module.eval()


def resize(module: nn.Module, network: State) -> None:
    """Make layers as wide as the saved ones."""
    for name, layer in module.named_modules():
        for key in WIDTHS:
            saved = network["layers"][name].get(key)
            if saved is not None and getattr(layer, key) != saved:
                setattr(layer, key, saved)
        for key in {*layer._parameters, *layer._buffers}:
            tensor = network["tensors"].get(f"{name}.{key}".lstrip("."))
            if tensor is None or same_shape(getattr(layer, key), tensor):
                continue
            if key in layer._parameters:
                tensor = nn.Parameter(tensor.clone())
            setattr(layer, key, tensor)


def same_shape(one: Tensor | None, two: Tensor) -> bool:
    """Compare a layer's tensor, which may be absent, with a saved one."""
    return one is not None and one.shape == two.shape
