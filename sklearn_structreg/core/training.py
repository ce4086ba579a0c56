"""Build a network, train it by a recipe, and run it."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from skorch.callbacks import EarlyStopping
from skorch.history import History
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.core.batches import Batches
from sklearn_structreg.core.checkpoint import Stage
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.insertion import insert_layer
from sklearn_structreg.core.losses import WeightedLoss
from sklearn_structreg.core.messages import explaining
from sklearn_structreg.core.modules import ModuleLike, build_module
from sklearn_structreg.core.net import ClassifierNet, RegressorNet, StructuredNet
from sklearn_structreg.core.processes import here
from sklearn_structreg.core.progress import TrainingBar
from sklearn_structreg.core.randomness import seeded
from sklearn_structreg.core.recipe import Recipe, TensorSpec
from sklearn_structreg.core.schedules import RateSchedule
from sklearn_structreg.core.sequence import RegularizerSequence
from sklearn_structreg.core.sklearn_callbacks import reported_epochs
from sklearn_structreg.core.skorch_callbacks import writes
from sklearn_structreg.core.task import Task
from sklearn_structreg.core.trial import (
    check_parameters,
    try_prediction,
    try_training,
)

__all__ = [
    "PREDICTION_ROWS",
    "SAMPLE_ROWS",
    "build_network",
    "drawing_layers",
    "make_net",
    "predict_outputs",
    "prediction_rows",
    "set_up",
    "train",
]

SAMPLE_ROWS = 2  # shown to a network before it is trained
PREDICTION_ROWS = 1024  # per forward pass: keeps the activations of images small,
PREDICTION_ENTRIES = 2**24  # and at most so many entries: sparse rows come dense
FUSED_DEVICES = ("cpu", "cuda")
UNFUSED = {"fused", "foreach", "differentiable", "dampening"}
MIN_FLAT_ROWS = 16


def build_network(
    module: ModuleLike,
    module_params: Mapping[str, Any] | None,
    hidden_layer_sizes: int | Sequence[int],
    *,
    n_outputs: int,
    sample: Tensor,
    dtype: torch.dtype,
    seed: int,
    task: Task,
    standardize: nn.Module | None = None,
    target: Tensor | None = None,
    criterion: Any = None,
) -> nn.Module:
    """Build a network and try it on a few samples, on the device to train on.

    Initial weights are drawn on the CPU, so that they do not depend on the device.
    `standardize` becomes its first layer. Training is tried where there is a target.
    """
    shape = tuple(sample.shape[1:])
    with seeded(seed, sample.device):
        network = build_module(
            module, module_params, shape, n_outputs, hidden_layer_sizes
        )
        if standardize is not None:
            insert_layer(network, "", standardize, before=True)
        check_parameters(network)
        network = network.to(device=sample.device, dtype=dtype)
        if (processes := here()) is not None:
            processes.synchronize(network)
        try_prediction(network, sample, n_outputs, task)
        if target is not None:
            loss = WeightedLoss(task, criterion)
            try_training(network, sample, target, n_outputs, loss)
    return network


def train(
    module: nn.Module,
    regularizers: RegularizerSequence,
    data: TrainingData,
    recipe: Recipe,
    spec: TensorSpec,
    *,
    seed: int,
    history: History | None = None,
    stage: Stage | None = None,
    keep_interrupted: bool = False,
) -> StructuredNet:
    """Train a network in place that the regularizers are attached to, or resumed on.

    The order of the rows, the hold-out and the draws of every epoch follow from `seed`.
    The epochs of `history`, and those that `stage` has the state of, are gone on from.
    `keep_interrupted` is whether Ctrl-C leaves the epochs before it, if there are any.
    The net's optimizer is a fresh one.
    """
    net, batches, valid = set_up(
        module, regularizers, data, recipe, spec, seed=seed, history=history
    )
    with reported_epochs(net):
        net.train(batches, valid, stage=stage, keep_interrupted=keep_interrupted)
    net.forget_last_steps()
    return net


def set_up(
    module: nn.Module,
    regularizers: RegularizerSequence,
    data: TrainingData,
    recipe: Recipe,
    spec: TensorSpec,
    *,
    seed: int,
    history: History | None = None,
) -> tuple[StructuredNet, Batches, Batches | None]:
    """Return a net to train, with its batches and those that it is validated on."""
    parts = [data]
    if data.held_out is not None:
        parts.append(data.held_out)
    elif recipe.early_stopping:
        parts = [*data.split(recipe.validation_fraction, seed % 2**32)]
    batches = [
        part.batches(
            spec,
            batch_size=recipe.rows_per_batch(part.n_rows),
            normalize=True,
            loader_params=recipe.loader_params,
        )
        for part in parts
    ]
    net = make_net(
        module,
        regularizers,
        recipe,
        seed=seed,
        n_batches=sum(part.n_batches for part in batches),
        history=history,
    )
    return net, batches[0], batches[1] if len(batches) > 1 else None


def make_net(
    module: nn.Module,
    regularizers: RegularizerSequence,
    recipe: Recipe,
    *,
    seed: int,
    n_batches: int = 0,
    history: History | None = None,
) -> StructuredNet:
    """Put a skorch net with optimizer and callbacks around an attached module.

    `n_batches`, per epoch and with validation, is for the progress bar.
    """
    settings = dict(recipe.optimizer_settings)
    device = next(module.parameters()).device
    known = inspect.signature(recipe.optimizer).parameters
    if "fused" in known and not UNFUSED & settings.keys():
        settings["fused"] = device.type in FUSED_DEVICES
    kind, more = ClassifierNet, {"classes": np.arange(recipe.n_outputs)}
    if recipe.task is Task.VALUES:
        kind, more = RegressorNet, {}
    net = kind(
        module,
        regularizers=regularizers,
        recipe=recipe,
        seed=seed,
        criterion=WeightedLoss(recipe.task, recipe.criterion),
        predict_nonlinearity=recipe.task.to_prediction,
        optimizer=recipe.optimizer,
        lr=recipe.learning_rate,
        **{f"optimizer__{name}": value for name, value in settings.items()},
        max_epochs=recipe.max_epochs,
        device=str(device),
        callbacks=_callbacks(recipe, regularizers, n_batches),
        verbose=recipe.verbose,
        **more,
    )
    with explaining("The training cannot be set up: {}."):
        net.initialize()
    if history is not None:
        net.history.extend(copy.deepcopy(history))
        for group in net.optimizer_.param_groups:  # for schedules that go on
            group["initial_lr"] = group["lr"]
    return net


def _callbacks(
    recipe: Recipe, regularizers: RegularizerSequence, n_batches: int
) -> list[Any]:
    callbacks: list[Any] = []
    if recipe.lr_schedule is not None:
        callbacks.append(("lr_schedule", RateSchedule(recipe.lr_schedule)))
    if recipe.early_stopping:
        watched = "objective" if regularizers.has_penalty_value else "loss"
        stop = EarlyStopping(
            f"valid_{watched}", patience=recipe.n_iter_no_change, load_best=True
        )
        callbacks.append(("early_stopping", stop))
    if recipe.verbose >= 2:
        callbacks.append(("progress_bar", TrainingBar(n_batches)))
    processes = here()
    if processes is not None and processes.rank > 0:
        return [*callbacks, *(each for each in recipe.callbacks if not writes(each))]
    return [*callbacks, *recipe.callbacks]


def prediction_rows(shape: Sequence[int], at_most: int = PREDICTION_ROWS) -> int:
    """Return the number of samples of a shape to take per forward pass."""
    return min(at_most, max(MIN_FLAT_ROWS, PREDICTION_ENTRIES // math.prod(shape)))


def predict_outputs(
    module: nn.Module,
    batches: Batches,
    draws: Callable[[], AbstractContextManager[None]] | None = None,
) -> Tensor:
    """Return the outputs for every row in order, float64 on the CPU.

    With `draws` the layers that drop do so, in a context that it makes for each batch.
    """
    module.eval()
    drawing = [] if draws is None else drawing_layers(module)
    outputs = []
    try:
        for layer in drawing:
            layer.training = True
        with torch.inference_mode():
            for X, _, _ in batches.epoch(None):
                with nullcontext() if draws is None else draws():
                    outputs.append(module(_pad(X))[: len(X)].cpu().double())
    finally:
        for layer in drawing:
            layer.training = False
    result = torch.cat(outputs)
    if not torch.isfinite(result).all():
        raise ValueError(
            "The network's outputs are not finite: X has values far larger than those "
            "of the training, or the training has diverged; look at the units of X, or "
            "fit anew with a lower learning_rate."
        )
    return result


def drawing_layers(module: nn.Module) -> list[nn.Module]:
    """Return the layers that may draw in training: torch's dropout, and our own.

    A layer of this package, or of a regularizer of yours, has a method `simplified` if
    it acts in training otherwise than in prediction.
    """
    return [
        part
        for part in module.modules()
        if isinstance(part, nn.modules.dropout._DropoutNd)
        or hasattr(part, "simplified")
    ]


def _pad(X: Tensor) -> Tensor:
    """Fill a few flat rows up with zeros.

    Matrix products of a handful of rows go through other kernels, which round
    otherwise: a sample's float32 outputs would depend on how many come with it.
    """
    if X.ndim > 2 or len(X) >= MIN_FLAT_ROWS:
        return X
    return functional.pad(X, (0, 0, 0, MIN_FLAT_ROWS - len(X)))
