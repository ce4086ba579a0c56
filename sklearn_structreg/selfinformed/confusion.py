"""Count which classes a model confuses: Eqs. 1-4 of self-informed structure learning.

Counts are sums over samples, so batches, workers and machines add up. Every matrix
here has scikit-learn's orientation, truth in rows: it is the transpose of the paper's
A, whose rows are predictions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sklearn_structreg.selfinformed.ranking import kth_largest

# Scores are ranked this many bytes at a time, so that the working copy stays in cache
# and a batch of any size needs little memory beyond itself.
_CHUNK_BYTES = 1 << 22


def check_counts(matrix: Any) -> sparse.csr_array:
    """Check a confusion matrix, dense or sparse; copy it without stored zeros."""
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"A precomputed confusion matrix must be square, but X has shape "
            f"{matrix.shape}; give truth in rows and predictions in columns."
        )
    counts = sparse.csr_array(matrix, copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    if np.any(counts.data < 0.0):
        raise ValueError(
            "Negative values in data passed to ConfusionSpectralPartitioner; a "
            "precomputed confusion matrix holds counts or frequencies."
        )
    if not counts.nnz:
        raise ValueError("X is zero all over, so it counts no confusion; give counts.")
    return counts


def top_k_indicator(scores: NDArray[np.floating], top_k: int) -> sparse.csr_array:
    """Detect the top K classes of each sample: M[x, i] = M_{i,K}(x) of Eq. 2."""
    # A class is in where at most K classes score as high, itself included. Of classes
    # that tie across the boundary none is in, so that no class gains from its position.
    # (A random forest gives most classes exactly zero; those are no detections.)
    n_samples, n_classes = scores.shape
    if top_k >= n_classes:
        return sparse.csr_array(np.ones((n_samples, n_classes)))
    counts = np.zeros(n_samples + 1, dtype=np.int64)
    columns = [np.empty(0, dtype=np.int32)]
    step = max(1, _CHUNK_BYTES // (n_classes * scores.itemsize))
    for start in range(0, n_samples, step):
        part = scores[start : start + step]
        detected = part > kth_largest(part, top_k + 1)
        counts[start + 1 : start + len(part) + 1] = detected.sum(axis=1)
        columns.append((np.flatnonzero(detected) % n_classes).astype(np.int32))
    indices = np.concatenate(columns)
    return sparse.csr_array(
        (np.ones(indices.size), indices, np.cumsum(counts)),
        shape=(n_samples, n_classes),
    )


def truth_indicator(columns: NDArray[np.integer], n_classes: int) -> sparse.csr_array:
    """Turn column numbers, -1 for none, into indicators: G[x, j] = g_j(x) of Eq. 1."""
    rows = np.flatnonzero(columns >= 0)
    entries = np.ones(rows.size), (rows, columns[rows])
    return sparse.csr_array(entries, shape=(columns.size, n_classes))


def confusion_counts(
    detected: sparse.csr_array,
    truth: sparse.csr_array,
    sample_weight: NDArray[np.floating] | None = None,
) -> sparse.csr_array:
    """Count detections i (columns) of samples of class j (rows), Eqs. 3 and 4."""
    if sample_weight is not None:
        # Rows of weight zero are left out, not multiplied by it: absent is absent.
        present = np.flatnonzero(sample_weight)
        weight = sparse.diags_array(sample_weight[present], format="csr")
        detected, truth = weight @ detected[present], truth[present]
    counts = sparse.csr_array(truth.T.tocsr() @ detected)
    counts.sort_indices()  # adding matrices is several times faster on sorted ones
    return counts


class SparseSum:
    """A running sum of sparse matrices at a cost logarithmic in their number."""

    # Adding a small matrix to a large one costs as much as the large one, so a matrix
    # is kept apart until it has grown to a similar size.

    def __init__(self) -> None:
        self.parts: list[sparse.csr_array] = []

    def add(self, matrix: sparse.csr_array) -> None:
        """Add one matrix to the sum."""
        while self.parts and self.parts[-1].nnz <= 2 * matrix.nnz:
            matrix = self.parts.pop() + matrix
        self.parts.append(matrix)

    def value(self) -> sparse.csr_array:
        """Sum of the matrices, of which at least one must have been added."""
        while len(self.parts) > 1:
            last = self.parts.pop()
            self.parts[-1] = self.parts[-1] + last
        return self.parts[0]
