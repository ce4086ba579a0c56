"""States of a net as plain values: in memory, in the midst of a training, and trained.

Each is brought back onto a net of the same layers.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import fields
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor, nn

from sklearn_structreg.compaction.replacements import ColumnsLinear
from sklearn_structreg.core.device import dtype_name
from sklearn_structreg.core.optimizers import load_exactly
from sklearn_structreg.core.plain_values import to_plain
from sklearn_structreg.core.regularizer import on_device
from sklearn_structreg.core.state_files import is_plain

__all__ = [
    "CopyOfState",
    "fill",
    "layers_of",
    "network_state",
    "restore_training",
    "snapshot",
    "training_state",
]

WIDTHS = (
    *("in_features", "out_features", "in_channels", "out_channels", "num_features"),
    *("num_channels", "num_parameters", "groups", "num_groups"),
)
State = dict[str, Any]


class CopyOfState:
    """Weights, optimizer and length of the history, copied in memory."""

    def __init__(self, net: NeuralNet) -> None:
        parts = net.module_, net.optimizer_
        self._states = [copy.deepcopy(part.state_dict()) for part in parts]
        self._average = copy.deepcopy(net.average)
        self._n_epochs = len(net.history)

    def restore(self, net: NeuralNet) -> None:
        """Bring the net back to where it was."""
        module, optimizer = self._states
        net.module_.load_state_dict(module)
        load_exactly(net.optimizer_, optimizer)
        net.average = self._average
        del net.history[self._n_epochs :]


def snapshot(net: NeuralNet) -> NeuralNet:
    """Return a net that predicts like this one does now."""
    same: NeuralNet = object.__new__(type(net))
    same.__dict__.update(
        vars(net),
        module_=copy.deepcopy(net.module_).eval(),
        history_=copy.copy(net.history),
        callbacks_=[],
    )
    return same


def _state_of(net: NeuralNet) -> State:
    """Return weights, history and regularizers: common to all stages of a training."""
    module = net.module_
    return {
        "tensors": dict(module.state_dict()),
        "frozen": [n for n, p in module.named_parameters() if not p.requires_grad],
        "history": [dict(row) for row in net.history],
        "best_figures": net._best_figures,
    }


def _load_weights(module: nn.Module, state: State) -> None:
    module.load_state_dict(state["tensors"])
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in state["frozen"])


# ---- in the midst of a training ----------------------------------------------------


def training_state(net: NeuralNet) -> State:
    """Return the state of a training that is to go on as if nothing had happened."""
    return _state_of(net) | {
        "n_at_end": net._n_at_end,  # a callback may load another history first
        "criterion": net.criterion_.state_dict(),
        "optimizer": net.optimizer_.state_dict(),
        "average": None if net.average is None else net.average.state_dict(),
        "callbacks": {name: _callback_state(x) for name, x in net.callbacks_},
        "regularizers": {n: r.fitted_state() for n, r in net.regularizers.items()},
    }


def restore_training(net: NeuralNet, state: State) -> None:
    """Bring a net of the same layers, whose training has begun, to a state."""
    _load_weights(net.module_, state)
    net.criterion_.load_state_dict(state["criterion"])
    load_exactly(net.optimizer_, state["optimizer"])
    if net.average is not None:
        net.average.load_state_dict(on_device(state["average"], net.device))
    net.history[:] = state["history"]
    net._best_figures = state["best_figures"]
    net._n_at_end = state["n_at_end"]
    for name, callback in net.callbacks_:
        if name in state["callbacks"]:  # but for a progress bar, which may be new
            _restore_callback(callback, on_device(state["callbacks"][name], net.device))
    for name, regularizer in net.regularizers.items():
        regularizer.restore(on_device(state["regularizers"][name], net.device))


def _callback_state(callback: Callback) -> dict[str, Any]:
    """Return the attributes that a file can hold, and state dicts of others."""
    plain, parts = {}, {}
    for name, value in vars(callback).items():
        if is_plain(value):
            plain[name] = value
        elif hasattr(value, "load_state_dict") and not isinstance(value, type):
            parts[name] = value.state_dict()
    return {"plain": plain, "parts": parts}


def _restore_callback(callback: Callback, state: dict[str, Any]) -> None:
    vars(callback).update(state["plain"])
    for name, part in state["parts"].items():
        getattr(callback, name).load_state_dict(part)


# ---- trained -----------------------------------------------------------------------


def network_state(net: NeuralNet) -> State:
    """Return the state of a trained net, without the code of its layers."""
    module, optimizer = net.module_, net.optimizer_
    recipe = {}
    for field in fields(net.recipe):
        with suppress(TypeError):  # code, or the task, which follows from the targets
            recipe[field.name] = to_plain(getattr(net.recipe, field.name), field.name)
    trained = bool(optimizer.state) and "optimizer" in recipe
    return _state_of(net) | {
        "dtype": dtype_name(next(module.parameters()).dtype),
        "layers": layers_of(module),
        "regularizers": {
            name: {"object": to_plain(each, name), "fitted": each.fitted_state()}
            for name, each in net.regularizers.items()
        },
        "recipe": recipe,
        "seed": net.seed,
        "optimizer": optimizer.state_dict() if trained else None,
    }


def layers_of(module: nn.Module) -> dict[str, State]:
    """Return the class and the widths of every layer; ours may change their names."""
    found: dict[str, State] = {}
    for name, layer in module.named_modules():
        kind = nn.Linear if type(layer) is ColumnsLinear else type(layer)
        ours = kind.__module__.startswith("sklearn_structreg.")
        found[name] = {"class": "ours" if ours else kind.__name__}
        numbers = {key: getattr(layer, key, None) for key in WIDTHS}
        found[name] |= {key: n for key, n in numbers.items() if type(n) is int}
    return found


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
        _load_weights(module, network)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip().rstrip(". ")
        raise ValueError(reason) from error
    module.eval()


def resize(module: nn.Module, network: State) -> None:
    """Make layers as wide as the saved ones."""
    for name, layer in module.named_modules():
        columns = network["tensors"].get(f"{name}.columns".lstrip("."))
        if columns is not None and type(layer) is nn.Linear:
            ColumnsLinear.take_over(layer, columns)
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
