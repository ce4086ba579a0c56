"""The outputs of a network's layers that are feature maps."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from torch import Tensor, nn

from sklearn_structreg.core.checks import check_network
from sklearn_structreg.core.insertion import (
    as_maps,
    check_spatial,
    inserted_layers,
    is_spatial,
)
from sklearn_structreg.core.inspection import find_layer, run_until

__all__ = ["feature_maps"]


def feature_maps(
    module: nn.Module, batch: Tensor, layers: str | Collection[str] | None = None
) -> dict[str, Tensor]:
    """Return the outputs of the layers with spatial outputs, in forward order.

    Of a layer that runs several times these are the first outputs. Masks of inserted
    layers are not applied to them.

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

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sklearn_structreg.dropcluster import feature_maps
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())
    >>> maps = feature_maps(net, torch.rand(2, 1, 8, 8))
    >>> {name: tuple(values.shape) for name, values in maps.items()}
    {'0': (2, 4, 6, 6), '1': (2, 4, 6, 6)}
    """
    check_network(module=module)
    found: dict[str, Tensor] = {}

    def keep(names: list[str], output: Any) -> None:
        if layers is not None:
            check_spatial(names[0], output)
        if is_spatial(output):
            # A copy: later layers may work in place.
            found.update(dict.fromkeys(names, output.clone()))

    if layers is None:
        inserted = inserted_layers(module)
        known = {
            name: part
            for name, part in module.named_modules()
            if name and name not in inserted and not isinstance(part, nn.Sequential)
        }
    else:
        names = [layers] if isinstance(layers, str) else list(layers)
        if "input" in names and "input" not in module._modules:
            keep(["input"], as_maps(batch, max(1, batch.ndim - 2)))
            names = [name for name in names if name != "input"]
        known = {name: find_layer(module, name) for name in names}
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
