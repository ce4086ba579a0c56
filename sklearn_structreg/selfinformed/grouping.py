"""The groups of counted confusions, computed when they are first asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.cluster.hierarchy import linkage
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_structreg.selfinformed.confusion import SparseSum
from sklearn_structreg.selfinformed.defaults import check_n_groups
from sklearn_structreg.selfinformed.spectral import (
    Partition,
    confusion_degrees,
    count_groups,
    one_hot,
    partition_classes,
)

__all__ = ["CountedGroups"]


class CountedGroups:
    """Mixin of the partitioner: the attributes that follow from the counts."""

    n_clusters: int | str
    random_state: Any
    source_: str
    classes_: NDArray[Any]
    n_samples_seen_: float
    _counts: SparseSum

    @property
    def labels_(self) -> NDArray[np.int64]:
        """The group of each class."""
        return self._partitioned().labels

    @property
    def clusters_(self) -> list[NDArray[Any]]:
        """The classes of each group."""
        labels = self.labels_
        return [self.classes_[labels == group] for group in range(self.n_clusters_)]

    @property
    def n_clusters_(self) -> int:
        """The number of groups."""
        return int(self._partitioned().embedding.shape[1])

    @property
    def embedding_(self) -> NDArray[np.float64]:
        """The rows that k-means grouped."""
        return self._partitioned().embedding

    @property
    def isolated_(self) -> NDArray[np.bool_]:
        """The classes that share no detection with another."""
        return self._partitioned().isolated

    @property
    def hierarchy_(self) -> NDArray[np.float64]:
        """The linkage of the groups to larger ones."""
        groups = one_hot(self.labels_, self.n_clusters_)
        if len(groups.T) < 2:
            return np.empty((0, 4))
        profiles = (_scaled(self._counts.value()).T @ groups).T
        return np.asarray(linkage(profiles, "average", metric="cosine"))

    @property
    def confusion_(self) -> sparse.csr_array:
        """The joint frequencies of truth (rows) and detection (columns)."""
        check_is_fitted(self)
        frequencies = self._counts.value().copy()
        if self.source_ != "precomputed":
            frequencies.data /= self.n_samples_seen_
        return frequencies

    def _add(self, counts: sparse.csr_array, weight_sum: float) -> None:
        """Add counts, which outdates the partition."""
        self._counts.add(counts)
        self.n_samples_seen_ += weight_sum
        self._partition: Partition | None = None

    def _partitioned(self) -> Partition:
        """Partition the classes by the counts, on first use."""
        check_is_fitted(self)
        if self._partition is None:
            counts = _scaled(self._counts.value())
            degrees = confusion_degrees(counts)
            n_connected = int(np.count_nonzero(degrees))
            rng = check_random_state(self.random_state)
            if self.n_clusters == "auto":
                n_clusters = count_groups(counts, degrees, rng)
            else:
                wanted = int(self.n_clusters)
                n_clusters = check_n_groups(wanted, degrees.size, n_connected)
            self._partition = partition_classes(counts, n_clusters, rng, degrees)
        return self._partition


def _scaled(counts: sparse.csr_array) -> sparse.csr_array:
    """Return the counts divided by a power of two: their products stay in range."""
    counts = counts.copy()
    if counts.nnz:
        counts.data = np.ldexp(counts.data, -np.frexp(counts.data.max())[1])
    return counts
