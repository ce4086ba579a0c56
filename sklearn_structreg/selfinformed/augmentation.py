"""Add heads and train them, on what the frozen part gives where possible."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sklearn_structreg.core.batches import Batches
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.randomness import derive_seed
from sklearn_structreg.core.regularizer import Regularizer
from sklearn_structreg.core.training import make_net
from sklearn_structreg.selfinformed.allocation import head_layer_sizes_by_group
from sklearn_structreg.selfinformed.heads import AugmentedNet
from sklearn_structreg.selfinformed.holdout import HoldOut
from sklearn_structreg.selfinformed.partition import (
    ClassPartition,
    partition_by_scores,
)

__all__ = ["augment", "keep_features", "train_augmented"]

MAX_KEPT_BYTES = 2**32
PREDICTION_ROWS = 1024  # per forward pass


def augment(
    estimator: Any,
    module: AugmentedNet,
    split: HoldOut,
    *,
    n_rounds: int,
    seed: int,
    placement: dict[str, Any],
) -> tuple[list[ClassPartition], StructuredNet | None]:
    """Score, group, add heads and train them, round by round; then fine-tune.

    Parameters
    ----------
    estimator : SelfInformedClassifier
        Read for its parameters and `classes_`.
    module : AugmentedNet
        Gets the heads, and is trained in place.
    split : HoldOut
        What to train on and what to score.
    n_rounds : int
        How often; 0 leaves the module as it is.
    seed : int
        Of all that is drawn.
    placement : dict
        Input shape, dtype and device, as `TrainingData.batches` takes them.

    Returns
    -------
    partitions : list of ClassPartition
        The groups of each round.
    net : StructuredNet or None
        Trained; None without a round.
    """
    partitions: list[ClassPartition] = []
    net: StructuredNet | None = None

    def train(*stage: int) -> StructuredNet:
        return train_augmented(
            estimator,
            module,
            split.train,
            seed=derive_seed(seed, *stage),
            placement=placement,
            before=net,
        )

    scored = canonical_rows(split.scored, estimator.batch_size)
    for index in range(n_rounds):
        partition = partition_by_scores(
            module,
            scored,
            estimator.classes_,
            n_clusters=estimator.n_clusters,
            source=estimator.source,
            top_k=estimator.top_k,
            seed=derive_seed(seed, 1, index),
            placement=placement,
        )
        partitions.append(partition)
        sizes = head_layer_sizes_by_group(
            estimator.head_layer_sizes, estimator.head_allocation, partition
        )
        groups = [group.tolist() for group in partition.groups_]
        module.add_heads(groups, sizes, seed=derive_seed(seed, 2, index))
        net = train(3, index)
    if n_rounds and estimator.fine_tune:
        module.unfreeze()
        net = train(4)
    return partitions, net


def train_augmented(
    estimator: Any,
    module: AugmentedNet,
    data: TrainingData,
    *,
    seed: int,
    placement: dict[str, Any],
    before: StructuredNet | None,
) -> StructuredNet:
    """Train what is not frozen.

    Parameters
    ----------
    estimator : SelfInformedClassifier
        Read for everything that `make_net` reads, `batch_size` and early stopping.
    module : AugmentedNet
        Trained in place.
    data : TrainingData
        Of which early stopping holds out a part.
    seed : int
        Of the order of the rows and of that part.
    placement : dict
        Input shape, dtype and device, as `TrainingData.batches` takes them.
    before : StructuredNet or None
        The last round's, whose history goes on.

    Returns
    -------
    StructuredNet
    """
    parts = [data]
    if estimator.early_stopping:
        parts = [*data.split(estimator.validation_fraction, seed % 2**32)]
    parts[0] = canonical_rows(parts[0], estimator.batch_size)
    reads_features = False
    if module.frozen and not isinstance(data.samples, Dataset):
        kept = [keep_features(module, part, placement) for part in parts]
        reads_features = None not in kept
    if reads_features:
        parts = [part for part in kept if part is not None]
        placement = placement | {"input_shape": (width_of(module),)}
    train, *valid = [_batches(part, estimator.batch_size, placement) for part in parts]
    net = make_net(
        estimator,
        module,
        Regularizer(),
        seed=seed,
        n_batches=train.n_batches + sum(part.n_batches for part in valid),
    )
    if before is not None:
        net.history.extend(before.history)
    with module.reading_features(reads_features):
        return net.train(train, valid[0] if valid else None)


def canonical_rows(data: TrainingData, batch_size: int | None) -> TrainingData:
    """Merge equal rows where all rows fit in one batch: see `TrainingData.batches`."""
    small = data.n_rows <= _rows_per_batch(data, batch_size)
    return data.merged() if small and not isinstance(data.samples, Dataset) else data


def width_of(module: AugmentedNet) -> int:
    """Return how many numbers the frozen trunk gives for a sample."""
    junction = module.junction
    return junction.n_hidden + (0 if junction.shared else junction.n_features)


def keep_features(
    module: AugmentedNet, data: TrainingData, placement: dict[str, Any]
) -> TrainingData | None:
    """Replace samples by what the frozen trunk makes of them.

    Parameters
    ----------
    module : AugmentedNet
        With a frozen trunk.
    data : TrainingData
        Samples in memory. (A torch `Dataset` is beyond memory or may draw its samples
        anew every epoch.)
    placement : dict
        Input shape, dtype and device, as `TrainingData.batches` takes them.

    Returns
    -------
    TrainingData or None
        To train with inside of ``module.reading_features()``; None where it would
        take too much memory.
    """
    assert not isinstance(data.samples, Dataset)
    if data.n_rows * width_of(module) * data.samples.itemsize > MAX_KEPT_BYTES:
        return None
    module.eval()
    rows: list[Tensor] = []
    with torch.no_grad():
        batches = data.batches(batch_size=PREDICTION_ROWS, normalize=False, **placement)
        rows.extend(module.join(X).cpu() for X, _, _ in batches.epoch(None))
    weight = None if data.weight is None else data.weight[data.rows]
    return TrainingData.of(torch.cat(rows).numpy(), data.target[data.rows], weight)


def _batches(
    data: TrainingData, batch_size: int | None, placement: dict[str, Any]
) -> Batches:
    size = _rows_per_batch(data, batch_size)
    return data.batches(batch_size=size, normalize=True, **placement)


def _rows_per_batch(data: TrainingData, batch_size: int | None) -> int:
    return data.n_rows if batch_size is None or batch_size == -1 else batch_size
