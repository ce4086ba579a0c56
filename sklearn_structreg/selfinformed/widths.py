"""The widths of heads: given for the average head, or what a budget allows."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sklearn_structreg.selfinformed.partition import ClassPartition

__all__ = ["Sizes", "head_sizes"]

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


def head_sizes(
    plan: Widths, partition: ClassPartition, n_features: int = 0, n_base: int = 0
) -> Sizes:
    """Return the hidden layers of each head, of one unit at least.

    A budget is for heads on so many features of a network of so many multiply-adds.
    """
    shares = _shares(plan.head_allocation, partition)
    if isinstance(plan.head_layer_sizes, str):
        spent = plan.budget * n_base * shares
        costs = n_features + np.array([group.size for group in partition.groups_])
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
