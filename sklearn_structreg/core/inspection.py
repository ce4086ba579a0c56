"""Look into a network: run it, listen to its layers, find and replace them by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from sklearn_structreg.core.messages import explaining
from sklearn_structreg.core.randomness import GLOBAL_LOCK

__all__ = [
    "explaining_training",
    "find_layer",
    "has_own_weight",
    "layer_names",
    "listening",
    "replace_layer",
    "run_once",
    "run_until",
    "running_order",
    "weighted_layers",
]

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NAMES_SHOWN = 20

Listener = Callable[[nn.Module, tuple[Any, ...], Any], Any]
"""Called with a layer, its arguments and its output (None before it ran)."""


class _AllSeen(BaseException):
    """Every layer that somebody listens to has run."""


def run_once(module: nn.Module, batch: Any, *, training: bool = False) -> Any:
    """Run `module` in evaluation mode without gradients, then restore its mode.

    With `training` it runs in training mode with gradients.

    `batch` holds the module's only, its positional or its keyword arguments: a tensor,
    a tuple or list, or a mapping.
    """
    modes = {name: part.training for name, part in module.named_modules()}
    module.train(training)
    try:
        explained = explaining_training if training else _explaining_prediction
        several = isinstance(batch, tuple | list)
        args = list(batch) if several else [] if isinstance(batch, Mapping) else [batch]
        named = dict(batch) if isinstance(batch, Mapping) else {}
        first = [*args, *named.values(), None][0]
        with explained(first), torch.set_grad_enabled(training), _eager():
            return module(*args, **named)
    finally:
        for name, part in module.named_modules():
            part.training = modes.get(name, True)


def explaining_training(X: Any) -> AbstractContextManager[None]:
    """Explain the errors of a network in training."""
    n_rows = len(getattr(X, "shape", ())) and len(X)
    rows, remedy = f"{n_rows} rows", ""
    if n_rows == 1:
        rows, remedy = "a mini-batch of a single row", "; change batch_size"
    return explaining(f"The module cannot be trained on {rows}: {{}}{remedy}.")


def _explaining_prediction(X: Any) -> AbstractContextManager[None]:
    """Explain the errors of a network in evaluation mode."""
    shape = tuple(getattr(X, "shape", ())[1:])
    return explaining(
        f"The module does not take samples of shape {shape}: {{}}. Give a module for "
        "this shape, or image_shape=(C, H, W) if X holds images."
    )


@contextmanager
def _eager() -> Iterator[None]:
    """Let modules that torch.compile has compiled call hooks."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with GLOBAL_LOCK, torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def listening(hooks: Iterable[tuple[nn.Module, str, Listener]]) -> Iterator[None]:
    """Call functions with the inputs or outputs of layers, inside of this context.

    Each hook is ``(layer, "input" | "output", function)``. They run before any other
    hook of the layer; a returned value replaces the arguments or the output.
    """
    handles: list[RemovableHandle] = []
    for layer, side, function in hooks:
        if side == "input":
            hook = _on_input(function)
            register: Any = layer.register_forward_pre_hook
            handles.append(register(hook, prepend=True, with_kwargs=True))
        else:
            handles.append(layer.register_forward_hook(function, prepend=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _on_input(function: Listener) -> Callable[..., Any]:
    """Let a listener hear keyword arguments as positional ones."""

    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        replaced = function(layer, (*args, *kwargs.values()), None)
        if replaced is None:
            return None
        return (replaced if isinstance(replaced, tuple) else (replaced,)), {}

    return hook


def run_until(
    module: nn.Module,
    batch: Any,
    hooks: Mapping[Any, Callable[..., None]],
    *,
    before: bool = False,
) -> None:
    """Run a network in evaluation mode until every hook has been called once.

    `hooks` maps layers to functions of the layer's output, before any inserted layer
    changes it, or of its input. Nothing of the network changes: no gradients, no
    running statistics, no random numbers.
    """
    waiting = set(hooks)
    if not waiting:
        return

    def see(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if layer in waiting:
            hooks[layer](args[0] if before else output)
            waiting.remove(layer)
        if not waiting:
            raise _AllSeen

    side = "input" if before else "output"
    with listening((layer, side, see) for layer in hooks), suppress(_AllSeen):
        run_once(module, batch)


def layer_names(module: nn.Module) -> list[str]:
    """Return the names of all layers, without the network itself and inserted ones."""
    inserted: set[str] = set()
    for name, part in module.named_modules():
        children = vars(part).get("_insertions", ())
        inserted |= {f"{name}.{child}".lstrip(".") for child in children}
    names = [name for name, _ in module.named_modules() if name]
    return [n for n in names if not any(f"{n}.".startswith(f"{i}.") for i in inserted)]


def find_layer(module: nn.Module, name: str) -> nn.Module:
    """Return the layer of that name; "" is the network itself."""
    layers = dict(module.named_modules(remove_duplicate=False))
    if name not in layers:
        names = layer_names(module)
        more = ", ..." if len(names) > NAMES_SHOWN else ""
        raise ValueError(
            f"The network has no layer named {name!r}; its layers are "
            f"{', '.join(map(repr, names[:NAMES_SHOWN]))}{more}."
        )
    found: nn.Module = layers[name]
    return found


def replace_layer(module: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Put a layer in the place of another, wherever that one stands."""
    old = find_layer(module, name)
    layer.train(old.training)
    if old is module:
        return layer
    for parent in list(module.modules()):
        for child, part in list(parent._modules.items()):
            if part is old:
                setattr(parent, child, layer)
    return module


def weighted_layers(module: nn.Module, sample: Any) -> dict[str, nn.Module]:
    """Return the linear and convolutional layers that run, in forward order.

    Layers of other classes count where these have ``has_linear_weight = True``: their
    weight is of shape (n_outputs, n_inputs). Left out are layers that the sample does
    not reach and weights that are computed from other parameters; of layers that
    share a weight the first one to run is there.
    """
    layers = {n: layer for n, layer in module.named_modules() if has_own_weight(layer)}
    found: dict[int, str] = {}
    for name in running_order(module, sample, layers):
        found.setdefault(id(layers[name].weight), name)
    return {name: layers[name] for name in found.values()}


def running_order(
    module: nn.Module, sample: Any, layers: Mapping[str, nn.Module]
) -> list[str]:
    """Return the names of those of the layers that run, in the order of their runs."""
    names: dict[str, None] = {}

    def remember(name: str) -> Listener:
        return lambda *_: names.setdefault(name)

    with listening((layer, "input", remember(n)) for n, layer in layers.items()):
        run_once(module, sample)
    return list(names)


def has_own_weight(layer: Any) -> bool:
    """Whether a layer is linear or convolutional, with a weight as its parameter."""
    if layer._parameters.get("weight") is None:
        return False
    return isinstance(layer, WEIGHTED) or hasattr(type(layer), "has_linear_weight")
