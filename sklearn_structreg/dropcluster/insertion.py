"""Put a layer after (or before) any named layer of any network, and take it out again.

The inserted layer is a child of the named one and is called by a forward hook. So the
names of all other parameters stay what they were (a checkpoint of the plain network
loads, and ``net.conv1.weight`` is still there, as it would not be inside a wrapper);
``to``, ``train``, ``state_dict``, ``torch.export`` and pickles see it as they see any
layer; and networks built by code that indexes or measures its containers still work.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

__all__ = ["NAME", "insert_layer", "inserted_layers", "precedes", "remove_layers"]

NAME = "structured_dropout"
"""The inserted layer's name within the one it follows."""


def insert_layer(
    module: nn.Module, name: str, layer: nn.Module, *, before: bool = False
) -> None:
    """Make a layer act on the output of a named layer.

    Parameters
    ----------
    module : torch.nn.Module
        The network, changed in place.
    name : str
        The named layer, as ``module.named_modules()`` has it; "" is the whole network.
        After a `torch.nn.Sequential` is after its last layer.
    layer : torch.nn.Module
        What to insert. It takes and returns one tensor, and is put into the training or
        evaluation mode of its place.
    before : bool, default=False
        Whether it acts on the named layer's input instead.

    Raises
    ------
    ValueError
        If there is no layer of this name, if it has an inserted layer already, or if
        it is a container whose own children the inserted layer would join.

    Examples
    --------
    >>> from torch import nn
    >>> from sklearn_structreg.dropcluster import (
    ...     DropBlock2d, insert_layer, remove_layers)
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    >>> insert_layer(net, "0", DropBlock2d(3))
    >>> list(net.state_dict())
    ['0.weight', '0.bias']
    >>> list(remove_layers(net))
    ['0']
    """
    place = _place(module, name, last=not before)
    if NAME in place._modules:
        raise ValueError(
            f"Layer {name!r} has an inserted layer already; remove_layers takes it out."
        )
    place.add_module(NAME, layer.train(place.training))
    handle: Any
    if before:
        handle = place.register_forward_pre_hook(_on_input)
    else:
        handle = place.register_forward_hook(_on_output)
    # Pickled with the layer, the handle keeps its number from being given out again in
    # another process: a hook of the same number would replace this one.
    insertion: Any = (handle, before)
    layer._insertion = insertion


def inserted_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the inserted layers by the names of those they follow or precede.

    Parameters
    ----------
    module : torch.nn.Module
        A network.

    Returns
    -------
    dict of str to torch.nn.Module
    """
    return {
        name: part._modules[NAME]
        for name, part in module.named_modules()
        if part._modules.get(NAME) is not None
    }


def precedes(layer: nn.Module) -> bool:
    """Whether an inserted layer acts on the input of its place."""
    insertion: Any = layer._insertion
    return bool(insertion[1])


def remove_layers(
    module: nn.Module, names: Collection[str] | None = None
) -> dict[str, nn.Module]:
    """Take inserted layers out, and leave the network as it was before.

    Parameters
    ----------
    module : torch.nn.Module
        The network, changed in place.
    names : collection of str, default=None
        Which, by their names in `inserted_layers`; None is all.

    Returns
    -------
    dict of str to torch.nn.Module
        Those taken out, by their names.

    Raises
    ------
    ValueError
        If there is no inserted layer of such a name.
    """
    found = inserted_layers(module)
    if names is not None:
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in found:
                raise ValueError(
                    f"There is no inserted layer at {name!r}; those there are at "
                    f"{list(found)}."
                )
        found = {name: found[name] for name in names}
    for name, layer in found.items():
        insertion: Any = layer._insertion
        insertion[0].remove()
        del layer._insertion
        delattr(module.get_submodule(name), NAME)
    return found


def _on_output(place: nn.Module, args: Any, output: Tensor) -> Tensor:
    result: Tensor = getattr(place, NAME)(output)
    return result


def _on_input(place: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (getattr(place, NAME)(args[0]), *args[1:])


def _place(module: nn.Module, name: str, *, last: bool) -> nn.Module:
    """Find the named layer; of a plain Sequential, its last or first one."""
    try:
        place = module.get_submodule(name)
    except AttributeError:
        names = [n for n, _ in module.named_modules() if n and NAME not in n]
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise ValueError(
            f"The network has no layer named {name!r}; its layers are {shown}."
        ) from None
    while type(place).forward is nn.Sequential.forward and len(place._modules):
        children = list(place.children())
        place = children[-1 if last else 0]
    if isinstance(place, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        raise ValueError(
            f"Layer {name!r} is a {type(place).__name__} that would take an inserted "
            "layer for one of its own; name a layer inside or after it."
        )
    return place
