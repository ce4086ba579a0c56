"""Insert layers before or after named layers of any network, and take them out again.

An inserted layer is a child of the named one, which calls it by a forward hook. So the
names of all other parameters stay as they were (a checkpoint of the plain network
loads, and ``net.conv1.weight`` is still there, as it would not be inside a wrapper);
``to``, ``train``, ``state_dict``, ``torch.export`` and pickles treat it as any other
layer; and networks whose code indexes or counts its containers still work.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any, NamedTuple

from torch import Tensor, nn

from sklearn_structreg.compaction.counting import uncompiled
from sklearn_structreg.core.checks import check_network, check_share
from sklearn_structreg.core.inspection import (
    find_layer,
    listening,
    replace_layer,
    run_once,
    run_until,
)

__all__ = [
    "InsertionPoint",
    "as_maps",
    "check_drop_rate",
    "check_spatial",
    "find_insertion_point",
    "first_tensor",
    "insert_layer",
    "inserted_layers",
    "insertions",
    "is_spatial",
    "remove_layers",
    "simplify_inserted",
    "transfer_layers",
]

CHILD = "inserted_layer"
"""Name of an inserted layer within its place; a second one there has a "_2"."""

TRAINING_ONLY = (nn.Identity, nn.modules.dropout._DropoutNd)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
AXES = {1: "length", 2: "height, width", 3: "depth, height, width"}


class Insertion(NamedTuple):
    """An inserted layer: its name in the network, and whom it follows or precedes."""

    name: str
    place: str
    before: bool
    layer: nn.Module


def insert_layer(
    module: nn.Module, name: str, layer: nn.Module, *, before: bool = False
) -> str:
    """Make a layer act on the output of a named layer.

    Parameters
    ----------
    module : torch.nn.Module
        The network, changed in place.
    name : str
        The named layer, as in ``module.named_modules()``; "" is the whole network.
        After a `torch.nn.Sequential` is after its last layer.
    layer : torch.nn.Module
        The layer to insert. It takes and returns one tensor, and is put into the
        training or evaluation mode of its place.
    before : bool, default=False
        Whether it acts on the first input of the named layer instead.

    Returns
    -------
    str
        The inserted layer's own name in the network.

    Raises
    ------
    ValueError
        If there is no layer of this name, or if it is a container whose own children
        the inserted layer would join.

    Notes
    -----
    Several layers at one place act in the order in which they were inserted. A network
    that `torch.compile` has compiled already is compiled anew at its next call.

    Examples
    --------
    >>> from torch import nn
    >>> from sklearn_structreg.core import insert_layer, remove_layers
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    >>> insert_layer(net, "0", nn.Dropout2d(0.2))
    '0.inserted_layer'
    >>> list(net.state_dict())
    ['0.weight', '0.bias']
    >>> remove_layers(net)
    {'0.inserted_layer': Dropout2d(p=0.2, inplace=False)}
    """
    check_network(module=module, layer=layer)
    place: Any = _place(module, name, last=not before)
    if "_insertions" not in vars(place):
        place._insertions = {}
        # Pickled with the place, the handles keep their numbers from being given out
        # again in another process: a hook of the same number would replace this one.
        place._insertion_hooks = [
            place.register_forward_pre_hook(_on_input, with_kwargs=True),
            place.register_forward_hook(_on_output),
        ]
        # torch.compile takes no notice of new hooks, but of a new `forward`.
        vars(place).setdefault("forward", MethodType(type(place).forward, place))
    child, number = CHILD, 1
    while child in place._modules:
        number += 1
        child = f"{CHILD}_{number}"
    place.add_module(child, layer.train(place.training))
    place._insertions[child] = before
    return next(each.name for each in insertions(module) if each.layer is layer)


def insertions(module: nn.Module) -> list[Insertion]:
    """List the inserted layers, those of one place in the order of their insertion."""
    found = []
    for place, part in module.named_modules():
        children: dict[str, bool] = vars(part).get("_insertions", {})
        for child, before in children.items():
            name = f"{place}.{child}" if place else child
            found.append(Insertion(name, place, before, part.get_submodule(child)))
    return found


def inserted_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the inserted layers by their names in the network."""
    return {each.name: each.layer for each in insertions(module)}


def remove_layers(
    module: nn.Module, layers: Collection[nn.Module] | None = None
) -> dict[str, nn.Module]:
    """Take inserted layers out again.

    Parameters
    ----------
    module : torch.nn.Module
        The network, changed in place.
    layers : collection of torch.nn.Module, default=None
        The inserted layers to take out; None is all of them.

    Returns
    -------
    dict of str to torch.nn.Module
        The layers taken out, by their names in the network.

    Raises
    ------
    ValueError
        If one of `layers` is not inserted in the network.

    Examples
    --------
    >>> from torch import nn
    >>> from sklearn_structreg.core import insert_layer, remove_layers
    >>> net, dropout = nn.Sequential(nn.Linear(4, 2)), nn.Dropout(0.2)
    >>> insert_layer(net, "0", dropout, before=True)
    '0.inserted_layer'
    >>> insert_layer(net, "0", nn.Tanh())
    '0.inserted_layer_2'
    >>> remove_layers(net, [dropout])
    {'0.inserted_layer': Dropout(p=0.2, inplace=False)}
    """
    check_network(module=module)
    found = insertions(module)
    if layers is not None:
        there = [each.layer for each in found]
        for layer in layers:
            if layer not in there:
                raise ValueError(
                    f"{layer} is not an inserted layer of this network; pass layers "
                    "that insert_layer has put in."
                )
        found = [each for each in found if each.layer in list(layers)]
    for each in found:
        place: Any = find_layer(module, each.place)
        child = each.name.rpartition(".")[2]
        delattr(place, child)
        del place._insertions[child]
        if not place._insertions:
            _clear(place)
    return {each.name: each.layer for each in found}


def transfer_layers(old: nn.Module, new: nn.Module) -> None:
    """Move the layers inserted at one layer to another, which takes its place."""
    found = [each for each in insertions(old) if each.place == ""]
    remove_layers(old, [each.layer for each in found])
    for each in found:
        insert_layer(new, "", each.layer, before=each.before)


def simplify_inserted(module: nn.Module) -> nn.Module:
    """Put plain layers in sequence with their places for all inserted ones, in place.

    Layers that act in training only go without a trace.
    """
    places: dict[str, list[Insertion]] = {}
    for each in insertions(module):
        places.setdefault(each.place, []).append(each)
    remove_layers(module)
    for name, inserted in reversed(places.items()):  # inner places keep their names
        place = find_layer(module, name)
        parts: dict[bool, list[nn.Module]] = {True: [], False: []}
        for each in inserted:
            plain: Any = each.layer
            if hasattr(plain, "simplified"):
                plain = plain.simplified()
            if not isinstance(plain, TRAINING_ONLY):
                parts[each.before].append(plain.train(place.training))
        if parts[True] or parts[False]:
            chain = nn.Sequential(*parts[True], place, *parts[False])
            module = replace_layer(module, name, chain)
    return module


def _clear(place: Any) -> None:
    for handle in place._insertion_hooks:
        handle.remove()
    del place._insertions, place._insertion_hooks
    if getattr(vars(place).get("forward"), "__func__", None) is type(place).forward:
        del place.forward


def _on_output(place: Any, args: Any, output: Tensor) -> Tensor:
    for child, before in place._insertions.items():
        if not before:
            output = getattr(place, child)(output)
    return output


def _on_input(place: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    for child, before in place._insertions.items():
        if before and args:
            args = (getattr(place, child)(args[0]), *args[1:])
        elif before and kwargs:
            names = inspect.signature(place.forward).parameters
            name = next((n for n in names if n in kwargs), next(iter(kwargs)))
            kwargs = {**kwargs, name: getattr(place, child)(kwargs[name])}
    return args, kwargs


# Compaction, which knows nothing of insertions, finds this by the hooks.
_on_input.simplified = simplify_inserted  # type: ignore[attr-defined]
_on_output.simplified = simplify_inserted  # type: ignore[attr-defined]


def _place(module: nn.Module, name: str, *, last: bool) -> nn.Module:
    """Find the named layer; of a plain Sequential, its last or first one."""
    place = uncompiled(find_layer(module, name))
    while type(place).forward is nn.Sequential.forward and len(place._modules):
        children = list(place.children())
        place = children[-1 if last else 0]
    if isinstance(place, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        raise ValueError(
            f"Layer {name!r} is a {type(place).__name__} that would take an inserted "
            "layer for one of its own; name a layer inside or after it."
        )
    return place


# ---- where to insert --------------------------------------------------------------


@dataclass(frozen=True)
class InsertionPoint:
    """The layer to insert after or before, and the (n_channels, ...) passing there."""

    layer: str
    before: bool
    shape: tuple[int, ...]

    @property
    def n_dims(self) -> int:
        """Number of spatial dimensions; flat features are a signal of one channel."""
        return max(1, len(self.shape) - 1)


def find_insertion_point(
    module: nn.Module, layer: str, sample: Any, min_pixels: int = 2
) -> InsertionPoint:
    """Find the insertion point for a layer's output, the "input", or "auto".

    "auto" is the output of the first convolution that runs, or else the input. Outputs
    must be maps of at least `min_pixels`; 0 admits any tensor.
    """
    if layer == "auto":
        layer = _first_convolution(module, sample) or "input"
    if layer == "input" and "input" not in module._modules:
        shape = tuple(first_tensor(sample).shape[1:])
        return InsertionPoint("", True, shape if len(shape) > 1 else (1, *shape))
    outputs: list[Any] = []
    hook = (find_layer(module, layer), "output", lambda *args: outputs.append(args[2]))
    with listening([hook]):
        run_once(module, sample)
    if len(outputs) != 1:
        raise ValueError(
            f"layer={layer!r} runs {len(outputs)} times in a forward pass; name one "
            "that runs once."
        )
    if not isinstance(outputs[0], Tensor):
        raise ValueError(
            f"The output of layer {layer!r} is not a tensor but a "
            f"{type(outputs[0]).__name__}; name a layer that returns one tensor."
        )
    if min_pixels:
        check_spatial(layer, outputs[0], min_pixels)
    return InsertionPoint(layer, False, tuple(outputs[0].shape[1:]))


def first_tensor(batch: Any) -> Tensor:
    """Return the first input of a network from its batch."""
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    first: Tensor = batch if isinstance(batch, Tensor) else batch[0]
    return first


def is_spatial(output: Any, min_pixels: int = 2) -> bool:
    """Check for feature maps of at least so many pixels."""
    return (
        isinstance(output, Tensor)
        and 3 <= output.ndim <= 5
        and output.shape[2:].numel() >= min_pixels
    )


def check_spatial(layer: str, output: Any, min_pixels: int = 2) -> None:
    """Raise if an output is not made of feature maps."""
    if not is_spatial(output, min_pixels):
        known = isinstance(output, Tensor)
        shape = tuple(output.shape) if known else type(output).__name__
        raise ValueError(
            f"The output of layer {layer!r}, {shape}, has no spatial extent of "
            f"{min_pixels} pixels; name a layer whose output has shape "
            "(n, n_channels, ...) and at least as many."
        )


def _first_convolution(module: nn.Module, sample: Any) -> str | None:
    order: list[str] = []
    hooks = {
        part: lambda _, name=name: order.append(name)
        for name, part in module.named_modules()
        if name and isinstance(part, CONVOLUTIONS)
    }
    run_until(module, sample, hooks)
    return order[0] if order else None


def as_maps(x: Tensor, n_dims: int) -> Tensor:
    """View a mini-batch as feature maps; flat rows are signals of one channel."""
    if n_dims == 1 and x.ndim == 2:
        return x[:, None]
    if x.ndim != n_dims + 2:
        raise ValueError(
            f"A mini-batch of shape {tuple(x.shape)} came to a layer for "
            f"(n, n_channels, {AXES[n_dims]}); use the layer for "
            f"{max(x.ndim - 2, 0)} spatial dimension(s), or reshape."
        )
    return x


def check_drop_rate(drop_rate: float) -> float:
    """Return a rate in [0, 1), or raise."""
    return check_share("drop_rate", drop_rate, below_one=True)
