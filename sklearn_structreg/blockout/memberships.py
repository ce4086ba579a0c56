"""Members of clusters: probabilities thresholded, nodes grouped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklearn_structreg.core.checks import is_number
from sklearn_structreg.core.messages import explaining

__all__ = [
    "NodeGroup",
    "check_probabilities",
    "group_nodes",
    "shared_clusters",
    "threshold_memberships",
]

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
NodeGroup = tuple[BoolArray, NDArray[np.int64]]
"""A pattern of shape (k,), and the nodes that have it."""


def check_probabilities(probabilities: Sequence[ArrayLike]) -> list[FloatArray]:
    """Check the cluster probabilities P_0 to P_m of a chain's node sets."""
    if not len(probabilities):
        raise ValueError("probabilities is empty; give a (d_j, k) array per node set.")
    with explaining("The cluster probabilities are no numbers: {}."):
        matrices = [np.asarray(P, dtype=np.float64) for P in probabilities]
    shapes = [P.shape for P in matrices]
    if any(len(shape) != 2 or 0 in shape for shape in shapes) or (
        len({shape[1] for shape in shapes}) > 1
    ):
        raise ValueError(
            f"The cluster probabilities have shapes {shapes}; give one array (d_j, k) "
            "per node set, with the same number k of clusters in all."
        )
    for P in matrices:
        if not ((P >= 0) & (P <= 1)).all():
            raise ValueError(
                "The cluster probabilities must lie in [0, 1]; pass the sigmoid of the "
                "logits, not the logits."
            )
    return matrices


def threshold_memberships(
    probabilities: ArrayLike, threshold: float = 0.5, *, at_least_one: bool = False
) -> BoolArray:
    """Put nodes into the clusters of which they are members from `threshold` on.

    A node below the threshold everywhere is in no cluster, dead, or `at_least_one`
    keeps it in its most probable one.
    """
    if not is_number(threshold) or not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold!r} must lie in (0, 1].")
    P = check_probabilities([probabilities])[0]
    members: BoolArray = threshold <= P
    if at_least_one:
        dead = np.flatnonzero(~members.any(axis=1))
        members[dead, P[dead].argmax(axis=1)] = True
    return members


def group_nodes(memberships: ArrayLike) -> list[NodeGroup]:
    """Group nodes that are in the same clusters: the boxes of the paper's Fig. 2.

    Patterns come in descending order, read as binary numbers, so that the nodes of the
    first cluster come first and dead nodes last; nodes ascend.

    >>> [nodes.tolist() for _, nodes in group_nodes([[0, 1], [1, 1], [0, 1], [0, 0]])]
    [[1], [0, 2], [3]]
    """
    members = np.asarray(memberships, dtype=bool)
    patterns, group = np.unique(members, axis=0, return_inverse=True)
    group = group.ravel()
    numbers = reversed(range(len(patterns)))
    return [(patterns[g], np.flatnonzero(group == g)) for g in numbers]


def shared_clusters(P: FloatArray) -> FloatArray:
    """Return the expected number of clusters that two nodes share, (d, d)."""
    shared = P @ P.T
    np.fill_diagonal(shared, P.sum(axis=1))
    return shared
