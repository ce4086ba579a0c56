"""Mean average precision at K: the ranking of each sample's labels at the top."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_array

from sklearn_structreg.core.checks import is_integer
from sklearn_structreg.core.targets import check_weight
from sklearn_structreg.selfinformed.labels import (
    check_classes,
    check_truth,
    infer_classes,
    read_truth,
)

__all__ = ["mean_average_precision_at_k"]


def mean_average_precision_at_k(
    y_true: Any,
    y_score: ArrayLike,
    *,
    k: int = 50,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Average the precision at each true label among a sample's K best, over samples.

    .. math:: \mathrm{AP}_K(x) = \frac{1}{\min(|y|, K)} \sum_{j \in y:\ r_j \le K}
              \frac{|\{i \in y: r_i \le r_j\}|}{r_j}

    with :math:`r_j` the number of labels that score at least as high as label j. For
    one true label this is one over its rank, or zero beyond K.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_labels)
        Labels, or an indicator (dense or sparse). Samples without a true label have no
        average precision and are left out.
    y_score : array-like of shape (n_samples, n_labels) or (n_samples,)
        Scores, the higher the likelier. One dimension is the probability of the second
        of two classes.
    k : int, default=50
        Number of best scores that count; the paper's 50. More than there are labels
        counts all.
    labels : array-like of shape (n_labels,), default=None
        The label of each column; None takes the sorted labels, if there are as many as
        columns, or else column numbers.
    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative; zero means absent.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        If no sample has a true label, or y_true does not fit the columns of y_score.

    See Also
    --------
    sklearn.metrics.label_ranking_average_precision_score : The same with all labels
        counted, where every sample has one.

    Notes
    -----
    Tied labels all get the last rank among them, so that no label gains from its
    position.

    As a scorer: ``make_scorer(mean_average_precision_at_k, k=5,
    response_method="predict_proba")``. Give `labels` too where a fold may lack a class.
    For an indicator of just two labels take ``"decision_function"``: scikit-learn keeps
    one column of the probabilities then, as it does of two classes.

    Examples
    --------
    >>> from sklearn_structreg.selfinformed import mean_average_precision_at_k
    >>> y_true = [[1, 0, 1, 0], [0, 1, 0, 0]]
    >>> y_score = [[0.9, 0.8, 0.7, 0.1], [0.4, 0.3, 0.2, 0.1]]
    >>> mean_average_precision_at_k(y_true, y_score, k=3)
    0.666...
    """
    if not is_integer(k):
        raise ValueError(
            f"k={k!r} must be a positive integer, the number of best scores that count."
        )
    scores = check_array(y_score, ensure_2d=False, dtype=(np.float64, np.float32))
    y = y_true if hasattr(y_true, "shape") else np.asarray(y_true)
    if scores.ndim == 1:
        scores, labels = _of_two_classes(scores, y, labels)
    y = check_truth(y, scores)
    n_labels = scores.shape[1]
    if labels is not None:
        classes = check_classes(labels, n_labels)
    else:
        classes = infer_classes(y, n_labels, None, whole=True)
        if y.ndim == 1 and not np.isin(y, classes).all():
            raise ValueError(
                f"y_true holds other labels than the numbers of the {n_labels} columns "
                "of y_score, and not one for each; give the label of each column in "
                "labels."
            )
    truth = read_truth(y, classes).toarray() > 0
    weight = check_weight(sample_weight, len(scores))
    present = truth.any(axis=1) if weight is None else truth.any(axis=1) & (weight > 0)
    if not present.any():
        raise ValueError(
            "No sample has a true label, so there is nothing to rank; give some labels."
        )
    precision = _average_precision(scores[present], truth[present], k)
    weights = None if weight is None else weight[present]
    return float(np.average(precision, weights=weights))


def _of_two_classes(scores: Any, y: Any, labels: Any) -> tuple[Any, Any]:
    """Turn probabilities of the second of two classes into two columns."""
    if y.ndim == 2 and y.shape[1] > 1:
        raise ValueError(
            "y_score has one dimension, but y_true is an indicator of several labels; "
            "give a column of scores for each, as a scorer of two labels does with "
            "response_method='decision_function'."
        )
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError(
            "y_score has one dimension, so it must hold probabilities of the second of "
            "two classes; give a column for each label instead."
        )
    if labels is None:
        labels = np.unique(y)
        if labels.size != 2:
            raise ValueError(
                f"y_score has one dimension, but y_true holds {labels.size} class(es), "
                "not two; give the two in labels."
            )
    return np.column_stack([1 - scores, scores]), labels


def _average_precision(scores: Any, truth: Any, k: int) -> Any:
    """Compute the average precision of each sample among its K best."""
    n_labels = scores.shape[1]
    order = np.argsort(-scores, axis=1)
    ranked = np.take_along_axis(scores, order, axis=1)
    true = np.take_along_axis(truth, order, axis=1)
    # Tied labels share the last place among them.
    is_last = np.diff(ranked, axis=1, append=np.nan) != 0
    last = np.where(is_last, np.arange(n_labels), n_labels)
    place = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    hits = np.take_along_axis(true.cumsum(axis=1), place, axis=1)
    counted = true & (place < k)
    total = np.where(counted, hits / (place + 1), 0.0).sum(axis=1)
    return total / np.minimum(true.sum(axis=1), k)
