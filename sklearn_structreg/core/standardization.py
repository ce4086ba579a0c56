"""Raw samples in: their mean and scale as the network's fixed first layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.insertion import insertions, remove_layers
from sklearn_structreg.core.inspection import find_layer, replace_layer
from sklearn_structreg.core.recipe import TensorSpec

__all__ = ["Standardize", "fold_standardization", "take_standardization"]

BLOCK_ROWS = 4096


class Standardize(nn.Module):
    """Subtract a mean and divide by a scale, in double precision.

    Samples may so have any offset; the result has the precision of the network.

    Parameters
    ----------
    mean, scale : ndarray of shape (n_features,) or (n_channels, 1, ...)
        Scales above zero.
    """

    mean: Tensor
    factor: Tensor
    like: Tensor

    def __init__(self, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("factor", torch.from_numpy(1 / scale))
        self.register_buffer("like", torch.zeros(()), persistent=False)

    @classmethod
    def of(cls, data: TrainingData, spec: TensorSpec) -> Standardize:
        """Measure samples, sample weights counted in: 0 is absent, k is k copies.

        Flat rows have a mean and a scale for each feature, images for each channel. The
        scale of a constant one is 1.
        """
        if data.n_rows <= BLOCK_ROWS and not isinstance(data.samples, Dataset):
            # In canonical order: sums come out the same to the last bit.
            data = data.with_equal_rows_merged()
        mean, extent = _average(data, spec, lambda x: x)
        variance, _ = _average(data, spec, lambda x: (x - mean[:, None]) ** 2)
        scale = np.where(extent > 0, np.sqrt(variance), 1.0)
        shape = mean.shape + (1,) * (len(spec.shape) - 1)
        return cls(mean.reshape(shape), scale.reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Standardize samples of shape (n, ...)."""
        return ((x - self.mean) * self.factor).to(self.like.dtype)

    def simplified(self) -> nn.Module:
        """Return a batch normalization that does the same in evaluation."""
        n_channels, n_dims = len(self.mean), max(1, self.mean.ndim - 1)
        kinds = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
        norm = kinds[n_dims - 1](n_channels, eps=0.0, affine=False)
        norm = norm.to(self.like)
        norm.running_mean.copy_(self.mean.flatten())  # type: ignore[union-attr]
        norm.running_var.copy_(self.factor.flatten() ** -2)  # type: ignore[union-attr]
        return norm.eval()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Standardize:
        """Move to a device; mean and factor stay in double precision."""
        mean, factor = self.mean, self.factor
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.mean = mean.to(self.mean.device)
        self.factor = factor.to(self.factor.device)
        return self


def fold_standardization(module: nn.Module) -> nn.Module:
    """Return a network of plain layers that takes raw samples, changed in place.

    The weights of a linear layer take mean and scale in; before a convolution, which
    pads with zeros, they become a batch normalization.
    """
    found = next((x for x in insertions(module) if type(x.layer) is Standardize), None)
    if found is None:
        return module
    place, layer = find_layer(module, found.place), found.layer
    remove_layers(module, [layer])
    if type(place) is nn.Linear:
        _fold_into(place, layer)
        return module
    chain = nn.Sequential(layer.simplified(), place)  # type: ignore[operator]
    return replace_layer(module, found.place, chain).eval()


def take_standardization(module: nn.Module) -> tuple[str, Standardize] | None:
    """Take the layer out, if there is one; return it with the name of its place."""
    for each in insertions(module):
        if isinstance(each.layer, Standardize):
            remove_layers(module, [each.layer])
            return each.place, each.layer
    return None


@torch.no_grad()
def _fold_into(linear: nn.Linear, layer: Any) -> None:
    weight = linear.weight.double() * layer.factor
    shift = -(weight @ layer.mean)
    if linear.bias is None:
        linear.bias = nn.Parameter(linear.weight.new_zeros(linear.out_features))
    linear.bias.copy_(linear.bias.double() + shift)
    linear.weight.copy_(weight)


def _average(
    data: TrainingData, spec: TensorSpec, function: Callable[..., Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weighted mean of a function of the entries, and their range."""
    spec = replace(spec, device=torch.device("cpu"))
    batches = data.batches(spec, batch_size=BLOCK_ROWS, normalize=False)
    unit = 1.0 if data.weight is None else data.weight.max()  # sums might overflow
    total, sum_of_weights, low, high = 0.0, 0.0, np.inf, -np.inf
    for samples, _, weights in batches.epoch(None):
        x = samples.double().numpy().reshape(len(samples), spec.shape[0], -1)
        weight = np.ones(len(x)) if weights is None else weights.double().numpy() / unit
        total = total + np.einsum("n,ncp->c", weight, function(x)) / x.shape[2]
        sum_of_weights += weight.sum()
        low = np.minimum(low, x.min(axis=(0, 2)))
        high = np.maximum(high, x.max(axis=(0, 2)))
    return np.asarray(total / sum_of_weights), np.asarray(high - low)
