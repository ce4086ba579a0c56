"""Fold DropCluster's masks into the weights of a network."""

from __future__ import annotations

import copy
from typing import TypeGuard

import torch
from torch import Tensor, nn

from sklearn_structreg.core.checks import check_network
from sklearn_structreg.core.insertion import (
    CONVOLUTIONS,
    insertions,
    remove_layers,
    simplify_inserted,
)
from sklearn_structreg.core.inspection import find_layer, replace_layer
from sklearn_structreg.dropcluster.layers import _DropCluster

__all__ = ["fold_masks"]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_masks(module: nn.Module) -> nn.Module:
    """Take inserted layers out of a network, and write their masks into its weights.

    Layers that drop in training only leave no trace. The channels that DropCluster
    masks become zero by the weights that make them: those of the convolution or batch
    normalization that the layer followed. After any other layer, a convolution that
    multiplies each channel by one or zero takes its place; likewise for DropCluster
    layers that the network itself contains, not by insertion.

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
    >>> from sklearn_structreg.core import insert_layer
    >>> from sklearn_structreg.dropcluster import DropCluster2d, fold_masks
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    >>> layer = DropCluster2d()
    >>> layer.set_clusters(torch.zeros(2, 4, 4, dtype=torch.int64),
    ...                    structured=torch.tensor([True, False]))
    >>> _ = insert_layer(net, "0", layer)
    >>> folded = fold_masks(net)
    >>> bool((folded[0].weight[1] == 0).all()), len(list(folded.buffers()))
    (True, 0)
    """
    check_network(module=module)
    result = copy.deepcopy(module)
    kept = set()
    for each in insertions(result):
        place, layer = find_layer(result, each.place), each.layer
        follows = not each.before and each.place not in kept
        if _masks(layer) and follows and _is_maker(result, place):
            _zero_channels(place, ~layer.structured_channels)
            remove_layers(result, [layer])
        elif not each.before:
            kept.add(each.place)
    result = simplify_inserted(result)
    for name, layer in list(result.named_modules()):
        if isinstance(layer, _DropCluster):
            result = replace_layer(result, name, layer.simplified())
    return result


def _masks(layer: nn.Module) -> TypeGuard[_DropCluster]:
    """Check for masked channels."""
    return isinstance(layer, _DropCluster) and not layer.structured_channels.all()


def _is_maker(module: nn.Module, place: nn.Module) -> bool:
    """Check that a layer's own weights, which no other layer reads, make its output."""
    weight = place._parameters.get("weight")
    if type(place) not in (*CONVOLUTIONS, *NORMS) or weight is None:
        return False
    users = [p for _, p in module.named_parameters(remove_duplicate=False)]
    return sum(p is weight for p in users) == 1


@torch.no_grad()
def _zero_channels(place: nn.Module, masked: Tensor) -> None:
    for parameter in place.parameters(recurse=False):
        parameter[masked] = 0
