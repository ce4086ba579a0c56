"""The widths of heads: given for the average head, or what a budget allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sklearn_structreg.selfinformed.attachment import Place
from sklearn_structreg.selfinformed.partition import ClassPartition

__all__ = ["Sizes", "head_cost", "head_sizes"]

Sizes = list[tuple[int, ...]]
"""The units of the hidden layers of each head."""


class Widths(Protocol):
    """The parameters of the estimator that decide over the widths."""

    @property
    def head_layer_sizes(self) -> Any:
        """Of the average head, or "auto"."""

    @property
    def head_allocation(self) -> str:
        """Their distribution."""

    @property
    def budget(self) -> float:
        """Multiply-adds of all heads by those of the network."""

    @property
    def head_kernel_size(self) -> int | None:
        """Of convolutions."""


def head_cost(
    place: Place, sizes: Sequence[int], n_outputs: int, kernel_size: int | None
) -> int:
    """Count the multiply-adds of a head for one sample."""
    n_inputs, uses = place.n_features, 1
    if kernel_size is not None:
        n_inputs, *axes = place.shape
        uses = math.prod(axes) * kernel_size ** len(axes)
    widths = [n_inputs, *sizes]
    return uses * sum(a * b for a, b in pairwise(widths)) + widths[-1] * n_outputs


def head_sizes(
    plan: Widths, partition: ClassPartition, place: Place | None = None, n_base: int = 0
) -> Sizes:
    """Return the hidden layers of each head, of one unit at least.

    A budget is for heads that read a place of a network of so many multiply-adds.
    """
    shares = _shares(plan.head_allocation, partition)
    if place is not None and isinstance(plan.head_layer_sizes, str):
        spent = plan.budget * n_base * shares
        costs = [
            head_cost(place, (1,), group.size, plan.head_kernel_size)
            for group in partition.groups_
        ]
        return [(max(1, int(n)),) for n in (spent / costs).tolist()]
    many = (len(shares) * shares).tolist()
    return [
        tuple(max(1, round(s * size)) for size in plan.head_layer_sizes) for s in many
    ]


def _shares(allocation: str, partition: ClassPartition) -> NDArray[np.float64]:
    """Return the share of each group in all units."""
    missed = [partition.miss_rate_[group] for group in partition.groups_]
    demands = np.array(
        {
            "equal": [1.0] * len(missed),
            "size": [float(rates.size) for rates in missed],
            "difficulty": [rates.mean() for rates in missed],
            "misses": [rates.sum() for rates in missed],
        }[allocation]
    )
    if not demands.any():
        demands = np.ones_like(demands)
    shares: NDArray[np.float64] = demands / demands.sum()
    return shares
