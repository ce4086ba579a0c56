"""The private skorch nets: regularizers act after every step, no work per row."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping, EpochTimer, PrintLog
from skorch.exceptions import SkorchException
from skorch.history import History
from torch import Tensor, nn
from tqdm.auto import tqdm

from sklearn_structreg.core.averaging import MovingAverage
from sklearn_structreg.core.batches import Batch, Batches, DatasetBatches
from sklearn_structreg.core.breakdown import diverged, missing_figure, reason_of
from sklearn_structreg.core.checkpoint import Stage
from sklearn_structreg.core.figures import EpochFigures
from sklearn_structreg.core.interruption import (
    Interruption,
    TrainingInterrupted,
    noting_interrupts,
)
from sklearn_structreg.core.net_state import CopyOfState
from sklearn_structreg.core.optimizers import begin_momentum, move
from sklearn_structreg.core.processes import here
from sklearn_structreg.core.randomness import Draws, derive_seed
from sklearn_structreg.core.recipe import Recipe
from sklearn_structreg.core.sequence import RegularizerSequence
from sklearn_structreg.core.skorch_callbacks import listens_to_batches
from sklearn_structreg.core.steps import SteppingNet, compiled
from sklearn_structreg.core.task import Task

__all__ = ["ClassifierNet", "RegressorNet", "StructuredNet"]


class StructuredNet(SteppingNet):
    """skorch's training protocol over `Batches`, with the regularizers' hooks.

    Callbacks, history and verbosity are skorch's. What differs: the data comes as
    `Batches`; losses are read from the device once an epoch; callbacks that do not
    listen to single batches are not called for them; and the regularizers act right
    after every optimizer step.

    Parameters
    ----------
    module : torch.nn.Module
        Attached by the regularizers, ready to train.
    regularizers : RegularizerSequence
        The methods.
    recipe : Recipe
        The one that this net was made by.
    seed : int
        Orders the rows and draws the dropout masks of epoch e from (seed, e) alone, so
        that training goes on after a pickle round trip as if nothing had happened.
    **params
        As skorch takes them.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        regularizers: RegularizerSequence,
        recipe: Recipe,
        seed: int,
        **params: Any,
    ) -> None:
        self.regularizers = regularizers
        self.recipe = recipe
        self.seed = seed
        self._listened = False  # whether a callback listens to single batches
        self._best_figures: dict[str, float] = {}
        self._interruption, self._stop_requested = Interruption(), False
        self._n_before, self._last_epoch, self._valid = 0, None, None
        self._last_batch: Batch | None = None  # of a training
        decay = recipe.average_weights
        self.average = None if decay is None else MovingAverage(decay)
        self._forward: Callable[[Tensor], Tensor] | None = None  # in a training
        self._n_at_end = 0  # epochs, with those before, where a stage goes on
        super().__init__(module, **params)

    @property
    def was_interrupted(self) -> bool:
        """Whether the last training is one that Ctrl-C has cut short."""
        return self._interruption.keep and self._interruption.requested

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        listed = [("epoch_timer", EpochTimer()), *self.regularizers.callbacks()]
        if self.verbose:  # it would make its table all the same
            sink = tqdm.write if self.verbose > 1 else print
            listed.append(("print_log", PrintLog(sink=sink)))
        return listed

    callbacks_: list[tuple[str, Callback]]
    is_open_ended = False  # whether it trains by calls of `partial_fit`
    _last_epoch: CopyOfState | None
    _valid: Batches | None
    history: History

    # ---- data: `fit(train_batches, valid_batches)` -----------------------------

    def check_data(self, X: Batches, y: Batches | None = None) -> None:
        """Accept the batches, which the estimator has checked."""

    def get_split_datasets(
        self, X: Batches, y: Batches | None = None, **params: Any
    ) -> tuple[Batches, Batches | None]:
        """Return training and validation batches as they were passed."""
        return X, self._valid

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Return batches as they are; a callback's own data gets skorch's loader."""
        if hasattr(dataset, "epoch"):
            return dataset
        return super().get_iterator(dataset, training=training)

    # ---- training --------------------------------------------------------------

    def train(
        self,
        train: Batches,
        valid: Batches | None = None,
        epochs: int | None = None,
        stage: Stage | None = None,
        keep_interrupted: bool = False,
    ) -> StructuredNet:
        """Train for `epochs`, by default `max_epochs`, and leave the module ready.

        A `stage` gives the epochs that it has the state of, and keeps that of others.
        After Ctrl-C the whole epochs before it may be kept, if there are any.
        """
        self.begin(train, valid, epochs)
        with noting_interrupts(keep=keep_interrupted) as self._interruption:
            try:
                self.partial_fit(train, epochs=epochs, stage=stage)
            except (RuntimeError, ValueError) as error:
                if reason := reason_of(error, self):
                    raise ValueError(reason) from error
                raise
            finally:
                self._valid = self._last_epoch = self._forward = None
        return self.end(train)

    def begin(
        self, train: Batches, valid: Batches | None, epochs: int | None = None
    ) -> None:
        """Get ready for epochs on these batches."""
        self._n_before, self._stop_requested = len(self.history), False
        self.n_epochs_to_train = self.max_epochs if epochs is None else epochs
        self._valid, self.batch_size = valid, train.sizes[0]
        begin_momentum(self.optimizer_)
        self._processes = here()
        if self._processes is not None:
            self._processes.check(torch.device(self.device), self.recipe)
        self._forward = compiled(self.module_) if self.recipe.compile else None

    def end(self, train: Batches) -> StructuredNet:
        """Leave the module ready, after epochs on these batches."""
        self._valid = None
        batch, self._last_batch = self._last_batch, None
        self.module_.eval()
        for _, callback in self.callbacks_:
            if isinstance(callback, EarlyStopping):
                callback.best_model_weights_ = None  # the module has them
        # One that is loaded anew has not been through a module that works in place.
        if batch is None or not self._is_finite(batch):
            batch = next(iter(train.epoch(None)))
            if not self._is_finite(batch):
                raise ValueError(diverged(self, len(self.history)))
        return self

    def _is_finite(self, batch: Batch) -> bool:
        """Whether the loss of a batch is finite after the training."""
        with self.draws(self.seed):
            return bool(self.validation_step(batch)["loss"].isfinite())

    def train_first_batch(self, train: Batches) -> None:
        """Take the first step of `train` alone."""
        seed = derive_seed(self.seed, 0)
        self.module_.train()
        with self.draws(seed):
            self.train_step(next(iter(train.epoch(seed))))

    def fit_loop(
        self,
        X: Batches,
        y: Any = None,
        epochs: int | None = None,
        *,
        stage: Stage | None = None,
        **params: Any,
    ) -> StructuredNet:
        """Train; tell Ctrl-C from callbacks that stop the training early."""
        try:
            if stage is None:
                super().fit_loop(X, y, epochs, **params)
            else:
                n_epochs = self.max_epochs if epochs is None else epochs
                stage.run(self, n_epochs, partial(super().fit_loop, X, epochs=1))
        except (KeyboardInterrupt, TrainingInterrupted):
            if self._stop_requested:
                raise
            if not self._interruption.keep or self._last_epoch is None:
                raise TrainingInterrupted from None
            self._interruption.requested = True
            self._last_epoch.restore(self)
        return self

    def notify(self, method_name: str, **params: Any) -> None:
        """Call the callbacks, which may stop the training by `KeyboardInterrupt`."""
        try:
            super().notify(method_name, **params)
        except (KeyError, SkorchException) as error:
            if reason := missing_figure(error, self):
                raise ValueError(reason) from error
            raise
        except KeyboardInterrupt:
            self._stop_requested = True
            raise

    def on_epoch_begin(self, net: StructuredNet, **params: Any) -> None:
        """Keep the state after the last epoch where Ctrl-C may lead back to it."""
        if self._interruption.keep and len(self.history) > self._n_before:
            self._last_epoch = CopyOfState(self)
        super().on_epoch_begin(net, **params)

    def drop_schedule(self) -> None:
        """Train on at a constant rate, without a last epoch or early stopping."""
        self.is_open_ended = True
        scheduled = ("lr_schedule", "early_stopping")
        self.callbacks_ = [
            (name, callback)
            for name, callback in self.callbacks_
            if name not in scheduled and not getattr(callback, "is_schedule", False)
        ]
        for group in self.optimizer_.param_groups:
            group["lr"] = group.get("initial_lr", group["lr"])

    def with_state_of(self, other: StructuredNet) -> StructuredNet:
        """Go on with another net's optimizer state, where that is of the same kind."""
        if type(self.optimizer_) is type(other.optimizer_):
            for parameter, state in other.optimizer_.state.items():  # of its own, in
                self.optimizer_.state[parameter] = copy.deepcopy(state)  # case it fails
        self._best_figures = dict(other._best_figures)
        if self.average is not None and other.average is not None:
            self.average.load_state_dict(copy.deepcopy(other.average.state_dict()))
        return self

    def forget_last_steps(self) -> None:
        """Drop the state of the optimizer; predictions do without it."""
        self.optimizer_.state.clear()
        if self.average is not None:
            self.average = MovingAverage(self.average.decay)

    @contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """Restore weights, optimizer and history where a training breaks off."""
        before = CopyOfState(self)
        try:
            yield
        except BaseException:
            before.restore(self)
            raise

    def run_single_epoch(
        self,
        iterator: Batches | None,
        training: bool,
        prefix: str,
        step_fn: Callable[..., dict[str, Tensor]],
        **fit_params: Any,
    ) -> None:
        """Run one epoch of training or validation and record its mean loss."""
        if iterator is None:
            return
        epoch = len(self.history)
        seed = derive_seed(self.seed, epoch)
        self._listened = listens_to_batches(self.callbacks_)
        self.module_.train(training)
        figures = EpochFigures(None if training else self.recipe.task)
        draws = self.draws(seed)
        augments = training and self.recipe.augment is not None
        if training and self.average is not None:
            self.average.begin_epoch(self.module_)
        epoch_seed = seed if training else None
        for batch in self._epoch(iterator, epoch_seed, whole=augments):
            with draws:
                if augments:
                    batch = self._augmented(batch)
                X, y, _ = batch
                if self._listened:
                    self.notify("on_batch_begin", batch=(X, y), training=training)
                step = step_fn(batch)
                self._interruption.check()
                figures.add(batch, step)
                if self._listened:
                    self._record_batch(prefix, step["loss"].item(), len(y))
                    self.notify("on_batch_end", batch=(X, y), training=training, **step)
        if training:
            self._last_batch = batch
            if self.average is not None:
                self.average.end_epoch(self.module_)
            self.regularizers.before_validation(self.module_)
        if self.recipe.callbacks and not self._listened:
            for value, size in figures.by_batch():
                self.history.new_batch()
                self._record_batch(prefix, value, size)
        self.record_epoch(
            prefix, figures.loss(), figures.accuracy(), len(figures.sizes)
        )

    def _epoch(
        self, batches: Batches, seed: int | None, *, whole: bool
    ) -> Iterator[Batch]:
        """Go through mini-batches; other processes' shares are loaded on request."""
        processes = None if whole or self._listened else self._processes
        if processes is None or not isinstance(batches, DatasetBatches):
            return batches.epoch(seed)
        return batches.epoch(seed, processes.rows)

    def record_epoch(
        self, prefix: str, loss: float, accuracy: float | None, n_batches: int
    ) -> None:
        """Record the figures of an epoch of training or validation."""
        training, epoch = prefix == "train", len(self.history)
        if not math.isfinite(loss):
            name = "training" if training else "validation"
            raise ValueError(diverged(self, epoch, name))
        self._record(f"{prefix}_loss", loss, -loss)
        if not training and self.regularizers.has_penalty_value:
            value = loss + self.regularizers.penalty_value(self.module_)
            self._record(f"{prefix}_objective", value, -value)
        if accuracy is not None:
            self._record(f"{prefix}_acc", accuracy, accuracy)
        self.history.record(f"{prefix}_batch_count", n_batches)

    def draws(self, seed: int) -> Draws:
        """Return the random numbers of an epoch, for all that acts in its steps."""
        parts = *self.module_.modules(), *self.regularizers.values(), self.optimizer_
        listeners = [cb for _, cb in self.callbacks_] if self._listened else []
        recipe = self.recipe
        own = [x for x in (recipe.criterion, recipe.augment) if x is not None]
        device = torch.device(self.device)
        return Draws(seed, device, [*parts, *listeners, *own])

    def _record_batch(self, prefix: str, loss: float, size: int) -> None:
        self.history.record_batch(f"{prefix}_loss", loss)
        self.history.record_batch(f"{prefix}_batch_size", size)

    def _record(self, name: str, value: float, score: float) -> None:
        """Record a figure, and whether its score is the best yet, as skorch does."""
        best = self._best_figures.get(name, -math.inf)
        self.history.record(name, value)
        self.history.record(f"{name}_best", score > best)
        self._best_figures[name] = max(score, best)

    # ---- persistence -----------------------------------------------------------

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move module and optimizer state, so that training can go on there."""
        self.device = str(device)
        self.module_.to(device, dtype)
        move(self.optimizer_, device, dtype)

    def __getstate__(self) -> dict[str, Any]:
        # skorch would pickle the module twice, as it was given and as it was trained.
        left = "module", "_processes"
        state = {name: v for name, v in vars(self).items() if name not in left}
        if getattr(self, "module_", None) is not None and self.device != "cpu":
            device = torch.device("cpu")
            module, optimizer = copy.deepcopy((self.module_, self.optimizer_))
            module.to(device)
            move(optimizer, device)
            state |= {"device": "cpu", "module_": module, "optimizer_": optimizer}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, module=state.get("module_"))


class ClassifierNet(StructuredNet, NeuralNetClassifier):
    """For classes and for several labels."""

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return class numbers, or an indicator of the labels, for a callback."""
        if self.recipe.task is not Task.LABELS:
            return np.asarray(super().predict(X))
        return np.asarray(self.predict_proba(X) > 0.5, dtype=np.int64)


class RegressorNet(StructuredNet, NeuralNetRegressor):
    """For numbers."""
