"""From soft to real structure: threshold the probabilities, keep the blocks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from sklearn_structreg.blockout.branches import (
    Joins,
    chain,
    chain_layers,
    to_branches,
)
from sklearn_structreg.blockout.memberships import (
    BoolArray,
    check_probabilities,
    threshold_memberships,
)
from sklearn_structreg.core.checks import check_network

__all__ = ["HardenedNet", "harden_network", "mask_blocks"]


@dataclass(frozen=True, eq=False)
class HardenedNet:
    """A network whose block structure is real, with a report.

    Attributes
    ----------
    module : torch.nn.Module
        The net with plain Linear layers, zero outside the blocks.
    branches : torch.nn.Module
        The same function as parallel branches: only non-zero blocks are computed.
    names : tuple of str
        The chain's m layers in both.
    threshold : float
        A node is in a cluster from this probability on.
    memberships : tuple of ndarray of shape (d_j, k), bool
        C_0 to C_m.
    joins : tuple of (int, int)
        For each layer the numbers of its inputs and outputs among the memberships.
    costs : tuple of int
        Multiply-adds per sample of each dense layer.
    score, hardened_score : float or None
        Of the estimator as trained and of the hardened net, as the estimator's `score`
        has it: accuracy, or R2 of a regressor. None where no data were given.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg import BlockoutClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = BlockoutClassifier(max_epochs=2, random_state=0).fit(X, y)
    >>> print(net.harden(threshold=0.1))
    Hardened at a probability of 0.1
      weights inside blocks, by layer: 100%, 100%
      multiply-adds of the chain: 7400 dense, 7400 as branches
      dead nodes, by node set: 0, 0, 0
    """

    module: nn.Module = field(repr=False)
    branches: nn.Module = field(repr=False)
    names: tuple[str, ...]
    threshold: float
    memberships: tuple[BoolArray, ...] = field(repr=False)
    joins: tuple[tuple[int, int], ...] = field(repr=False)
    costs: tuple[int, ...] = field(repr=False)
    score: float | None = None
    hardened_score: float | None = None

    def merged_branches(self) -> nn.Module:
        """Merge branches, at the price of multiplying some zeros.

        Where nodes are in many different sets of clusters, blocks are many and small;
        merged branches are then faster than `branches` and than the dense net.

        Returns
        -------
        torch.nn.Module
        """
        parts = self.module, self.names, self.memberships, self.joins
        return to_branches(*parts, merge=True)

    @property
    def nonzero_shares(self) -> tuple[float, ...]:
        """Share of each layer's weights that lies inside blocks."""
        C = self.memberships
        return tuple(float(np.mean(blocks(C[i], C[j]))) for i, j in self.joins)

    @property
    def multiply_adds(self) -> tuple[int, int]:
        """Multiply-adds per sample of the chain's layers: dense, and in blocks only."""
        return sum(self.costs), round(float(np.dot(self.costs, self.nonzero_shares)))

    @property
    def n_dead(self) -> tuple[int, ...]:
        """Nodes of each set that are in no cluster."""
        return tuple(int((~C.any(axis=1)).sum()) for C in self.memberships)

    def __str__(self) -> str:
        dense, sparse = self.multiply_adds
        lines = [f"Hardened at a probability of {self.threshold:g}"]
        if self.score is not None:
            after = f"{self.hardened_score:.4f} after"
            lines.append(f"  score: {self.score:.4f} before, {after}")
        shares = ", ".join(f"{share:.0%}" for share in self.nonzero_shares)
        lines += [
            f"  weights inside blocks, by layer: {shares}",
            f"  multiply-adds of the chain: {dense} dense, {sparse} as branches",
            f"  dead nodes, by node set: {', '.join(map(str, self.n_dead))}",
        ]
        return "\n".join(lines)


def blocks(input_members: BoolArray, output_members: BoolArray) -> BoolArray:
    """Return a mask (d_out, d_in) of the weights between nodes that share a cluster."""
    shared: BoolArray = output_members.astype(int) @ input_members.T.astype(int) > 0
    return shared


def mask_blocks(
    module: nn.Module,
    names: Sequence[str],
    memberships: Sequence[BoolArray],
    joins: Joins | None = None,
) -> nn.Module:
    """Copy a network; zero the weights between nodes without a common cluster."""
    module = copy.deepcopy(module)
    layers = chain_layers(module, names, memberships, joins)
    with torch.no_grad():
        for layer, (i, j) in zip(layers, joins or chain(names), strict=True):
            kept = torch.from_numpy(blocks(memberships[i], memberships[j]))
            zero = ~kept.to(layer.weight.device)
            layer.weight.masked_fill_(
                zero.reshape(*kept.shape, *[1] * (layer.weight.ndim - 2)), 0
            )
    return module


def harden_network(
    module: nn.Module,
    names: Sequence[str],
    probabilities: Sequence[ArrayLike],
    threshold: float = 0.5,
    *,
    joins: Joins | None = None,
    costs: Sequence[int] | None = None,
) -> HardenedNet:
    """Threshold the cluster probabilities and keep the weights inside blocks.

    Weights between nodes with a common cluster stay as they are in the folded net, all
    others become zero: of all nets with these blocks, this is the one whose weights are
    nearest. It keeps more of the accuracy than Eq. 4 with the thresholded memberships
    (``benchmarks/reproduce/blockout_hardening.py``). A node below the threshold
    everywhere is dead, except in sets that no layer reads: an output keeps its most
    probable cluster. Convolutions stay dense in the branches, with zeros;
    `sklearn_structreg.compaction.compact` takes their dead channels out.

    Parameters
    ----------
    module : torch.nn.Module
        With plain Linear layers, as `fold` returns it; not changed.
    names : sequence of str
        The m layers, Linear or Conv2d, in forward order.
    probabilities : sequence of array-like of shape (d_j, k)
        P_0 to P_m.
    threshold : float in (0, 1], default=0.5
        A node is in a cluster from this probability on.
    joins : sequence of (int, int), default=None
        For each layer the numbers of its inputs and outputs among the probabilities;
        None is a chain.
    costs : sequence of int, default=None
        Multiply-adds per sample of each layer; None counts its weights.

    Returns
    -------
    HardenedNet

    Raises
    ------
    ValueError
        If threshold, names and probabilities do not fit together.

    Examples
    --------
    >>> from sklearn_structreg.blockout import harden_network
    >>> from sklearn_structreg.core import make_mlp
    >>> P = [[[0.9, 0.1], [0.2, 0.7]], [[0.8, 0.6], [0.1, 0.9], [0.3, 0.2]]]
    >>> hardened = harden_network(make_mlp(2, 3, ()), ["0"], P)
    >>> hardened.multiply_adds
    (6, 4)
    """
    check_network(module=module)
    pairs = tuple(joins or chain(names))
    read = {i for i, _ in pairs}
    memberships = [
        threshold_memberships(P, threshold, at_least_one=j not in read)
        for j, P in enumerate(check_probabilities(probabilities))
    ]
    hardened = mask_blocks(module, names, memberships, pairs)
    branches = to_branches(hardened, names, memberships, pairs)
    if costs is None:
        layers = chain_layers(hardened, names, memberships, pairs)
        costs = [layer.weight.numel() for layer in layers]
    settings = tuple(names), threshold, tuple(memberships), pairs, tuple(costs)
    return HardenedNet(hardened, branches, *settings)
