"""The networks to train: defaults from the data's shape, or the user's own."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from sklearn_structreg.compaction.counting import uncompiled
from sklearn_structreg.core.checks import check_sizes, is_integer
from sklearn_structreg.core.messages import explaining, shown

__all__ = ["ModuleLike", "build_module", "make_convnet", "make_mlp"]

ModuleLike = str | nn.Module | type[nn.Module] | Callable[..., nn.Module]


def make_mlp(
    n_inputs: int,
    n_outputs: int,
    hidden_layer_sizes: int | Sequence[int] = (100,),
) -> nn.Sequential:
    """Build a multilayer perceptron with ReLU units; its outputs are logits.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Numbers of features and of classes.
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Units per hidden layer; an int is one layer, empty is a linear model.

    Returns
    -------
    torch.nn.Sequential

    Examples
    --------
    >>> from sklearn_structreg.core import make_mlp
    >>> make_mlp(64, 10, (32,))
    Sequential(
      (0): Linear(in_features=64, out_features=32, bias=True)
      (1): ReLU()
      (2): Linear(in_features=32, out_features=10, bias=True)
    )
    """
    check_sizes("(n_inputs, n_outputs)", (n_inputs, n_outputs))
    layers: list[nn.Module] = []
    several = not is_integer(hidden_layer_sizes)
    sizes = hidden_layer_sizes if several else [hidden_layer_sizes]
    for n_units in check_sizes("hidden_layer_sizes", sizes, empty=True):
        layers += [nn.Linear(n_inputs, n_units), nn.ReLU()]
        n_inputs = n_units
    return nn.Sequential(*layers, nn.Linear(n_inputs, n_outputs))


def make_convnet(
    input_shape: Sequence[int],
    n_outputs: int,
    hidden_layer_sizes: int | Sequence[int] = (100,),
    n_channels: Sequence[int] = (32, 64),
) -> nn.Sequential:
    """Build a small convolutional net: conv, ReLU, pool per entry, then an MLP.

    Parameters
    ----------
    input_shape : sequence of int
        ``(C, L)``, ``(C, H, W)`` or ``(C, D, H, W)``.
    n_outputs : int
        Number of classes; the outputs are logits.
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Units per hidden layer of the fully-connected head.
    n_channels : sequence of int, default=(32, 64)
        Output channels of each convolution. Kernels are 3 wide, maps are halved after
        each where they are at least two pixels wide.

    Returns
    -------
    torch.nn.Sequential

    Examples
    --------
    >>> from sklearn_structreg.core import make_convnet
    >>> net = make_convnet((1, 8, 8), 10)
    >>> net[-3]
    Linear(in_features=256, out_features=100, bias=True)
    """
    channels, *size = check_sizes("input_shape", input_shape)
    if len(size) not in (1, 2, 3):
        raise ValueError(
            f"No default network fits samples of shape {tuple(input_shape)}; pass a "
            "module, or samples of shape (C, L), (C, H, W) or (C, D, H, W)."
        )
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(size) - 1]
    pooling = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[len(size) - 1]
    layers: list[nn.Module] = []
    for width in check_sizes("n_channels", n_channels, empty=True):
        kernel = tuple(min(2, pixels) for pixels in size)
        layers += [convolution(channels, width, 3, padding=1), nn.ReLU()]
        if max(kernel) > 1:
            layers.append(pooling(kernel))
        channels, size = width, [s // k for s, k in zip(size, kernel, strict=True)]
    head = make_mlp(channels * math.prod(size), n_outputs, hidden_layer_sizes)
    return nn.Sequential(*layers, nn.Flatten(), *head)


def build_module(
    module: ModuleLike,
    module_params: Mapping[str, Any] | None,
    input_shape: Sequence[int],
    n_outputs: int,
    hidden_layer_sizes: int | Sequence[int],
) -> nn.Module:
    """Build the network that the `module` parameter of the estimators describes."""
    params = dict(module_params or {})
    if params and (isinstance(module, str | nn.Module)):
        raise ValueError(
            f"module_params={params!r} needs a module class or factory to go to, but "
            f"module is {'an instance' if isinstance(module, nn.Module) else module!r};"
            " pass the class, or leave module_params=None."
        )
    if isinstance(module, nn.Module):
        return copy.deepcopy(uncompiled(module))
    if isinstance(module, str):
        if len(input_shape) == 1:
            return make_mlp(input_shape[0], n_outputs, hidden_layer_sizes)
        return make_convnet(input_shape, n_outputs, hidden_layer_sizes)
    shape = {"input_shape": tuple(input_shape), "n_outputs": n_outputs}
    with explaining(
        f"module={shown(module)} cannot be built: {{}}; see module_params."
    ):
        if inspect.isclass(module):
            wanted = inspect.signature(module).parameters
            params = {k: v for k, v in shape.items() if k in wanted} | params
            built = module(**params)
        else:
            built = module(*shape.values(), **params)
    if not isinstance(built, nn.Module):
        raise TypeError(
            f"module={module!r} returned a {type(built).__name__}; a factory "
            "(input_shape, n_outputs) must return a torch.nn.Module."
        )
    return uncompiled(built)
