"""Add heads and train them, on the features of the frozen part where possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from skorch.history import History
from torch import Tensor, nn
from torch.utils.data import Dataset

from sklearn_structreg.core.checkpoint import Checkpoint
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.insertion import insertions
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.randomness import derive_seed
from sklearn_structreg.core.recipe import Recipe, TensorSpec
from sklearn_structreg.core.regularizer import Regularizer
from sklearn_structreg.core.sequence import RegularizerSequence
from sklearn_structreg.core.training import SAMPLE_ROWS, prediction_rows, train
from sklearn_structreg.selfinformed.heads import AugmentedNet
from sklearn_structreg.selfinformed.partition import (
    ClassPartition,
    partition_by_scores,
)
from sklearn_structreg.selfinformed.widths import Sizes, head_sizes

__all__ = ["HeadPlan", "HeadTraining", "Learner", "attach", "augment"]

MAX_KEPT_BYTES = 2**32
Groups = tuple[list[ClassPartition], list[Sizes]]
"""The groups of every round, and the units of their heads."""


@dataclass(frozen=True)
class HeadPlan:
    """The heads to add: see the parameters of the same names of the estimator."""

    n_base: int  # multiply-adds of the network
    n_clusters: int | str
    source: str
    top_k: int | str
    head_layer_sizes: Sequence[int] | str
    head_allocation: str
    head_epochs: float
    head_kernel_size: int | None
    budget: float
    n_rounds: int
    fine_tune: bool


@dataclass(frozen=True)
class HeadTraining:
    """The way to train them."""

    regularizers: Sequence[tuple[str, Regularizer]]
    recipe: Recipe
    spec: TensorSpec
    checkpoint: Checkpoint


@dataclass
class Learner:
    """A network that gets heads, the rows to train them on, and rows to score.

    Its seed, the same for all learners of a fit, and a name for its checkpoints.
    """

    module: AugmentedNet
    train: TrainingData
    scored: TrainingData
    name: str = ""
    fresh: bool = False
    kernel_size: int | None = None
    net: StructuredNet | None = None

    def add_heads(
        self,
        groups: list[list[int]],
        sizes: Sequence[Sequence[int]],
        training: HeadTraining,
        index: int,
        seed: int,
    ) -> None:
        """Add a round of heads and train them."""
        module = _without_regularizers(self.module, self.net)
        drawn = derive_seed(seed, 2, index)
        module.add_heads(
            groups, sizes, seed=drawn, fresh=self.fresh, kernel_size=self.kernel_size
        )
        self._train(module, training, derive_seed(seed, 3, index), f"round-{index + 1}")

    def fine_tune(self, training: HeadTraining, seed: int) -> None:
        """Train all weights."""
        module = _without_regularizers(self.module, self.net)
        module.unfreeze()
        self._train(module, training, derive_seed(seed, 4), "fine-tuning")

    def _train(
        self, module: AugmentedNet, training: HeadTraining, seed: int, name: str
    ) -> None:
        history = self.net and self.net.history
        name = f"{self.name}{name}"
        self.net = _train_stage(module, self.train, training, seed, history, name)
        self.module = module


def augment(
    learner: Learner,
    folds: Sequence[Learner],
    classes: NDArray[Any],
    plan: HeadPlan,
    training: HeadTraining,
    seed: int,
    given: Groups | None = None,
) -> Groups:
    """Score, group, add heads and train them, round by round; then fine-tune.

    The folds' networks score, and get heads where there is another round. Groups and
    sizes may be given.
    """
    partitions: list[ClassPartition] = []
    sizes: list[Sizes] = []
    spec, recipe = training.spec, training.recipe
    n_epochs = math.ceil(plan.head_epochs * recipe.max_epochs)
    short = replace(training, recipe=replace(recipe, max_epochs=n_epochs))
    for index in range(plan.n_rounds):
        if given is None:
            scorers = folds or [learner]
            partition = partition_by_scores(
                [(one.module, _in_order(one.scored, recipe)) for one in scorers],
                classes,
                spec,
                n_clusters=plan.n_clusters,
                source=plan.source,
                top_k=plan.top_k,
                seed=derive_seed(seed, 1, index),
            )
            place = learner.module.point.place(index)
            widths = head_sizes(plan, partition, place, plan.n_base)
        else:
            partition, widths = given[0][index], given[1][index]
        partitions.append(partition)
        sizes.append(widths)
        is_last = index + 1 == plan.n_rounds
        groups = [group.tolist() for group in partition.groups_]
        for one in [learner, *([] if is_last else folds)]:
            one.add_heads(groups, widths, short, index, seed)
    if plan.n_rounds and plan.fine_tune:
        learner.fine_tune(training, seed)
    return partitions, sizes


def _without_regularizers(
    module: AugmentedNet, net: StructuredNet | None
) -> AugmentedNet:
    """Take out the layers of a stage's regularizers: each stage attaches its own."""
    if net is None or not net.regularizers:
        return module
    plain = net.regularizers.simplify(net.module_)
    assert isinstance(plain, AugmentedNet)
    return plain


def _train_stage(
    module: AugmentedNet,
    data: TrainingData,
    training: HeadTraining,
    seed: int,
    history: History | None,
    name: str,
) -> StructuredNet:
    """Attach the regularizers and train all that is not frozen."""
    recipe, spec = training.recipe, training.spec
    data = _in_order(data, recipe)
    regularizers = RegularizerSequence(training.regularizers)
    sample = data.first_rows(SAMPLE_ROWS, spec)
    kept = _keep_features(module, data, spec) if module.frozen else None
    attached = attach(module, regularizers, sample, seed)
    reading: AbstractContextManager[None] = nullcontext()
    if kept is not None:
        data, spec = kept, replace(spec, shape=(module.n_kept,))
        reading = module.reading_features()
    with reading:
        return train(
            attached,
            regularizers,
            data,
            recipe,
            spec,
            seed=seed,
            history=history,
            stage=training.checkpoint.stage(name),
        )


def attach(
    module: AugmentedNet, regularizers: RegularizerSequence, sample: Tensor, seed: int
) -> nn.Module:
    """Attach regularizers to all that is not frozen."""
    if not module.frozen:
        return regularizers.attach(module, sample, seed)
    with module.reading_features(), torch.no_grad():
        attached = regularizers.attach(module, module.join(sample), seed)
    if any(insertion.place == "" for insertion in insertions(attached)):
        raise ValueError(
            "A regularizer acts on the network's input, but heads read the "
            "features of a frozen network; give it to that network, as in "
            "SelfInformedClassifier(StructuredClassifier(regularizers=[...]))."
        )
    return attached


def _in_order(data: TrainingData, recipe: Recipe) -> TrainingData:
    """Put rows that all fit in one batch in order: see `TrainingData.batches`."""
    return data.with_few_rows_merged(recipe.rows_per_batch(data.n_rows))


def _keep_features(
    module: AugmentedNet, data: TrainingData, spec: TensorSpec
) -> TrainingData | None:
    """Replace samples in memory by their features; None where these are too large."""
    # A torch `Dataset` is beyond memory, or may draw its samples anew every epoch.
    if isinstance(data.samples, Dataset):
        return None
    if data.n_rows * module.n_kept * data.samples.itemsize > MAX_KEPT_BYTES:
        return None
    module.eval()
    kept, start = torch.empty(data.n_rows, module.n_kept, dtype=spec.dtype), 0
    with torch.no_grad():
        n_rows = prediction_rows(spec.shape)
        batches = data.batches(spec, batch_size=n_rows, normalize=False)
        for X, _, _ in batches.epoch(None):
            kept[start : start + len(X)] = module.join(X)
            start += len(X)
    weight = None if data.weight is None else data.weight[data.rows]
    features = TrainingData.from_arrays(kept.numpy(), data.target[data.rows], weight)
    groups = None if data.groups is None else data.groups[data.rows]
    held_out = data.held_out and _keep_features(module, data.held_out, spec)
    if data.held_out is not None and held_out is None:
        return None
    return replace(features, groups=groups, held_out=held_out)
