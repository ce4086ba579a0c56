"""Which node is in which cluster: probabilities, thresholded and grouped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    """Check the cluster probabilities of a chain's node sets.

    Parameters
    ----------
    probabilities : sequence of array-like of shape (d_j, k)
        P_0 to P_m, as in `BlockoutClassifier.cluster_probabilities_`.

    Returns
    -------
    list of ndarray of shape (d_j, k), float64

    Raises
    ------
    ValueError
        If they are no matrices of probabilities with one number of clusters.
    """
    if not len(probabilities):
        raise ValueError("probabilities is empty; give a (d_j, k) array per node set.")
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
    """Decide which node is in which cluster.

    Parameters
    ----------
    probabilities : array-like of shape (d, k)
        P of one node set.
    threshold : float in (0, 1], default=0.5
        A node is in a cluster from this probability on.
    at_least_one : bool, default=False
        Whether a node below the threshold everywhere keeps its most probable cluster.
        Otherwise it is in none: dead.

    Returns
    -------
    ndarray of shape (d, k), bool

    Examples
    --------
    >>> from sklearn_structreg.blockout import threshold_memberships
    >>> P = [[0.9, 0.6, 0.1], [0.2, 0.4, 0.3]]
    >>> threshold_memberships(P).astype(int)
    array([[1, 1, 0],
           [0, 0, 0]])
    >>> threshold_memberships(P, at_least_one=True).astype(int)
    array([[1, 1, 0],
           [0, 1, 0]])
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} must lie in (0, 1].")
    P = check_probabilities([probabilities])[0]
    members: BoolArray = threshold <= P
    if at_least_one:
        dead = np.flatnonzero(~members.any(axis=1))
        members[dead, P[dead].argmax(axis=1)] = True
    return members


def group_nodes(memberships: ArrayLike) -> list[NodeGroup]:
    """Group nodes that are in the same clusters: the boxes of the paper's Fig. 2.

    Parameters
    ----------
    memberships : array-like of bool of shape (d, k)
        Of one node set.

    Returns
    -------
    list of (pattern, nodes)
        Patterns in descending order, read as binary numbers, so that the nodes of the
        first cluster come first and dead nodes last; nodes ascending.

    Examples
    --------
    >>> from sklearn_structreg.blockout import group_nodes
    >>> [nodes.tolist() for _, nodes in group_nodes([[0, 1], [1, 1], [0, 1], [0, 0]])]
    [[1], [0, 2], [3]]
    """
    members = np.asarray(memberships, dtype=bool)
    patterns, group = np.unique(members, axis=0, return_inverse=True)
    group = group.ravel()
    numbers = reversed(range(len(patterns)))
    return [(patterns[g], np.flatnonzero(group == g)) for g in numbers]


def shared_clusters(rows: ArrayLike, columns: ArrayLike | None = None) -> Any:
    """Return how many clusters two nodes can be expected to share.

    Parameters
    ----------
    rows : array-like of shape (d, k)
        Probabilities, or memberships, of one node set.
    columns : array-like of shape (d', k) or None, default=None
        Of another; None pairs the nodes of one set among themselves, where the
        diagonal is the expected number of clusters of each node.

    Returns
    -------
    ndarray of shape (d, d') or (d, d), float64
        In [0, k]; divided by k it is the mean mask of Eq. 5.

    Examples
    --------
    >>> from sklearn_structreg.blockout import shared_clusters
    >>> shared_clusters([[1.0, 0.5], [0.0, 0.5]])
    array([[1.5 , 0.25],
           [0.25, 0.5 ]])
    """
    P = np.asarray(rows, dtype=np.float64)
    if columns is not None:
        return P @ np.asarray(columns, dtype=np.float64).T
    shared = P @ P.T
    np.fill_diagonal(shared, P.sum(axis=1))
    return shared
