"""Check what is counted with: a given confusion matrix, and sample weights."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.validation import _check_sample_weight


def check_counts(matrix: Any) -> sparse.csr_array:
    """Check a given confusion matrix, dense or sparse, and copy it to a sparse one.

    Parameters
    ----------
    matrix : {ndarray, csr_array} of shape (n_classes, n_classes)
        Counts or frequencies, truth in rows.

    Returns
    -------
    counts : csr_array of shape (n_classes, n_classes)
        The same, without stored zeros.

    Raises
    ------
    ValueError
        If it is not square or holds negative values.
    """
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"A precomputed confusion matrix must be square, but X has shape "
            f"{matrix.shape}: give truth in rows and predictions in columns."
        )
    counts = sparse.csr_array(matrix, copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    if np.any(counts.data < 0.0):
        raise ValueError(
            "Negative values in data passed to ConfusionSpectralPartitioner: a "
            "precomputed confusion matrix holds counts or frequencies."
        )
    return counts


def check_weight(sample_weight: Any, X: Any) -> NDArray[np.float64] | None:
    """Check sample weights for length, sign and finiteness; None stands for ones.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,) or None
        What was given.
    X : array-like of shape (n_samples, n_classes)
        What it weights.

    Returns
    -------
    weight : ndarray of shape (n_samples,) or None
        The weights in double precision.

    Raises
    ------
    ValueError
        If a weight is negative or none is positive.
    """
    if sample_weight is None:
        return None
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if np.any(weight < 0.0):
        raise ValueError("Negative values in data passed to sample_weight.")
    if not weight.any():
        raise ValueError("sample_weight is zero for every sample: nothing to count.")
    return np.asarray(weight)
