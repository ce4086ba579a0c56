"""Count which classes a model confuses: Eqs. 1-4 of self-informed structure learning.

Counts are sums over samples, so batches, workers and machines add up. Every matrix
here has scikit-learn's orientation, truth in rows: it is the transpose of the paper's
A, whose rows are predictions.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sklearn_structreg.selfinformed.runner_up import runner_up

# Scores are ranked this many bytes at a time, so that the working copy stays in cache
# and a batch of any size needs little memory beyond itself.
_CHUNK_BYTES = 1 << 22


def top_k_indicator(scores: NDArray[np.floating], top_k: int) -> sparse.csr_array:
    """Tell which classes are among the top K of each sample, Eq. 2.

    A class is among the top K when at most K classes score as high as it does,
    itself included. Where a tie straddles the boundary none of the tied classes is in:
    a row has then fewer than K entries, and no class gains from its position. (A random
    forest gives most classes a probability of exactly zero; those are no detections.)

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_classes)
        Finite scores, the higher the likelier.
    top_k : int
        K, in [1, n_classes]; K = n_classes detects every class everywhere.

    Returns
    -------
    detected : csr_array of shape (n_samples, n_classes)
        Ones at M[x, i] = M_{i,K}(x).

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.array([[0.7, 0.2, 0.1], [0.4, 0.3, 0.3]])
    >>> top_k_indicator(scores, 2).toarray()
    array([[1., 1., 0.],
           [1., 0., 0.]])
    """
    n_samples, n_classes = scores.shape
    if top_k >= n_classes:
        return sparse.csr_array(np.ones((n_samples, n_classes)))
    counts = np.zeros(n_samples + 1, dtype=np.int64)
    columns = [np.empty(0, dtype=np.int32)]
    for rows in _chunks(n_samples, n_classes * scores.itemsize):
        part = scores[rows]
        detected = part > runner_up(part, top_k)
        counts[rows.start + 1 : rows.stop + 1] = detected.sum(axis=1)
        columns.append((np.flatnonzero(detected) % n_classes).astype(np.int32))
    indices = np.concatenate(columns)
    return sparse.csr_array(
        (np.ones(indices.size), indices, np.cumsum(counts)),
        shape=(n_samples, n_classes),
    )


def truth_indicator(columns: NDArray[np.integer], n_classes: int) -> sparse.csr_array:
    """Tell which class each sample is of, Eq. 1, from one column number a sample.

    Parameters
    ----------
    columns : ndarray of shape (n_samples,)
        Column numbers, in [0, n_classes); -1 for a class that has no column.
    n_classes : int
        The number of columns.

    Returns
    -------
    truth : csr_array of shape (n_samples, n_classes)
        Ones at G[x, j] = g_j(x).
    """
    known = columns >= 0
    indices = columns[known].astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(known)])
    return sparse.csr_array(
        (np.ones(indices.size), indices, starts), shape=(columns.size, n_classes)
    )


def confusion_counts(
    detected: sparse.csr_array,
    truth: sparse.csr_array,
    sample_weight: NDArray[np.floating] | None = None,
) -> sparse.csr_array:
    """Count detections of class i where class j is true: n E[M_i g_j], Eq. 3.

    Parameters
    ----------
    detected : csr_array of shape (n_samples, n_classes)
        From :func:`top_k_indicator`.
    truth : csr_array of shape (n_samples, n_classes)
        Zeros and ones, any number of ones a row (multilabel truth). The detections
        themselves, ``truth=detected``, give the co-detections of Eq. 4.
    sample_weight : ndarray of shape (n_samples,), default=None
        Non-negative; a weight of k counts a sample k times.

    Returns
    -------
    counts : csr_array of shape (n_classes, n_classes)
        The true class j in rows, the detected class i in columns.

    Examples
    --------
    >>> import numpy as np
    >>> detected = top_k_indicator(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]), 1)
    >>> truth = truth_indicator(np.array([0, 1, 1]), 2)
    >>> confusion_counts(detected, truth).toarray()
    array([[1., 0.],
           [1., 1.]])
    """
    if sample_weight is not None:
        # Rows of weight zero are left out, not multiplied by it: absent is absent.
        present = np.flatnonzero(sample_weight)
        weight = sparse.diags_array(sample_weight[present], format="csr")
        detected, truth = weight @ detected[present], truth[present]
    counts = sparse.csr_array(truth.T.tocsr() @ detected)
    counts.sort_indices()  # adding matrices is several times faster on sorted ones
    return counts


class SparseSum:
    """A running sum of sparse matrices whose upkeep is logarithmic in their number.

    Adding a small batch to a large matrix costs as much as the large matrix, so a batch
    is kept apart until it has grown to a similar size.

    Examples
    --------
    >>> from scipy import sparse
    >>> total = SparseSum()
    >>> for _ in range(3):
    ...     total.add(sparse.eye_array(2, format="csr"))
    >>> total.value().toarray()
    array([[3., 0.],
           [0., 3.]])
    """

    def __init__(self) -> None:
        self.parts: list[sparse.csr_array] = []

    def add(self, matrix: sparse.csr_array) -> None:
        """Add one matrix to the sum."""
        while self.parts and self.parts[-1].nnz <= 2 * matrix.nnz:
            matrix = self.parts.pop() + matrix
        self.parts.append(matrix)

    def value(self) -> sparse.csr_array:
        """Return the sum; at least one matrix must have been added."""
        while len(self.parts) > 1:
            last = self.parts.pop()
            self.parts[-1] = self.parts[-1] + last
        return self.parts[0]


def _chunks(n_rows: int, row_bytes: int) -> Iterator[slice]:
    """Cut the rows into slices of about `_CHUNK_BYTES` each."""
    step = max(1, _CHUNK_BYTES // row_bytes)
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))
