"""Reading y: the column of the scores that each label stands for."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from sklearn_structreg.selfinformed.confusion import truth_indicator

_NOT_AN_INDICATOR = (
    "y has one column per class, so it is read as a label indicator, but it holds "
    "values other than 0 and 1; give one label per sample, or an indicator."
)


def check_classes(classes: ArrayLike, n_classes: int) -> NDArray[Any]:
    """Check that `classes` names every column of the scores once."""
    names = np.asarray(classes)
    if names.ndim != 1:
        raise ValueError(f"classes has shape {names.shape}; give one name per column.")
    if names.size != n_classes:
        raise ValueError(
            f"classes names {names.size} classes, but X has {n_classes} feature(s), "
            "one per class; give one name for each column of X."
        )
    if len(set(names.tolist())) != names.size:
        raise ValueError("classes holds a name twice; give each column its own.")
    return np.asarray(names)


def check_names(display_labels: Any, classes: NDArray[Any]) -> NDArray[Any]:
    """Check names to show, one for each class."""
    names = np.asarray(display_labels)
    if names.shape != classes.shape:
        raise ValueError(
            f"display_labels has shape {names.shape} for {len(classes)} classes; give "
            "one name per class."
        )
    return names


def infer_classes(
    y: Any, n_classes: int, names: NDArray[Any] | None, *, whole: bool
) -> NDArray[Any]:
    """Name the columns: DataFrame names, a whole y's sorted labels, or numbers."""
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
            "0; pass `classes`, the label of each column, to rule out a shift by one.",
            UserWarning,
            stacklevel=4,
        )
    return numbers


def read_truth(
    y: Any, classes: NDArray[Any], *, strict: bool = True
) -> sparse.csr_array:
    """Turn labels or a label indicator into the indicator g_j(x) of Eq. 1."""
    # Unless `strict`, gapless labels 0, 1, ... beyond the columns are classes that the
    # scores do not cover. Their samples have no true class, as in
    # `sklearn.metrics.confusion_matrix` with fewer `labels`.
    if is_indicator(y, classes.size):
        truth = sparse.csr_array(y, dtype=np.float64, copy=True)
        truth.sum_duplicates()
        truth.eliminate_zeros()
        if np.any(truth.data != 1.0):
            raise ValueError(_NOT_AN_INDICATOR)
        return truth
    labels, inverse = np.unique(np.asarray(y), return_inverse=True)
    column = {name: number for number, name in enumerate(classes.tolist())}
    unknown = [label for label in labels.tolist() if label not in column]
    gapless = np.array_equal(labels, np.arange(labels.size))
    if unknown and (strict or not (gapless and labels.size > classes.size)):
        shown = ", ".join(map(repr, classes[:4].tolist()))
        shown += ", ..." if classes.size > 4 else ""
        raise ValueError(
            f"y holds the label {unknown[0]!r}, which is none of the classes of the "
            f"{classes.size} feature(s) of X ({shown}); pass `classes`, the label of "
            "each column, in order."
        )
    columns = np.array([column.get(label, -1) for label in labels.tolist()])
    return truth_indicator(columns[inverse], classes.size)


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
            "class; give labels, or an indicator as wide as X."
        )
    y = column_or_1d(y, warn=True)
    mixed = y.dtype == object and not all(isinstance(label, str) for label in y)
    fractional = y.dtype.kind == "f" and np.any(y != np.floor(y))
    if mixed or fractional:
        raise ValueError(
            "Unknown label type: y holds fractions or objects; give integers, strings "
            "or booleans."
        )
    return y


def is_indicator(y: Any, n_classes: int) -> bool:
    """Check whether y has one column per class."""
    shape = y.shape if hasattr(y, "shape") else np.shape(y)
    return len(shape) == 2 and shape[1] == n_classes
