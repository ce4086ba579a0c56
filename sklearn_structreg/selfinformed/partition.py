"""Groups of classes, from a network's scores of samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import nn

from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.recipe import TensorSpec
from sklearn_structreg.core.training import (
    PREDICTION_ROWS,
    predict_outputs,
    prediction_rows,
)
from sklearn_structreg.selfinformed.partitioner import ConfusionSpectralPartitioner
from sklearn_structreg.selfinformed.spectral import confusion_degrees

__all__ = ["ClassPartition", "partition_by_scores"]

_CHUNK_ROWS = 16 * PREDICTION_ROWS


@dataclass(frozen=True)
class ClassPartition:
    """Groups of classes and the counts that they were found from.

    Attributes
    ----------
    labels_ : ndarray of shape (n_classes,)
        The group of each class, from 0.
    classes_ : ndarray of shape (n_classes,)
        The label of each class.
    confusion_ : csr_array of shape (n_classes, n_classes)
        As in `ConfusionSpectralPartitioner`.
    miss_rate_ : ndarray of shape (n_classes,), in [0, 1]
        Share of the scored samples of a class that the network missed: another class
        scored best; with several true labels, the class is not among as many best.
    top_k_ : int
        The number of detections per sample.
    """

    labels_: NDArray[np.int64]
    classes_: NDArray[Any]
    confusion_: sparse.csr_array
    miss_rate_: NDArray[np.float64]
    top_k_: int

    @property
    def n_clusters_(self) -> int:
        """The number of groups."""
        return int(self.labels_.max()) + 1

    @property
    def groups_(self) -> list[NDArray[np.int64]]:
        """The class numbers of each group."""
        groups = range(self.n_clusters_)
        return [np.flatnonzero(self.labels_ == group) for group in groups]

    @property
    def clusters_(self) -> list[NDArray[Any]]:
        """The classes of each group."""
        return [self.classes_[group] for group in self.groups_]


def partition_by_scores(
    scorers: Iterable[tuple[nn.Module, TrainingData]],
    classes: NDArray[Any],
    spec: TensorSpec,
    *,
    n_clusters: int | str,
    source: str,
    top_k: int | str,
    seed: int,
) -> ClassPartition:
    """Score samples, each with its network, and group the classes that are confused."""
    partitioner = ConfusionSpectralPartitioner(
        n_clusters,
        source="codetection" if "codetection" in source else "confusion",
        top_k=top_k,
        classes=classes,
        random_state=np.random.RandomState(seed % 2**32),
    )
    missed, true = np.zeros((2, len(classes)))
    for scores, truth, weight, several in _score(scorers, len(classes), spec):
        y = truth if several else classes[truth.argmax(axis=1)]
        partitioner.partial_fit(scores, y, weight)
        weighted = truth if weight is None else truth * weight[:, None]
        true += weighted.sum(axis=0)
        missed += (weighted * ~_among_best(scores, truth)).sum(axis=0)
    if n_clusters != "auto":  # no more than the classes that are confused at all
        n_confused = int(np.count_nonzero(confusion_degrees(partitioner.confusion_)))
        partitioner.n_clusters = min(int(n_clusters), max(1, n_confused))
    _, labels = np.unique(partitioner.labels_, return_inverse=True)
    if source.startswith("random"):  # the control: as large groups, drawn by lot
        labels = np.random.default_rng(seed).permutation(labels)
    return ClassPartition(
        labels,
        classes,
        partitioner.confusion_,
        missed / np.where(true > 0.0, true, 1.0),
        int(partitioner.top_k_ or 1),
    )


def _score(
    scorers: Iterable[tuple[nn.Module, TrainingData]],
    n_classes: int,
    spec: TensorSpec,
) -> Iterator[tuple[Any, ...]]:
    """Yield scores, the truth as an indicator, weights, and whether it has several."""
    for module, data in scorers:
        several = data.target.ndim == 2
        for start in range(0, data.n_rows, _CHUNK_ROWS):
            part = replace(data, rows=data.rows[start : start + _CHUNK_ROWS])
            n_rows = prediction_rows(spec.shape)
            batches = part.batches(spec, batch_size=n_rows, normalize=False)
            truth = part.target[part.rows]
            if not several:
                truth = truth[:, None] == np.arange(n_classes)
            weight = None if part.weight is None else part.weight[part.rows]
            scores = predict_outputs(module, batches).numpy()
            yield scores, truth.astype(np.int8), weight, several


def _among_best(
    scores: NDArray[np.float64], truth: NDArray[np.int8]
) -> NDArray[np.bool_]:
    """Mark as many best classes of a sample as it has true ones."""
    n_true = np.maximum(truth.sum(axis=1, dtype=np.int64), 1)
    ascending = np.sort(scores, axis=1)
    bar = ascending[np.arange(len(scores)), scores.shape[1] - n_true]
    return np.asarray(scores >= bar[:, None])
