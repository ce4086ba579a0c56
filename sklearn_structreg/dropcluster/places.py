"""Which layers of a network have spatial outputs, and what those are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from sklearn_structreg.core.modules import run_once
from sklearn_structreg.dropcluster.insertion import NAME
from sklearn_structreg.dropcluster.shapes import as_maps

__all__ = ["Place", "feature_maps", "find_place", "run_until"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Place:
    """Where a layer can be put.

    Attributes
    ----------
    layer : str
        Name of the layer that it follows or precedes; "" is the whole network.
    before : bool
        Whether it precedes it.
    shape : tuple of int
        ``(n_channels, ...)`` of what passes there; flat features are one channel.
    """

    layer: str
    before: bool
    shape: tuple[int, ...]


class _Reached(Exception):  # noqa: N818 (no error)
    """All that was to be seen has been seen."""


def run_until(
    module: nn.Module,
    batch: Any,
    hooks: Mapping[Any, Callable[..., None]],
    *,
    before: bool = False,
) -> None:
    """Run a network in evaluation mode until every hook has been called once.

    Nothing of the network changes: no gradients, no running statistics, no random
    numbers.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    batch : torch.Tensor
        Its input.
    hooks : mapping of torch.nn.Module to callable
        Called with a layer's output, before any inserted layer changes it, or with its
        input.
    before : bool, default=False
        Whether with its input.
    """
    waiting = set(hooks)
    if not waiting:
        return

    def see(layer: nn.Module, args: Any, output: Any = None) -> None:
        if layer in waiting:
            hooks[layer](args[0] if before else output)
            waiting.remove(layer)
        if not waiting:
            raise _Reached

    handles = [
        layer.register_forward_pre_hook(see, prepend=True)
        if before
        else layer.register_forward_hook(see, prepend=True)
        for layer in hooks
    ]
    try:
        run_once(module, batch)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()


def feature_maps(
    module: nn.Module, batch: Tensor, layers: str | Collection[str] | None = None
) -> dict[str, Tensor]:
    """Return what comes out of the layers with spatial outputs, in forward order.

    A layer that runs several times counts the first time. What an inserted layer masks
    is returned unmasked.

    Parameters
    ----------
    module : torch.nn.Module
        The network, run in evaluation mode and left as it was.
    batch : torch.Tensor of shape (n, ...)
        Its input.
    layers : str or collection of str, default=None
        Names of layers, or "input"; None is every layer but plain containers.

    Returns
    -------
    dict of str to Tensor of shape (n, n_channels, ...)

    Raises
    ------
    ValueError
        If a named layer does not exist, does not run, or has no spatial output.
    """
    parts = dict(module.named_modules(remove_duplicate=False))
    known = {
        name: part
        for name, part in module.named_modules()
        if name and NAME not in name.split(".") and not isinstance(part, nn.Sequential)
    }
    found: dict[str, Tensor] = {}

    def keep(names: list[str], output: Any) -> None:
        if is_spatial(output):
            # A copy: what follows may work in place.
            found.update(dict.fromkeys(names, output.clone()))
        elif layers is not None:
            raise ValueError(no_extent(names[0], output))

    if layers is not None:
        names = [layers] if isinstance(layers, str) else list(layers)
        if "input" in names and "input" not in module._modules:
            keep(["input"], as_maps(batch, max(1, batch.ndim - 2)))
            names = [name for name in names if name != "input"]
        for name in names:
            if name not in parts or not name:
                raise ValueError(
                    f"The network has no layer named {name!r}; its layers are "
                    f"{', '.join(known)}."
                )
        known = {name: parts[name] for name in names}
    named: dict[nn.Module, list[str]] = {}
    for name, part in known.items():
        named.setdefault(part, []).append(name)
    run_until(module, batch, {part: partial(keep, n) for part, n in named.items()})
    missing = set(known) - set(found) if layers is not None else set()
    if missing:
        raise ValueError(
            f"Layer {min(missing)!r} does not run on this input; name one that does."
        )
    return found


def find_place(
    module: nn.Module, layer: str, sample: Tensor, *, min_pixels: int = 2
) -> Place:
    """Find where a layer is to be put.

    Parameters
    ----------
    module : torch.nn.Module
        The network, run once in evaluation mode and left as it was.
    layer : str
        Name of a layer, whose output it is; "input"; or "auto": the output of the
        first convolution that runs, or else the input.
    sample : torch.Tensor of shape (n, ...)
        A few samples.
    min_pixels : int, default=2
        What an output must have at least; 0 takes outputs that are no maps, too.

    Returns
    -------
    Place

    Raises
    ------
    ValueError
        If the layer does not exist, does not run exactly once, or if its output is no
        tensor or has no spatial extent.
    """
    if layer == "auto":
        layer = _first_convolution(module, sample) or "input"
    if layer == "input" and "input" not in module._modules:
        shape = sample.shape[1:]
        return Place("", True, tuple(shape) if len(shape) > 1 else (1, *shape))
    outputs: list[Any] = []
    parts = dict(module.named_modules(remove_duplicate=False))
    if layer not in parts or not layer:
        names = [name for name in parts if name and NAME not in name.split(".")]
        raise ValueError(
            f"layer={layer!r} is no layer of the network; its layers are "
            f"{', '.join(names)}."
        )
    handle = parts[layer].register_forward_hook(
        lambda _, args, output: outputs.append(output)
    )
    try:
        run_once(module, sample)
    finally:
        handle.remove()
    if len(outputs) != 1:
        raise ValueError(
            f"layer={layer!r} runs {len(outputs)} times in a forward pass; name one "
            "that runs once."
        )
    if not isinstance(outputs[0], Tensor):
        raise ValueError(
            f"The output of layer {layer!r} is no tensor but of type "
            f"{type(outputs[0]).__name__}; name a layer that returns one tensor."
        )
    if min_pixels and not is_spatial(outputs[0], min_pixels):
        raise ValueError(no_extent(layer, outputs[0]))
    return Place(layer, False, tuple(outputs[0].shape[1:]))


def is_spatial(output: Any, min_pixels: int = 2) -> bool:
    """Whether an output is feature maps of so many pixels."""
    return (
        isinstance(output, Tensor)
        and 3 <= output.ndim <= 5
        and output.shape[2:].numel() >= min_pixels
    )


def no_extent(layer: str, output: Any) -> str:
    """Say that an output is no feature maps."""
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    return (
        f"The output of layer {layer!r}, {shape}, has no spatial extent; name a layer "
        "whose output has shape (n, n_channels, ...) and more than one pixel."
    )


def _first_convolution(module: nn.Module, sample: Tensor) -> str | None:
    order: list[str] = []
    run_until(
        module,
        sample,
        {
            part: lambda _, name=name: order.append(name)
            for name, part in module.named_modules()
            if isinstance(part, CONVOLUTIONS)
        },
    )
    return order[0] if order else None
