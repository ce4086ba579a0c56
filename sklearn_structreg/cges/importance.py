"""Feature importances: the norms of the first layer's weights over the inputs."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sklearn_structreg.core.insertion import remove_layers
from sklearn_structreg.core.inspection import find_layer, listening

__all__ = ["first_layer_norms"]


def first_layer_norms(
    module: nn.Module, name: str, input_shape: Sequence[int]
) -> NDArray[np.float64]:
    """Return the norm of all weights that leave each input feature.

    `name` is the parameter name of the first layer's weight. Under a convolution a
    pixel's norm runs over all filters and all positions of the kernel that cover it.

    >>> layer = torch.nn.Linear(3, 2)
    >>> with torch.no_grad():
    ...     _ = layer.weight.copy_(torch.tensor([[3.0, 0.0, 1.0], [4.0, 0.0, 0.0]]))
    >>> first_layer_norms(layer, "weight", (3,))
    array([5., 0., 1.])
    """
    module = copy.deepcopy(module).cpu().double().eval()
    layer = find_layer(module, name.rpartition(".")[0])
    if name.rpartition(".")[2] != "weight":
        raise _unreadable(f"{name} is the first weight")
    shape = _check_first(module, layer, input_shape)
    simplified = getattr(layer, "simplified", None)
    squared = copy.deepcopy(layer) if simplified is None else simplified()
    remove_layers(squared)  # of standardized features, hence without their scales
    for key, parameter in squared.named_parameters():
        parameter.detach().square_() if key == "weight" else parameter.detach().zero_()
    features = torch.zeros((1, *shape), dtype=torch.float64, requires_grad=True)
    (columns,) = torch.autograd.grad(squared(features).sum(), features)
    norms: NDArray[np.float64] = columns.flatten().sqrt().numpy()
    return norms


def _check_first(
    module: nn.Module, layer: nn.Module, input_shape: Sequence[int]
) -> tuple[int, ...]:
    """Check that features act through a layer alone, and return its input's shape."""
    samples = _probes(input_shape).requires_grad_()
    seen: list[Tensor] = []

    def see(_: nn.Module, inputs: tuple[Tensor, ...], output: None) -> None:
        seen.append(inputs[0].detach())

    def cut(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.detach()

    with listening([(layer, "input", see), (layer, "output", cut)]):
        output = module(samples)
    gradient = None
    if output.requires_grad:
        (gradient,) = torch.autograd.grad(output.sum(), samples, allow_unused=True)
    n_features = samples[0].numel()
    reached = seen[0].reshape(len(seen[0]), -1)
    mixed = reached.shape != (len(samples), n_features) or bool(
        ((reached[1:] != reached[:1]) & ~_changed(n_features)).any()
    )
    if mixed or gradient is not None:
        reason = (
            "its inputs are not the features one by one"
            if mixed
            else "the features also reach the outputs past that layer"
        )
        raise _unreadable(reason)
    return tuple(seen[0].shape[1:])


def _unreadable(reason: str) -> ValueError:
    return ValueError(
        "feature_importances_ are norms of the first linear or convolutional layer, "
        f"but in this network {reason}; use sklearn.inspection.permutation_importance."
    )


def _changed(n_features: int) -> Tensor:
    """Return sets of features, (n_sets, n_features): of any two, some hold one only."""
    # The bits of a feature's number, and their complements.
    n_bits = max(1, math.ceil(math.log2(n_features)))
    bits = (torch.arange(n_features) >> torch.arange(n_bits)[:, None]) & 1
    return torch.cat([bits, 1 - bits]).bool()


def _probes(input_shape: Sequence[int]) -> Tensor:
    """Return a sample, and copies that differ from it in the sets of `_changed`."""
    generator = torch.Generator().manual_seed(0)
    n_features = math.prod(input_shape)
    base, other = torch.randn(2, n_features, generator=generator, dtype=torch.float64)
    changed = torch.where(_changed(n_features), other, base)
    return torch.cat([base[None], changed]).reshape(-1, *input_shape)
