"""The learned hierarchy as data: the clusters that classes share, and their tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform
from scipy.special import logit

from sklearn_structreg.blockout.memberships import (
    BoolArray,
    FloatArray,
    check_probabilities,
    shared_clusters,
    threshold_memberships,
)
from sklearn_structreg.core.checks import is_integer
from sklearn_structreg.core.messages import explaining

__all__ = ["ClassHierarchy"]

Method = Literal[
    "single", "complete", "average", "weighted", "centroid", "median", "ward"
]

SMALLEST = 1e-7  # probabilities nearer to 0 or 1 have logits of that


@dataclass(frozen=True, eq=False)
class ClassHierarchy:
    """The clusters that classes share, and a tree over the classes.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        Names or labels.
    probabilities : ndarray of shape (n_classes, k)
        P of the classes: the probability of each to be in each cluster.
    memberships : ndarray of shape (n_classes, k), bool
        The same, thresholded.
    expected_clusters : ndarray of shape (n_classes,)
        Expected number of clusters of each class, the row sums of P (Fig. 9).
    shared : ndarray of shape (n_classes, n_classes)
        Expected number of clusters that two classes share; on the diagonal
        `expected_clusters`.
    linkage : ndarray of shape (n_classes - 1, 4)
        The tree, in the format of `scipy.cluster.hierarchy`: classes that are close
        join early.

    Examples
    --------
    >>> from sklearn_structreg.blockout import ClassHierarchy
    >>> P = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.6, 0.7]]
    >>> found = ClassHierarchy.of(P, classes=["cat", "dog", "bus", "horse"])
    >>> found.clusters()
    [['cat', 'dog', 'horse'], ['bus', 'horse']]
    >>> found.groups(2)
    [['cat', 'dog'], ['bus', 'horse']]
    """

    classes: NDArray[Any]
    probabilities: FloatArray
    memberships: BoolArray = field(repr=False)
    expected_clusters: FloatArray = field(repr=False)
    shared: FloatArray = field(repr=False)
    linkage: FloatArray = field(repr=False)

    @classmethod
    def of(
        cls,
        probabilities: ArrayLike,
        classes: ArrayLike | None = None,
        *,
        threshold: float = 0.5,
        distance: str = "probabilities",
        method: Method = "average",
    ) -> Self:
        """Make a hierarchy of the cluster probabilities of the classes.

        Parameters
        ----------
        probabilities : array-like of shape (n_classes, k)
            P_m, of the chain's outputs.
        classes : array-like of shape (n_classes,) or None, default=None
            Names or labels; None stands for column numbers.
        threshold : float in (0, 1], default=0.5
            A class is in a cluster from this probability on.
        distance : {"probabilities", "profile"}, default="probabilities"
            Between two classes: Euclidean between their rows of P; or one minus the
            correlation between the logits of those rows, which compares the clusters
            that two classes prefer, however many they are in.
        method : str, default="average"
            As in `scipy.cluster.hierarchy.linkage`.

        Returns
        -------
        ClassHierarchy

        Raises
        ------
        ValueError
            If there are not as many names as rows, or fewer than two, or `distance`
            is unknown.
        """
        P = check_probabilities([probabilities])[0]
        names = np.arange(len(P)) if classes is None else np.asarray(classes)
        if names.shape != (len(P),):
            raise ValueError(
                f"classes has shape {names.shape} for {len(P)} rows of probabilities; "
                "give one name per class."
            )
        if len(P) < 2:
            raise ValueError("A hierarchy needs at least two classes.")
        with explaining(f"method={method!r} makes no tree: {{}}."):
            linkage = hierarchy.linkage(_distances(P, distance), method)
        return cls(
            classes=names,
            probabilities=P,
            memberships=threshold_memberships(P, threshold),
            expected_clusters=P.sum(axis=1),
            shared=shared_clusters(P),
            linkage=linkage,
        )

    def clusters(self) -> list[list[Any]]:
        """Return the classes of each cluster; a class may be in several or in none.

        Returns
        -------
        list of list, of length k
        """
        return [self.classes[column].tolist() for column in self.memberships.T]

    def labels(self, n_groups: int) -> NDArray[np.int64]:
        """Cut the tree into disjoint groups.

        Parameters
        ----------
        n_groups : int
            At most the number of classes. Ties in the tree can give fewer.

        Returns
        -------
        ndarray of shape (n_classes,)
            Group of each class, numbered from 0 by first appearance.
        """
        if not is_integer(n_groups) or n_groups > len(self.classes):
            raise ValueError(
                f"n_groups={n_groups!r} must be an integer from 1 to the number of "
                f"classes, {len(self.classes)}."
            )
        flat = hierarchy.fcluster(self.linkage, n_groups, criterion="maxclust")
        _, first, label = np.unique(flat, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[label.ravel()]

    def groups(self, n_groups: int) -> list[list[Any]]:
        """Cut the tree into disjoint groups, and return the classes of each.

        Parameters
        ----------
        n_groups : int
            As in `labels`.

        Returns
        -------
        list of list
        """
        labels = self.labels(n_groups)
        return [self.classes[labels == g].tolist() for g in range(labels.max() + 1)]

    def leaves(self) -> NDArray[np.int64]:
        """Return the classes' column numbers in the order of the tree's leaves.

        Returns
        -------
        ndarray of shape (n_classes,)
        """
        return np.asarray(hierarchy.leaves_list(self.linkage), dtype=np.int64)


def _distances(P: FloatArray, distance: str) -> FloatArray:
    """Return distances between rows in the order of `scipy.spatial.distance.pdist`."""
    if distance == "probabilities":
        return np.asarray(pdist(P))
    if distance != "profile":
        raise ValueError(
            f"distance={distance!r} is unknown; use 'probabilities' or 'profile'."
        )
    logits = logit(P.clip(SMALLEST, 1 - SMALLEST))
    preferences = logits - logits.mean(axis=1, keepdims=True)
    length = np.linalg.norm(preferences, axis=1, keepdims=True)
    # A class without preferences correlates with none.
    preferences = np.where(length > 1e-9, preferences / np.maximum(length, 1e-9), 0.0)
    between = 1 - preferences @ preferences.T
    np.fill_diagonal(between, 0.0)
    return np.asarray(squareform(between.clip(0), checks=False))
