"""From soft to real structure: threshold the probabilities, keep the blocks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from sklearn_structreg.blockout.branches import chain_layers, to_branches
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
        return to_branches(self.module, self.names, self.memberships, merge=True)

    @property
    def nonzero_shares(self) -> tuple[float, ...]:
        """Share of each layer's weights that lies inside blocks."""
        pairs = pairwise(self.memberships)
        return tuple(float(np.mean(blocks(below, above))) for below, above in pairs)

    @property
    def multiply_adds(self) -> tuple[int, int]:
        """Multiply-adds per sample of the chain's layers: dense, and in blocks only."""
        sizes = [len(members) for members in self.memberships]
        weights = np.multiply(sizes[1:], sizes[:-1])
        return int(weights.sum()), round(float(weights @ self.nonzero_shares))

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
    module: nn.Module, names: Sequence[str], memberships: Sequence[BoolArray]
) -> nn.Module:
    """Copy a network; zero the chain's weights between nodes without a cluster."""
    module = copy.deepcopy(module)
    layers = chain_layers(module, names, memberships)
    pairs = pairwise(memberships)
    with torch.no_grad():
        for layer, (below, above) in zip(layers, pairs, strict=True):
            kept = torch.from_numpy(blocks(below, above)).to(layer.weight.device)
            layer.weight.masked_fill_(~kept, 0)
    return module


def harden_network(
    module: nn.Module,
    names: Sequence[str],
    probabilities: Sequence[ArrayLike],
    threshold: float = 0.5,
) -> HardenedNet:
    """Threshold the cluster probabilities and keep the weights inside blocks.

    Weights between nodes with a common cluster stay as they are in the folded net, all
    others become zero: of all nets with these blocks, this is the one whose weights are
    nearest. It keeps more of the accuracy than Eq. 4 with the thresholded memberships
    (``benchmarks/reproduce/blockout_hardening.py``). A node below the threshold
    everywhere is dead, except in the last set: an output keeps its most probable
    cluster.

    Parameters
    ----------
    module : torch.nn.Module
        With plain Linear layers, as `fold` returns it; not changed.
    names : sequence of str
        The chain's m Linear layers in forward order.
    probabilities : sequence of array-like of shape (d_j, k)
        P_0 to P_m.
    threshold : float in (0, 1], default=0.5
        A node is in a cluster from this probability on.

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
    *inner, last = check_probabilities(probabilities)
    memberships = [threshold_memberships(P, threshold) for P in inner]
    memberships.append(threshold_memberships(last, threshold, at_least_one=True))
    hardened = mask_blocks(module, names, memberships)
    branches = to_branches(hardened, names, memberships)
    return HardenedNet(hardened, branches, tuple(names), threshold, tuple(memberships))
