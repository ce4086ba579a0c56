"""The network to augment: trained here, or brought along."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted, has_fit_parameter
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.training import build_network
from sklearn_structreg.selfinformed.attach import find_junction

__all__ = ["check_base", "fit_base", "is_fitted", "network_of"]

SAMPLE_ROWS = 2  # shown to a network before it is trained


def is_fitted(base: Any) -> bool:
    """Tell whether a base is to be used as it is."""
    try:
        check_is_fitted(base)
    except (NotFittedError, TypeError):
        return False
    return True


def unwrap(base: Any) -> Any:
    """Return the estimator inside of a `FrozenEstimator`."""
    return base.estimator if isinstance(base, FrozenEstimator) else base


def check_base(
    base: Any,
    estimator: Any,
    data: TrainingData,
    *,
    weighted: bool,
    placement: dict[str, Any],
) -> None:
    """Check what can be said about a base before any work is done.

    Parameters
    ----------
    base : estimator
        Fitted or not.
    estimator : SelfInformedClassifier
        Read for `attach` and for what it has seen of the data.
    data : TrainingData
        Samples to run through its network.
    weighted : bool
        Whether there are sample weights.
    placement : dict
        Input shape, dtype and device, as `TrainingData.batches` takes them.

    Raises
    ------
    ValueError
        If it is frozen and not fitted, has to be fitted and takes no weights, has no
        network, or heads cannot attach to it.
    """
    name = type(unwrap(base)).__name__
    if isinstance(unwrap(base), type(estimator)):
        raise ValueError(
            f"base is itself a {name}; use n_rounds to add heads more than once."
        )
    if isinstance(unwrap(base), Pipeline):
        raise ValueError(
            "base is a Pipeline, but must be the network alone: put the other steps "
            "outside, as in make_pipeline(StandardScaler(), "
            "SelfInformedClassifier(network))."
        )
    if isinstance(base, FrozenEstimator) and not is_fitted(base):
        raise ValueError(
            f"base is a frozen {name} that is not fitted; fit it first, or pass it "
            "without FrozenEstimator to have it trained."
        )
    if (
        weighted
        and not is_fitted(base)
        and not has_fit_parameter(base, "sample_weight")
    ):
        raise ValueError(
            f"base={name} takes no sample_weight in fit; fit it yourself and pass it "
            "fitted, or leave the weights out."
        )
    if is_fitted(base):
        network_of(unwrap(base), estimator)
    elif isinstance(base, StructuredClassifier):
        _try_network(base, estimator, data, placement)


def fit_base(
    base: Any, X: Any, y: Any, sample_weight: Any, rows: NDArray[np.int64] | None
) -> Any:
    """Return a base that is fitted: as it is, or a clone trained on some rows.

    Parameters
    ----------
    base : estimator
        Fitted or not.
    X, y, sample_weight
        As passed to `fit`.
    rows : ndarray of int64 or None
        The rows to train on; None is all.

    Returns
    -------
    estimator
    """
    if is_fitted(base):
        return unwrap(base)
    if rows is not None:
        y = None if y is None else _safe_indexing(y, rows)
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight)[rows]
        X = _rows_of(X, rows)
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    return clone(base).fit(X, y, **weights)


def _rows_of(X: Any, rows: NDArray[np.int64]) -> Any:
    if isinstance(X, Dataset):
        return Subset(X, rows.tolist())
    return X[rows] if isinstance(X, Tensor) else _safe_indexing(X, rows)


def _try_network(
    base: StructuredClassifier,
    estimator: Any,
    data: TrainingData,
    placement: dict[str, Any],
) -> None:
    """Build the network that a base will train, to see whether heads can attach."""
    probe = clone(base)
    probe.input_shape_ = tuple(base.image_shape or estimator.input_shape_)
    placement = placement | {"input_shape": probe.input_shape_}
    sample = data.head(SAMPLE_ROWS, **placement)
    n_classes = len(estimator.classes_)
    network = build_network(probe, n_classes, sample, 0)
    find_junction(network, sample, n_classes, estimator.attach)


def network_of(base: Any, estimator: Any) -> nn.Module:
    """Return a copy of the network of a fitted base, in evaluation mode.

    Layers that compute their weights (Blockout's) are folded into plain ones, which
    compute the same.

    Parameters
    ----------
    base : classifier
        Fitted.
    estimator : SelfInformedClassifier
        Read for what it has seen of the data: features, classes, how many labels.

    Raises
    ------
    ValueError
        If the base has none, or was fitted for other features or classes, or for one
        label per sample where there are several, or the other way round.
    """
    module = getattr(base, "module_", None)
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"base={type(base).__name__} has no torch module in `module_` once it is "
            "fitted; pass a classifier of this package or a skorch NeuralNetClassifier."
        )
    n_features = getattr(base, "n_features_in_", estimator.n_features_in_)
    if n_features != estimator.n_features_in_:
        raise ValueError(
            f"The base was fitted for {n_features} features, but X has "
            f"{estimator.n_features_in_}; they must be the same."
        )
    multilabel = estimator.multilabel_
    if getattr(base, "multilabel_", multilabel) != multilabel:
        several, one = "several labels per sample", "one label per sample"
        raise ValueError(
            f"The base was fitted for {one if multilabel else several}, but y holds "
            f"{several if multilabel else one}; they must be alike."
        )
    classes = estimator.classes_
    known = np.asarray(getattr(base, "classes_", classes))
    if not np.array_equal(known, classes):
        raise ValueError(
            f"The base was fitted for the classes {known.tolist()}, but y holds "
            f"{classes.tolist()}; they must be the same."
        )
    copied: nn.Module = base.fold() if hasattr(base, "fold") else copy.deepcopy(module)
    return copied.eval()
