"""Which column of the scores a label means: the one place where y is read."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from sklearn_structreg.selfinformed.confusion import truth_indicator

_NOT_AN_INDICATOR = (
    "y has one column per class, so it is read as a label indicator, but it holds "
    "values other than 0 and 1: give one label per sample, or an indicator."
)


def check_classes(classes: ArrayLike, n_classes: int) -> NDArray[Any]:
    """Check that `classes` names every column of the scores once.

    Raises
    ------
    ValueError
        If a name is missing, superfluous or repeated.
    """
    names = column_or_1d(classes)
    if names.size != n_classes:
        raise ValueError(
            f"classes names {names.size} classes, but X has {n_classes} feature(s), "
            "one per class: give one name for each column of X."
        )
    if len(set(names.tolist())) != names.size:
        raise ValueError("classes holds a name twice: every column needs its own.")
    return np.asarray(names)


def infer_classes(
    y: Any, n_classes: int, names: NDArray[Any] | None, *, whole: bool
) -> NDArray[Any]:
    """Decide what the columns are called where `classes` does not say it.

    Parameters
    ----------
    y : array-like or None
        Labels or a label indicator.
    n_classes : int
        The number of columns of the scores.
    names : ndarray of shape (n_classes,) or None
        The names of a DataFrame's columns.
    whole : bool
        Whether y is the whole truth (`fit`) rather than a batch of it.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        In this order: the column names, if every label is one of them; the sorted
        labels, if the whole y has as many as X has columns; else column numbers.
    """
    numbers = np.arange(n_classes)
    if y is None or is_indicator(y, n_classes):
        return numbers if names is None else names
    labels = np.unique(np.asarray(y))
    if names is not None and set(labels.tolist()) <= set(names.tolist()):
        return names
    if whole and labels.size == n_classes:
        return labels
    if whole and labels[0] == 1 and labels[-1] < n_classes:
        warnings.warn(
            "The labels in y are read as column numbers counted from 0, but y holds no "
            "0: pass `classes`, the label of each column, to rule out a shift by one.",
            UserWarning,
            stacklevel=4,
        )
    return numbers


def read_truth(
    y: Any, classes: NDArray[Any], *, strict: bool = True
) -> sparse.csr_array:
    """Turn labels or a label indicator into Eq. 1's g_j(x).

    Parameters
    ----------
    y : {array-like, sparse matrix} of shape (n_samples,) or (n_samples, n_classes)
        Labels out of `classes`, or zeros and ones.
    classes : ndarray of shape (n_classes,)
        What the columns are called.
    strict : bool, default=True
        Whether a label without a column is an error even where the labels are 0, 1, ...
        without a gap, so that it can only be a class that the scores do not cover.
        Otherwise such a sample has no true class, as in
        :func:`sklearn.metrics.confusion_matrix` with fewer `labels`.

    Returns
    -------
    truth : csr_array of shape (n_samples, n_classes)
        Ones where the class is true.

    Raises
    ------
    ValueError
        If a label is none of the classes or an indicator holds another value.

    Examples
    --------
    >>> import numpy as np
    >>> read_truth(["cat", "ant"], np.array(["ant", "bee", "cat"])).toarray()
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    if is_indicator(y, classes.size):
        truth = sparse.csr_array(y, dtype=np.float64, copy=True)
        truth.sum_duplicates()
        truth.eliminate_zeros()
        if np.any(truth.data != 1.0):
            raise ValueError(_NOT_AN_INDICATOR)
        return truth
    columns = _columns(np.asarray(y), classes, strict=strict)
    return truth_indicator(columns, classes.size)


def check_truth(y: Any, X: Any) -> Any:
    """Check y for shape, length and finite values; the labels may be of any type."""
    y = check_array(y, accept_sparse="csr", ensure_2d=False, dtype=None, input_name="y")
    check_consistent_length(X, y)
    n_classes = X.shape[1]
    if is_indicator(y, n_classes):
        if y.dtype.kind not in "biuf":
            raise ValueError(_NOT_AN_INDICATOR)
        return y
    if y.ndim == 2 and y.shape[1] > 1:
        raise ValueError(
            f"y has {y.shape[1]} columns, but X has {n_classes} feature(s), one per "
            "class: give labels, or an indicator as wide as X."
        )
    y = column_or_1d(y, warn=True)
    mixed = y.dtype == object and not all(isinstance(label, str) for label in y)
    fractional = y.dtype.kind == "f" and np.any(y != np.floor(y))
    if mixed or fractional:
        raise ValueError(
            "Unknown label type: y must hold integers, strings or booleans; numbers "
            "with a fraction and objects name no class."
        )
    return y


def is_indicator(y: Any, n_classes: int) -> bool:
    """Tell whether y has one column per class."""
    shape = y.shape if hasattr(y, "shape") else np.shape(y)
    return len(shape) == 2 and shape[1] == n_classes


def _columns(
    y: NDArray[Any], classes: NDArray[Any], *, strict: bool
) -> NDArray[np.intp]:
    """Look up the column number of every label; -1 where it has none."""
    labels, inverse = np.unique(y, return_inverse=True)
    order = {name: column for column, name in enumerate(classes.tolist())}
    found = [order.get(label, -1) for label in labels.tolist()]
    unknown = [
        label for label, at in zip(labels.tolist(), found, strict=True) if at < 0
    ]
    gapless = labels.size > classes.size and np.array_equal(
        labels, np.arange(labels.size)
    )
    if unknown and (strict or not gapless):
        raise ValueError(
            f"y holds the label {unknown[0]!r}, which is none of the classes of the "
            f"{classes.size} feature(s) of X ({_preview(classes)}): pass `classes`, "
            "the label of each column, in order."
        )
    return np.asarray(found, dtype=np.intp)[inverse]


def _preview(classes: NDArray[Any]) -> str:
    """Show the first few classes."""
    shown = ", ".join(repr(name) for name in classes[:4].tolist())
    return shown + (", ..." if classes.size > 4 else "")
