"""How much a network's first layer makes of each input feature."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sklearn_structreg.core.modules import run_once

__all__ = ["first_layer_norms"]


def first_layer_norms(
    module: nn.Module, name: str, input_shape: Sequence[int]
) -> NDArray[np.float64]:
    """Return the norms of all weights that leave each input feature.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    name : str
        Parameter name of the first layer's weight; linear or convolutional.
    input_shape : sequence of int
        Of one sample.

    Returns
    -------
    ndarray of shape (n_features,)
        At least 0; 0 means that the feature does not change the outputs. A pixel under
        a convolution has the norm of its column of the matrix that the convolution is:
        over all filters and all positions of the kernel that cover it.

    Raises
    ------
    ValueError
        If a feature takes another way than through its place in the first layer's
        input, so that these norms would not tell whether it is used.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.cges.importance import first_layer_norms
    >>> layer = torch.nn.Linear(3, 2)
    >>> with torch.no_grad():
    ...     _ = layer.weight.copy_(torch.tensor([[3.0, 0.0, 1.0], [4.0, 0.0, 0.0]]))
    >>> first_layer_norms(layer, "weight", (3,))
    array([5., 0., 1.])
    """
    layer = module.get_submodule(name.rpartition(".")[0])
    shape = _check_first(module, layer, input_shape)
    squared = copy.deepcopy(layer).double()
    for key, parameter in squared.named_parameters():
        parameter.detach().square_() if key == "weight" else parameter.detach().zero_()
    features = torch.zeros((1, *shape), dtype=torch.float64, requires_grad=True)
    (columns,) = torch.autograd.grad(squared.cpu()(features).sum(), features)
    norms: NDArray[np.float64] = columns.flatten().sqrt().numpy()
    return norms


def _check_first(
    module: nn.Module, layer: nn.Module, input_shape: Sequence[int]
) -> tuple[int, ...]:
    """Check that all features go through a layer, each in its place.

    Returns
    -------
    tuple of int
        The shape of one sample as the layer sees it.
    """
    parameter = next(layer.parameters())
    samples = _probes(input_shape).to(parameter.device, parameter.dtype)
    seen: list[Tensor] = []

    def cut(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        seen.append(inputs[0].detach())
        return output.detach()

    handle = layer.register_forward_hook(cut)
    try:
        run_once(module, samples)
        bypassed = _reaches_output(module, samples[:1])
    finally:
        handle.remove()
    n_features = samples[0].numel()
    reached = seen[0].reshape(len(seen[0]), -1)
    mixed = reached.shape != (len(samples), n_features) or bool(
        ((reached[1:] != reached[:1]) & ~_changed(n_features).to(reached.device)).any()
    )
    if bypassed or mixed:
        raise ValueError(
            "feature_importances_ are read off the first penalised layer, but in this "
            "network "
            + (
                "the features also reach the outputs by another way"
                if bypassed
                else "that layer does not see each feature in a place of its own"
            )
            + "; use sklearn.inspection.permutation_importance."
        )
    return tuple(seen[0].shape[1:])


def _changed(n_features: int) -> Tensor:
    """Return sets of features such that any two are told apart by one, both ways.

    The bits of a feature's number, and their complements: bool of shape
    ``(n_sets, n_features)``.
    """
    n_bits = max(1, math.ceil(math.log2(n_features)))
    bits = (torch.arange(n_features) >> torch.arange(n_bits)[:, None]) & 1
    return torch.cat([bits, 1 - bits]).bool()


def _probes(input_shape: Sequence[int]) -> Tensor:
    """Return a sample, and copies that differ from it in the sets of `_changed`."""
    generator = torch.Generator().manual_seed(0)
    n_features = math.prod(input_shape)
    base, other = torch.randn(2, n_features, generator=generator)
    changed = torch.where(_changed(n_features), other, base)
    return torch.cat([base[None], changed]).reshape(-1, *input_shape)


def _reaches_output(module: nn.Module, sample: Tensor) -> bool:
    """Tell whether the outputs depend on the sample by automatic differentiation."""
    sample = sample.clone().requires_grad_()
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        output = module(sample)
    finally:
        for part, mode in modes.items():
            part.training = mode
    if not output.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(output.sum(), sample, allow_unused=True)
    return gradient is not None
