"""An estimator's parameters, made once into two typed objects for all that follows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from sklearn_structreg.core.optimizers import resolve_learning_rate, resolve_optimizer
from sklearn_structreg.core.options import Training
from sklearn_structreg.core.skorch_callbacks import check_callbacks
from sklearn_structreg.core.task import Task

__all__ = ["Recipe", "TensorSpec"]

SETTINGS = ("momentum", "weight_decay")
AS_THEY_ARE = (
    *("max_epochs", "batch_size", "lr_schedule", "criterion"),
    *("early_stopping", "validation_fraction", "n_iter_no_change"),
)
Criterion = Callable[..., Any] | None
"""A torch loss class, an instance, or a function of outputs and targets."""


@dataclass(frozen=True)
class TensorSpec:
    """One sample's shape, and the precision and device of all that is computed."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class Recipe:
    """How to train: see the parameters of the same names of the estimators.

    `optimizer_settings` are those that `optimizer`, a class, takes. `criterion` None is
    the usual loss of the `task`. The last ones are those of `Training`.
    """

    task: Task
    n_outputs: int
    optimizer: type[Optimizer]
    optimizer_settings: Mapping[str, Any]
    learning_rate: float
    max_epochs: int
    batch_size: int | None
    lr_schedule: str | Callable[..., Any] | None
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    callbacks: tuple[Any, ...]
    verbose: int
    criterion: Criterion = None
    clip_grad_norm: float | None = None
    average_weights: float | None = None
    precision: str = "float32"
    compile: bool = False
    augment: Callable[..., Any] | None = None
    loader_params: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, estimator: Any, task: Task, n_outputs: int) -> Recipe:
        """Gather the parameters of an estimator, checked."""
        optimizer = resolve_optimizer(estimator.optimizer)
        known = inspect.signature(optimizer).parameters
        settings: dict[str, Any] = {
            n: float(getattr(estimator, n)) for n in SETTINGS if n in known
        }
        training = estimator.training or Training()
        training.check(optimizer, estimator.dtype)
        options = training.get_params(deep=False)
        settings |= options.pop("optimizer_params") or {}
        rate, n_inputs = estimator.learning_rate, estimator.input_shape_[0]
        validates = estimator.early_stopping or estimator._validates
        return cls(
            task=task,
            n_outputs=n_outputs,
            optimizer=optimizer,
            optimizer_settings=settings,
            learning_rate=resolve_learning_rate(rate, optimizer, n_inputs),
            callbacks=check_callbacks(estimator.callbacks, validates=validates),
            verbose=int(estimator.verbose),
            **{name: getattr(estimator, name) for name in AS_THEY_ARE},
            **options,
        )

    def rows_per_batch(self, n_rows: int) -> int:
        """Return the batch size; None and -1 stand for all rows."""
        return n_rows if self.batch_size in (None, -1) else int(self.batch_size or 0)
