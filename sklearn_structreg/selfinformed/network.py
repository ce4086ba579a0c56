"""The network to add heads to: trained here, or given."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.validation import check_is_fitted, has_fit_parameter
from skorch import NeuralNet
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.device import dtype_name
from sklearn_structreg.core.image_shapes import with_channel
from sklearn_structreg.core.insertion import simplify_inserted
from sklearn_structreg.core.inspection import find_layer, replace_layer
from sklearn_structreg.core.interruption import noting_interrupts
from sklearn_structreg.core.recipe import TensorSpec
from sklearn_structreg.core.sklearn_callbacks import reported_network
from sklearn_structreg.core.sparse_rows import SparseRows
from sklearn_structreg.core.standardization import take_standardization
from sklearn_structreg.core.task import Task
from sklearn_structreg.core.training import SAMPLE_ROWS, build_network
from sklearn_structreg.selfinformed.places import find_attachment_point

__all__ = [
    "Expected",
    "check_estimator",
    "classes_of",
    "epochs_of_folds",
    "fit_estimator",
    "is_fitted",
    "network_of",
    "unwrap",
]

FOLD_EPOCHS = 0.3
"""Epochs of networks that only score, as a share of the network's own."""
FEW_EPOCHS = 10
"""They are no fewer than these, or all."""


@dataclass(frozen=True)
class Expected:
    """The data that a network must fit, and the places that heads read."""

    n_features: int
    classes: NDArray[Any]
    task: Task
    layer: str | list[str]
    kernel_size: int | None
    spec: TensorSpec


def is_fitted(estimator: Any) -> bool:
    """Check whether an estimator is to be used as it is."""
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError):
        return False
    return True


def classes_of(estimator: Any) -> NDArray[Any] | None:
    """Return the classes of a fitted classifier of one label per sample."""
    inner = unwrap(estimator)
    if not is_fitted(estimator) or getattr(inner, "multilabel_", False):
        return None
    return getattr(inner, "classes_", None)


def unwrap(estimator: Any) -> Any:
    """Look inside of a `FrozenEstimator`."""
    frozen = isinstance(estimator, FrozenEstimator)
    return estimator.estimator if frozen else estimator


def check_estimator(
    estimator: Any,
    expected: Expected,
    data: TrainingData,
    *,
    weighted: bool,
    resumable: bool = False,
) -> None:
    """Refuse an estimator that will not do, before any training."""
    inner, fitted = unwrap(estimator), is_fitted(estimator)
    name = type(inner).__name__
    if isinstance(inner, Pipeline):
        raise ValueError(
            "estimator is a Pipeline, but must be the network alone; put the other "
            "steps outside, as in make_pipeline(StandardScaler(), "
            "SelfInformedClassifier(network))."
        )
    if hasattr(inner, "__sklearn_tags__") and is_regressor(inner):
        raise ValueError(
            f"estimator={name} is a regressor, which has no classes to confuse; pass a "
            "classifier."
        )
    if getattr(inner, "n_members", 1) > 1:
        raise ValueError(
            f"estimator={name} has n_members={inner.n_members} networks, but heads are "
            "added to one; set n_members=1 there, and that of the "
            "SelfInformedClassifier in its place."
        )
    networks = StructuredClassifier | NeuralNet
    known = isinstance(getattr(inner, "module_", None), nn.Module)
    if not (known if fitted else isinstance(inner, networks)):
        raise ValueError(
            f"estimator={name} has no torch module in `module_` to add heads to; pass "
            "a classifier of this package, a skorch NeuralNetClassifier, or a fitted "
            "estimator that has one."
        )
    if isinstance(estimator, FrozenEstimator) and not fitted:
        raise ValueError(
            f"estimator is a frozen {name} that is not fitted; fit it first, or pass "
            "it without FrozenEstimator to have it trained."
        )
    if resumable and not fitted and isinstance(inner, NeuralNet):
        raise ValueError(
            f"estimator={name} keeps no state for checkpoint to go on from; fit it "
            "yourself and pass it fitted, or set checkpoint=None."
        )
    sparse = isinstance(data.samples, SparseRows)
    if sparse and not fitted and isinstance(inner, NeuralNet):
        raise ValueError(
            f"estimator={name} would get all of X dense; pass X.toarray(), or take a "
            "StructuredClassifier in its place."
        )
    if weighted and not fitted and not has_fit_parameter(inner, "sample_weight"):
        raise ValueError(
            f"estimator={name} takes no sample_weight in fit; fit it yourself and pass "
            "it fitted, or leave the weights out."
        )
    if fitted:
        _check_seen(inner, expected)
    elif isinstance(inner, StructuredClassifier):
        inner._validate_params()
        _try_network(inner, expected, data)


def _check_seen(inner: Any, expected: Expected) -> None:
    """Check that an estimator was fitted for the same features and classes."""
    labels = {True: "several labels per sample", False: "one label per sample"}
    multilabel = expected.task is Task.LABELS
    seen_labels = labels[getattr(inner, "multilabel_", multilabel)]
    n_features = getattr(inner, "n_features_in_", expected.n_features)
    classes = np.asarray(getattr(inner, "classes_", expected.classes)).tolist()
    for seen, kind, where, given in (
        (n_features, "{} features", "X has", expected.n_features),
        (seen_labels, "{}", "y holds", labels[multilabel]),
        (classes, "the classes {}", "y holds", expected.classes.tolist()),
    ):
        if seen != given:
            raise ValueError(
                f"The estimator was fitted for {kind.format(seen)}, but {where} "
                f"{given}; they must be the same."
            )


def _try_network(
    inner: StructuredClassifier, expected: Expected, data: TrainingData
) -> None:
    """Build the network that an estimator will train, to see if heads can attach."""
    shape = expected.spec.shape
    if inner.image_shape is not None:
        shape = with_channel(inner.image_shape)
    sample = data.first_rows(SAMPLE_ROWS, replace(expected.spec, shape=shape))
    sample = sample.to(expected.spec.dtype)
    n_classes = len(expected.classes)
    network = build_network(
        inner.module,
        inner.module_params,
        inner.hidden_layer_sizes,
        n_outputs=n_classes,
        sample=sample,
        dtype=sample.dtype,
        seed=0,
        task=expected.task,
    )
    find_attachment_point(
        network, sample, n_classes, expected.layer, expected.kernel_size
    )


def epochs_of_folds(max_epochs: int) -> int:
    """Return the epochs of a network that only scores."""
    return min(max_epochs, max(FEW_EPOCHS, math.ceil(FOLD_EPOCHS * max_epochs)))


def fit_estimator(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    part: TrainingData,
    spec: TensorSpec,
    folder: Path | None = None,
    *,
    whole: bool = True,
) -> Any:
    """Train a clone on a part of the rows; leave a fitted one as it is.

    A part that is not the whole of X is trained on for fewer epochs, since it is for
    scores alone. The state is kept in `folder`, unless the estimator has one of its own
    for the whole.
    """
    if is_fitted(estimator):
        return unwrap(estimator)
    model = clone(estimator)
    if not whole:
        model.set_params(max_epochs=epochs_of_folds(model.max_epochs))
    if isinstance(estimator, NeuralNet) and not isinstance(X, Dataset):
        with noting_interrupts(at_once=True):
            return _fit_skorch(model, part, spec)
    if not whole:
        rows = part.rows
        y = None if y is None else _rows_of(y, rows)
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight)[rows]
        X = Subset(X, rows.tolist()) if isinstance(X, Dataset) else _rows_of(X, rows)
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    if isinstance(model, NeuralNet):
        with noting_interrupts(at_once=True):
            return model.fit(X, y, **weights)
    with reported_network(model):
        if whole and (folder is None or model.checkpoint is not None):
            return model.fit(X, y, **weights)
        model.set_params(checkpoint=folder).fit(X, y, **weights)
        return model.set_params(checkpoint=None)


def _rows_of(values: Any, rows: NDArray[np.int64]) -> Any:
    """Take rows of an array, a sparse matrix, a tensor, a table or a list."""
    if isinstance(values, Tensor):
        return values[rows]
    return _safe_indexing(indexable(values)[0], rows)


def _fit_skorch(net: NeuralNet, part: TrainingData, spec: TensorSpec) -> NeuralNet:
    """Give a skorch net samples in its module's precision, and class numbers."""
    module = net.module if isinstance(net.module, nn.Module) else nn.Linear(1, 1)
    weights = (p for p in module.parameters() if p.is_floating_point())
    dtype = dtype_name(next(weights, torch.empty(0)).dtype)
    assert not isinstance(part.samples, Dataset)
    X, y = part.samples[part.rows].astype(dtype), part.target[part.rows]
    return net.fit(X.reshape(-1, *spec.shape), y if y.ndim == 1 else y.astype(dtype))


def network_of(estimator: Any) -> nn.Module:
    """Copy the network of a fitted estimator, simplified if it is of this package."""
    if isinstance(estimator, StructuredClassifier):
        network: nn.Module = copy.deepcopy(estimator.module_)
        first = take_standardization(network)
        network = simplify_inserted(estimator.regularizers_.simplify(network))
        if first is not None:  # a layer of its own: heads may read its output
            name, standardize = first
            chain = nn.Sequential(standardize, find_layer(network, name))
            network = replace_layer(network, name, chain)
        return network.eval()
    network = copy.deepcopy(estimator.module_)
    return network.eval()
