"""Raw samples in: their mean and scale as the network's fixed first layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sklearn_structreg.compaction.replacements import ColumnsLinear
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.insertion import insertions, remove_layers
from sklearn_structreg.core.inspection import find_layer, replace_layer
from sklearn_structreg.core.recipe import TensorSpec

__all__ = ["Standardize", "fold_standardization", "take_standardization"]

BLOCK_ROWS = 4096
BLOCK_ENTRIES = 2**18  # in double precision at a time
TINY = 1e-30  # a batch normalization trains with no eps of zero


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
    def of(
        cls,
        data: TrainingData,
        spec: TensorSpec,
        loader_params: Mapping[str, Any] | None = None,
    ) -> Standardize:
        """Measure samples, sample weights counted in: 0 is absent, k is k copies.

        Flat rows have a mean and a scale for each feature, images for each channel. The
        scale of a constant one is 1.
        """
        if (known := data.moments.get(spec)) is None:
            # In canonical order: sums come out the same to the last bit.
            rows = data.with_few_rows_merged(BLOCK_ROWS)
            known = data.moments[spec] = _moments(rows, spec, loader_params)
        mean, variance, extent = known
        scale = np.where(extent > 0, np.sqrt(variance), 1.0)
        shape = mean.shape + (1,) * (len(spec.shape) - 1)
        return cls(mean.reshape(shape), scale.reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Standardize samples of shape (n, ...)."""
        compiling = torch.compiler.is_compiling() or not isinstance(x, Tensor)
        if compiling or x.requires_grad or x.numel() <= BLOCK_ENTRIES:
            return self._standardized(x)
        result = torch.empty_like(x, dtype=self.like.dtype)
        n_rows = max(1, BLOCK_ENTRIES * len(x) // x.numel())
        parts = torch.split(x, n_rows), torch.split(result, n_rows)
        for part, out in zip(*parts, strict=True):
            out.copy_(self._standardized(part))
        return result

    def _standardized(self, x: Tensor) -> Tensor:
        return (x - self.mean).mul_(self.factor).to(self.like.dtype)

    def simplified(self) -> nn.Module:
        """Return a batch normalization that does the same in evaluation."""
        n_channels, n_dims = len(self.mean), max(1, self.mean.ndim - 1)
        kinds = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
        norm = kinds[n_dims - 1](n_channels, eps=TINY, affine=False)
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
    if type(place) is nn.Linear or isinstance(place, ColumnsLinear):
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
    columns = getattr(linear, "columns", slice(None))
    weight = linear.weight.double() * layer.factor[columns]
    shift = -(weight @ layer.mean[columns])
    if linear.bias is None:
        linear.bias = nn.Parameter(linear.weight.new_zeros(linear.out_features))
    linear.bias.copy_(linear.bias.double() + shift)
    linear.weight.copy_(weight)


def _moments(
    data: TrainingData, spec: TensorSpec, loader_params: Mapping[str, Any] | None
) -> tuple[NDArray[np.float64], ...]:
    """Return the weighted mean, the variance and the range of entries, in one pass."""
    spec = replace(spec, device=torch.device("cpu"))
    n_rows = min(BLOCK_ROWS, max(1, BLOCK_ENTRIES // math.prod(spec.shape)))
    batches = data.batches(
        spec, batch_size=n_rows, normalize=False, loader_params=loader_params
    )
    unit = 1.0 if data.weight is None else data.weight.max()  # sums might overflow
    zeros = np.zeros(spec.shape[0])
    mean, squares, low, high = zeros, zeros, zeros + np.inf, zeros - np.inf
    sum_of_weights = 0.0
    for samples, _, weights in batches.epoch(None):
        x = samples.double().numpy().reshape(len(samples), spec.shape[0], -1)
        weight = np.ones(len(x)) if weights is None else weights.double().numpy() / unit
        low = np.minimum(low, x.min(axis=(0, 2)))
        high = np.maximum(high, x.max(axis=(0, 2)))
        size = weight.sum()
        share = size / (sum_of_weights + size)
        sum_of_weights += size
        center = _sum(weight, x) / size
        x -= center[:, None]
        change = center - mean
        squares = squares + _sum(weight, np.square(x, out=x))
        squares = squares + change**2 * (1 - share) * size
        mean = mean + change * share
    return mean, squares / sum_of_weights, high - low


def _sum(weight: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted sum over rows of the means over places."""
    total: NDArray[np.float64] = np.einsum("n,ncp->c", weight, x) / x.shape[2]
    return total
