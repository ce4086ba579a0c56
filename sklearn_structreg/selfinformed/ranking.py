"""The k-th largest score of every row: the hot spot of counting confusions."""

import numpy as np
from numpy.typing import NDArray

# Every _STRIDE-th score is looked at first. Below _MANY scores it does not pay.
_STRIDE = 8
_MANY = 500


def kth_largest(scores: NDArray[np.floating], k: int) -> NDArray[np.floating]:
    """Find the k-th largest score of each row of finite scores, (n_rows, 1)."""
    # Some of the columns give a threshold that a few more than k scores of each row
    # exceed, and only these scores are partitioned. Where fewer exceed it (an unlucky
    # choice of columns, or ties), whole rows are partitioned. Both ways are exact.
    n_rows, n_columns = scores.shape
    expected = k / _STRIDE
    # Four standard deviations more than expected: hardly a row falls short by chance.
    rank = int(expected + 4.0 * np.sqrt(expected) + 5.0)
    sample = scores[:, ::_STRIDE]
    if n_columns < _MANY or 2 * rank >= sample.shape[1]:
        return _partition(scores, k)
    exceeds = scores > _partition(np.ascontiguousarray(sample), rank)
    counts = np.count_nonzero(exceeds, axis=1)
    width = int(counts.max())
    if counts.min() < k or width > n_columns // 4:
        return _partition(scores, k)
    # The candidates of each row, side by side, with -inf after them.
    candidates = np.full((n_rows, width), -np.inf, dtype=scores.dtype)
    candidates[np.arange(width) < counts[:, None]] = scores[exceeds]
    return _partition(candidates, k)


def _partition(scores: NDArray[np.floating], k: int) -> NDArray[np.floating]:
    """Find the k-th largest score of each row by partitioning the rows."""
    place = scores.shape[1] - k
    return np.partition(scores, place, axis=1)[:, place, None]
