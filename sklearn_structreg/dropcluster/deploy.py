"""A network without its dropping layers, and with the same outputs."""

from __future__ import annotations

import copy
from typing import TypeGuard

import torch
from torch import Tensor, nn

from sklearn_structreg.dropcluster.depth import StochasticDepth
from sklearn_structreg.dropcluster.dropblock import _DropBlock
from sklearn_structreg.dropcluster.insertion import (
    inserted_layers,
    precedes,
    remove_layers,
)
from sklearn_structreg.dropcluster.layers import _DropCluster

__all__ = ["fold_masks"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_masks(module: nn.Module) -> nn.Module:
    """Take the dropping layers out, and write the masks into the weights.

    What drops in training only is gone without a trace in inference. The channels that
    DropCluster masks are zero because the weights that make them are: those of the
    convolution or batch normalization that the layer followed. After any other layer a
    convolution that multiplies each channel by one or zero takes its place. So it does
    where such a layer of this package is one of the network's own, not inserted; those
    that mask nothing become `torch.nn.Identity`.

    Parameters
    ----------
    module : torch.nn.Module
        Not changed.

    Returns
    -------
    torch.nn.Module
        A copy; in evaluation mode its outputs are those of `module`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sklearn_structreg.dropcluster import (
    ...     DropCluster2d, fold_masks, insert_layer)
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    >>> layer = DropCluster2d()
    >>> layer.set_clusters(torch.zeros(2, 4, 4, dtype=torch.int64),
    ...                    structured=torch.tensor([True, False]))
    >>> insert_layer(net, "0", layer)
    >>> folded = fold_masks(net)
    >>> bool((folded[0].weight[1] == 0).all()), len(list(folded.buffers()))
    (True, 0)
    """
    before = {name for name, x in inserted_layers(module).items() if precedes(x)}
    result = copy.deepcopy(module)
    for name, layer in remove_layers(result).items():
        if not _masks(layer):
            continue
        place = result.get_submodule(name)
        if name not in before and _is_maker(result, place):
            _zero_channels(place, ~layer.structured_channels)
        else:
            mask = _mask_layer(layer, place, result)
            pair = (mask, place) if name in before else (place, mask)
            result = _replace(result, name, nn.Sequential(*pair))
    for name, layer in list(result.named_modules(remove_duplicate=False)):
        if isinstance(layer, _DropCluster | _DropBlock | StochasticDepth):
            mask = (
                _mask_layer(layer, result, result) if _masks(layer) else nn.Identity()
            )
            result = _replace(result, name, mask.train(layer.training))
    return result


def _masks(layer: nn.Module) -> TypeGuard[_DropCluster]:
    """Whether a layer masks channels in inference."""
    return (
        isinstance(layer, _DropCluster)
        and layer.is_active
        and not bool(layer.structured_channels.all())
    )


def _is_maker(module: nn.Module, place: nn.Module) -> bool:
    """Whether a layer's own weights make its channels, and nobody else reads them."""
    weight = place._parameters.get("weight")
    if type(place) not in (*CONVOLUTIONS, *NORMS) or weight is None:
        return False
    users = [p for _, p in module.named_parameters(remove_duplicate=False)]
    return sum(p is weight for p in users) == 1


@torch.no_grad()
def _zero_channels(place: nn.Module, masked: Tensor) -> None:
    for parameter in place.parameters(recurse=False):
        parameter[masked] = 0


def _mask_layer(layer: _DropCluster, place: nn.Module, net: nn.Module) -> nn.Module:
    """Return a convolution that multiplies each channel by zero or one."""
    structured, n_dims = layer.structured_channels, layer.n_dims
    n_channels = len(structured)
    mask = CONVOLUTIONS[n_dims - 1](
        n_channels, n_channels, 1, groups=n_channels, bias=False
    )
    parameter = next(place.parameters(), next(net.parameters(), None))
    dtype = torch.float32 if parameter is None else parameter.dtype
    weight = structured.view(-1, *[1] * (n_dims + 1)).to(dtype)
    mask.weight = nn.Parameter(weight, requires_grad=False)
    return mask.train(place.training)


def _replace(module: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    if not name:
        return layer
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)
    return module
