"""Held-out scores in, groups of classes out: what the heads are made for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import nn

from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.training import predict_logits
from sklearn_structreg.selfinformed.partitioner import ConfusionSpectralPartitioner

__all__ = ["ClassPartition", "partition_by_scores"]

PREDICTION_ROWS = 1024  # per forward pass
_CHUNK_ROWS = 16 * PREDICTION_ROWS


@dataclass(frozen=True)
class ClassPartition:
    """Groups of classes and what they were found from.

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
        K of the detections.
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

    def permuted(self, rng: np.random.Generator) -> ClassPartition:
        """Keep the sizes of the groups and draw their members by lot."""
        return replace(self, labels_=rng.permutation(self.labels_))


def partition_by_scores(
    module: nn.Module,
    data: TrainingData,
    classes: NDArray[Any],
    *,
    n_clusters: int | str,
    source: str,
    top_k: int | str,
    seed: int,
    placement: dict[str, Any],
) -> ClassPartition:
    """Score samples with a network and group the classes that it confuses.

    Parameters
    ----------
    module : torch.nn.Module
        Gives logits.
    data : TrainingData
        The samples to score.
    classes : ndarray of shape (n_classes,)
        Labels.
    n_clusters, top_k : int or "auto"
        As in `ConfusionSpectralPartitioner`.
    source : {"confusion", "codetection", "random", "random_codetection"}
        The random ones permute the classes of the groups found by confusions or by
        co-detections.
    seed : int
        Of the clustering and the permutation.
    placement : dict
        Input shape, dtype and device, as `TrainingData.batches` takes them.

    Returns
    -------
    ClassPartition
    """
    partitioner = ConfusionSpectralPartitioner(
        n_clusters,
        source="codetection" if "codetection" in source else "confusion",
        top_k=top_k,
        classes=classes,
        random_state=np.random.RandomState(seed % 2**32),
    )
    missed, true = np.zeros((2, len(classes)))
    for scores, truth, weight in _score(module, data, len(classes), placement):
        y = truth if data.target.ndim == 2 else classes[truth.argmax(axis=1)]
        partitioner.partial_fit(scores, y, weight)
        weighted = truth if weight is None else truth * weight[:, None]
        true += weighted.sum(axis=0)
        missed += (weighted * ~_among_best(scores, truth)).sum(axis=0)
    _, labels = np.unique(partitioner.labels_, return_inverse=True)
    partition = ClassPartition(
        labels,
        classes,
        partitioner.confusion_,
        missed / np.where(true > 0.0, true, 1.0),
        int(partitioner.top_k_ or 1),
    )
    if source.startswith("random"):
        return partition.permuted(np.random.default_rng(seed))
    return partition


def _score(
    module: nn.Module, data: TrainingData, n_classes: int, placement: dict[str, Any]
) -> Iterator[tuple[Any, ...]]:
    """Yield scores, the truth as an indicator, and weights, some rows at a time."""
    for start in range(0, data.n_rows, _CHUNK_ROWS):
        part = replace(data, rows=data.rows[start : start + _CHUNK_ROWS])
        batches = part.batches(batch_size=PREDICTION_ROWS, normalize=False, **placement)
        truth = part.target[part.rows]
        if truth.ndim == 1:
            truth = truth[:, None] == np.arange(n_classes)
        weight = None if part.weight is None else part.weight[part.rows]
        yield predict_logits(module, batches).numpy(), truth.astype(np.int8), weight


def _among_best(
    scores: NDArray[np.float64], truth: NDArray[np.int8]
) -> NDArray[np.bool_]:
    """Tell which classes are among a sample's best, as many as it has true ones."""
    n_true = np.maximum(truth.sum(axis=1, dtype=np.int64), 1)
    ascending = np.sort(scores, axis=1)
    bar = ascending[np.arange(len(scores)), scores.shape[1] - n_true]
    return np.asarray(scores >= bar[:, None])
