"""Find the (K+1)-th best score of every row: the hot spot of counting confusions."""

import numpy as np
from numpy.typing import NDArray

# Every _STRIDE-th score is looked at first. Below _MANY scores it does not pay.
_STRIDE = 8
_MANY = 500


def runner_up(scores: NDArray[np.floating], top_k: int) -> NDArray[np.floating]:
    """Return the (K+1)-th largest score of each row.

    A sample of the columns gives each row a bar that a few more than K+1 scores will
    clear; only these are then partitioned. Where fewer clear it the row tells nothing
    (the sample was unlucky, or scores are tied), and whole rows are partitioned. Either
    way the result is exact.

    Parameters
    ----------
    scores : ndarray of shape (n_rows, n_columns)
        At least one row, finite.
    top_k : int
        K, in [1, n_columns).

    Returns
    -------
    runner_up : ndarray of shape (n_rows, 1)
        The (K+1)-th largest score.

    Examples
    --------
    >>> import numpy as np
    >>> runner_up(np.array([[0.1, 0.7, 0.2], [5.0, 5.0, 5.0]]), 1)
    array([[0.2],
           [5. ]])
    """
    n_rows, n_columns = scores.shape
    expected = (top_k + 1) / _STRIDE
    # Four standard deviations more than expected: hardly a row falls short by chance.
    rank = int(expected + 4.0 * np.sqrt(expected) + 4.0)
    sample = scores[:, ::_STRIDE]
    if n_columns < _MANY or 2 * rank >= sample.shape[1]:
        return _largest(scores, top_k)
    clears = scores > _largest(np.ascontiguousarray(sample), rank)
    counts = np.count_nonzero(clears, axis=1)
    width = int(counts.max())
    if counts.min() <= top_k or width > n_columns // 4:
        return _largest(scores, top_k)
    # The candidates of each row, side by side, with -inf after them.
    candidates = np.full((n_rows, width), -np.inf, dtype=scores.dtype)
    candidates[np.arange(width) < counts[:, None]] = scores[clears]
    return _largest(candidates, top_k)


def _largest(scores: NDArray[np.floating], rank: int) -> NDArray[np.floating]:
    """Return the score of each row that `rank` others rank before."""
    place = scores.shape[1] - rank - 1
    return np.partition(scores, place, axis=1)[:, place, None]
