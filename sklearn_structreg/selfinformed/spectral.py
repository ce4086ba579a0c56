"""Partition classes by their confusions: spectral clustering after Ng, Jordan & Weiss.

Two true classes are similar if their predictions are: B = A^T A in the paper, which is
C C^T for a confusion matrix C with truth in rows. B is dense even where C is sparse, so
it is formed for a few classes only: every product with it is two products with C.
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh, lobpcg
from sklearn.cluster import KMeans

from sklearn_structreg.core.randomness import GLOBAL_LOCK

# Up to this size LAPACK's full decomposition is as quick as a Lanczos iteration, and it
# has no requirement on the number of eigenvectors.
_SMALL = 128
# Largest residual of an eigenvector, and most iterations of a block.
_TOLERANCE = 1e-6
_BLOCK_ITERATIONS = 40
# The largest number of groups to look for where some of the eigenvectors are computed.
_MOST_GROUPS = 32


class Partition(NamedTuple):
    """Groups numbered by first appearance, and the unit rows they were found from."""

    labels: NDArray[np.int64]
    embedding: NDArray[np.float64]
    isolated: NDArray[np.bool_]


def confusion_degrees(confusion: sparse.csr_array) -> NDArray[np.float64]:
    """Sum the rows of B = C C^T, its diagonal set to zero; exactly 0 if isolated."""
    # A sum over i of c_ji times the *other* classes' entries in column i: subtracting
    # b_jj from the full row sum would leave rounding errors in place of zeros.
    others = confusion.sum(axis=0)[confusion.indices] - confusion.data
    np.maximum(others, 0.0, out=others)
    others *= confusion.data
    return _row_sums(confusion, others)


def _row_sums(
    pattern: sparse.csr_array, data: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum the rows of a matrix of this sparsity pattern and other values."""
    matrix = sparse.csr_array(
        (data, pattern.indices, pattern.indptr), shape=pattern.shape
    )
    return np.asarray(matrix.sum(axis=1), dtype=np.float64)


def similarity_operator(
    confusion: sparse.csr_array, degrees: NDArray[np.float64]
) -> LinearOperator:
    """Make an operator of D^-1/2 (C C^T - diag) D^-1/2, for positive degrees."""
    scale = 1.0 / np.sqrt(degrees)
    diagonal = _row_sums(confusion, confusion.data**2)
    transposed = confusion.T

    def multiply(x: NDArray[np.float64]) -> NDArray[np.float64]:
        # The transposes let a vector and a block of vectors share these lines.
        scaled = (scale * x.T).T
        product = confusion @ (transposed @ scaled)
        return np.asarray((scale * (product.T - diagonal * scaled.T)).T)

    n = degrees.size  # some rows may have been left out of C, but no columns
    return LinearOperator((n, n), matvec=multiply, matmat=multiply, dtype=np.float64)


def leading_eigenvectors(
    operator: LinearOperator, k: int, rng: np.random.RandomState
) -> NDArray[np.float64]:
    """Find orthonormal eigenvectors (n, k) of the k largest eigenvalues in [-1, 1]."""
    # Groups that no confusion links give the eigenvalue 1 once each. A block iteration
    # (LOBPCG) finds all of them and reads C once for k vectors; where groups are hardly
    # separated it is slow, and a Lanczos iteration takes over.
    n = operator.shape[0]
    if n <= max(_SMALL, k + 1):
        return _dense_eigenvectors(operator @ np.eye(n), k, rng)
    if 5 * k < n:  # LOBPCG asks for that
        with GLOBAL_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "not reaching the tolerance"
            _, vectors, residuals = lobpcg(
                operator,
                rng.standard_normal((n, k)),
                tol=_TOLERANCE,
                maxiter=_BLOCK_ITERATIONS,
                retResidualNormsHistory=True,
            )
        if np.max(residuals[-1]) <= _TOLERANCE:
            return np.asarray(vectors)
    return lanczos_eigenvectors(operator, k, rng)


def _dense_eigenvectors(
    matrix: NDArray[np.float64], k: int, rng: np.random.RandomState
) -> NDArray[np.float64]:
    """Decompose a small matrix in full."""
    # Where more eigenvalues equal the k-th largest than k has room for, LAPACK's choice
    # would leave the rows of whole groups zero; a random choice leaves out none.
    values, vectors = eigh(matrix)
    above, tied = values > values[-k] + 1e-9, np.abs(values - values[-k]) <= 1e-9
    room = k - np.count_nonzero(above)
    choice = np.linalg.qr(rng.standard_normal((np.count_nonzero(tied), room)))[0]
    return np.hstack([vectors[:, tied] @ choice, vectors[:, above]])


def lanczos_eigenvectors(
    operator: LinearOperator, k: int, rng: np.random.RandomState
) -> NDArray[np.float64]:
    """Find the same by a Lanczos iteration, for any gap between eigenvalues."""
    # From one start vector the iteration can miss all but one of equal eigenvalues. So
    # the vectors found are projected out and the largest eigenvalue of the rest is
    # computed, until it is none of the k largest. Its Ritz value is a lower bound: one
    # above the k-th eigenvalue found proves, at any accuracy, that one was missed.
    n = operator.shape[0]
    values, vectors = eigsh(operator, k=k, which="LA", v0=rng.standard_normal(n))
    while True:
        rest = _without(operator, vectors)
        start = rng.standard_normal(n)
        value, vector = eigsh(rest, k=1, which="LA", v0=start, tol=1e-2)
        if value[0] <= values.min() + 1e-8:
            return np.asarray(vectors)
        vector = eigsh(rest, k=1, which="LA", v0=vector[:, 0])[1]
        basis = np.linalg.qr(np.hstack([vectors, vector]))[0]
        values, rotation = eigh(basis.T @ (operator @ basis))
        values, vectors = values[1:], basis @ rotation[:, 1:]


def _without(operator: LinearOperator, vectors: NDArray[np.float64]) -> LinearOperator:
    """Move these eigenvectors to the lower end of a spectrum in [-1, 1]."""

    def multiply(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(operator @ x - 2.0 * (vectors @ (vectors.T @ x)))

    return LinearOperator(operator.shape, matvec=multiply, dtype=np.float64)


def count_groups(
    confusion: sparse.csr_array,
    degrees: NDArray[np.float64],
    rng: np.random.RandomState,
) -> int:
    """Find the number of eigenvalues above the largest gap, or take the paper's 6.

    Groups that no confusion links have an eigenvalue of 1 each; noise links them.
    """
    # It is clear where the gaps between eigenvalues and those between their roots, the
    # singular values, agree: the former shrink where values are small, so that noise
    # favours few groups, and the latter shrink where they are large.
    connected = np.flatnonzero(degrees > 0.0)
    most = connected.size // 2
    if most < 3:
        return max(1, most)
    n_values = connected.size
    if n_values > _SMALL:
        most = min(most, _MOST_GROUPS)
        n_values = most + 1
    operator = similarity_operator(confusion[connected], degrees[connected])
    vectors = leading_eigenvectors(operator, n_values, rng)
    values = np.sort((vectors * (operator @ vectors)).sum(axis=0))[::-1]
    values = np.maximum(values[: most + 1], 0.0)
    gap, other = ((-np.diff(v)[1:]).argmax() for v in (values, np.sqrt(values)))
    return 2 + int(gap) if gap == other else min(6, most)


def partition_classes(
    confusion: sparse.csr_array,
    n_clusters: int,
    rng: np.random.RandomState,
    degrees: NDArray[np.float64] | None = None,
) -> Partition:
    """Group the classes of a non-negative matrix by Ng, Jordan & Weiss (2002)."""
    # The k leading eigenvectors of D^-1/2 B D^-1/2 with the diagonal of B set to zero,
    # rows scaled to unit length, then k-means. Classes of degree zero take no part in
    # it and get a group afterwards.
    degrees = confusion_degrees(confusion) if degrees is None else degrees
    isolated = degrees <= 0.0
    connected = np.flatnonzero(~isolated)
    n_classes = degrees.size
    embedding = np.zeros((n_classes, n_clusters))
    labels = np.zeros(n_classes, dtype=np.int64)
    if connected.size:
        rows = confusion if connected.size == n_classes else confusion[connected]
        operator = similarity_operator(rows, degrees[connected])
        vectors = leading_eigenvectors(operator, n_clusters, rng)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        embedding[connected] = vectors / np.where(length > 0.0, length, 1.0)
        k_means = KMeans(n_clusters, n_init=10, random_state=rng)
        labels[connected] = k_means.fit_predict(embedding[connected])
        _place_isolated(labels, confusion, isolated, n_clusters)
    return Partition(_by_first_appearance(labels), embedding, isolated)


def _place_isolated(
    labels: NDArray[np.int64],
    confusion: sparse.csr_array,
    isolated: NDArray[np.bool_],
    n_clusters: int,
) -> None:
    """Put isolated classes where they are detected most, else in the largest group."""
    # The columns of C hold the true classes that a class is detected for; spectral
    # clustering compares its rows only.
    members = one_hot(labels, n_clusters)
    members[isolated] = 0.0
    taken_for = (confusion.T @ members)[isolated]
    largest = members.sum(axis=0).argmax()
    known = taken_for.any(axis=1)
    labels[isolated] = np.where(known, taken_for.argmax(axis=1), largest)


def one_hot(labels: NDArray[np.int64], n_clusters: int) -> NDArray[np.float64]:
    """Make the indicator of a partition, (n_classes, n_clusters)."""
    return np.asarray(labels[:, None] == np.arange(n_clusters), dtype=np.float64)


def _by_first_appearance(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Renumber the groups in the order of their first classes."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse], dtype=np.int64)
