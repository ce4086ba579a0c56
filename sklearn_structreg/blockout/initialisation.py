"""The scale that Blockout's layers start with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom
from torch import nn

__all__ = ["initial_scales"]


def initial_scales(
    layers: Sequence[nn.Linear | nn.Conv2d],
    n_clusters: int,
    probability: float,
    assignment: str,
    normalized: Sequence[bool],
    before: Sequence[int | None],
) -> list[float]:
    r"""Return factors that keep the activations of training at the plain net's scale.

    A mask of drawn memberships multiplies the variance of a node's inputs by
    :math:`E[M^2] = p^4 + p^2 (1 - p^2) / k`; but from the second layer on, inputs that
    are in many clusters are larger, and are masked less, since two layers share a draw.
    So the variance is followed through the chain by the number of clusters that a node
    is in, from inputs of mean square one, with rectifiers between. `before` has the
    number of the layer that each one follows, and `normalized` marks those with batch
    normalization before them, which makes all nodes alike.
    """
    k, p = n_clusters, probability
    if p == 1:
        return [1.0] * len(layers)
    if assignment == "soft":
        return [1 / p**2] * len(layers)
    n = np.arange(k + 1.0)
    chance = binom.pmf(n, k, p)
    # E[M^2] of an output in n clusters and an input in m: their overlap is drawn
    # without replacement.
    singles, pairs = np.outer(n, n) / k, n * (n - 1)
    overlap = singles + np.outer(pairs, pairs) / (k * max(k - 1, 1))
    mean_square = overlap / k**2
    scales: list[float] = []
    # Of each layer's outputs the mean square given n, by the mean over all n, and that
    # mean in the plain net.
    found: list[tuple[NDArray[Any], float]] = []
    for layer, alike, i in zip(layers, normalized, before, strict=True):
        inputs, size = (np.ones(k + 1), 1.0) if i is None else found[i]
        if alike:
            inputs, size = np.ones(k + 1), 0.5
        masked = mean_square @ (chance * inputs)
        scales.append(1 / math.sqrt(chance @ masked))
        weight = layer.weight.detach().double()
        signal = size * weight[0].numel() * float(weight.square().mean())
        offset = 0.0
        if layer.bias is not None:
            offset = float(layer.bias.detach().double().square().mean())
        total = signal + offset
        outputs = np.ones(k + 1)
        if total > 0:
            outputs = (signal * masked * scales[-1] ** 2 + offset) / total
        found.append((outputs, total / 2))
    return scales
