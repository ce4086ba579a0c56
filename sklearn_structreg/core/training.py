"""Assemble what the estimator's parameters describe: network, optimizer, net."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback, EarlyStopping, LRScheduler, ProgressBar
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.lr_scheduler import LRScheduler as TorchScheduler

from sklearn_structreg.core.batches import Batches
from sklearn_structreg.core.losses import (
    WeightedBinaryCrossEntropy,
    WeightedCrossEntropy,
)
from sklearn_structreg.core.modules import build_module, run_once
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.randomness import BUILD_LOCK, derive_seed, seeded
from sklearn_structreg.core.regularizer import Regularizer

__all__ = ["attach", "build_network", "make_net", "predict_logits"]

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
LOSSES = {False: WeightedCrossEntropy, True: WeightedBinaryCrossEntropy}
FUSED_DEVICES = ("cpu", "cuda")
MIN_FLAT_ROWS = 16


def build_network(
    estimator: Any, n_outputs: int, sample: Tensor, seed: int
) -> nn.Module:
    """Build the module of an estimator's parameters and try it on a few samples.

    Parameters
    ----------
    estimator : StructuredClassifier
        Read for `module`, `module_params`, `hidden_layer_sizes`, `input_shape_`.
    n_outputs : int
        Number of logits wanted.
    sample : torch.Tensor of shape (n, ...)
        Rows in the precision and on the device to train with.
    seed : int
        Of the initial weights, drawn on the CPU, so that they do not depend on the
        device.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        If the module does not take the samples or returns no logit per class.
    """
    with BUILD_LOCK, seeded(seed, sample.device):
        module = build_module(
            estimator.module,
            estimator.module_params,
            estimator.input_shape_,
            n_outputs,
            estimator.hidden_layer_sizes,
        ).to(device=sample.device, dtype=sample.dtype)
        try:
            output = run_once(module, sample)  # also gives lazy layers their shapes
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"The module does not take samples of shape {estimator.input_shape_}: "
                f"{reason}. Give a module for this shape, or image_shape if X's rows "
                "are images."
            ) from error
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError("The module has no parameter to train; give one that has.")
    shape = getattr(output, "shape", None)
    if shape != (len(sample), n_outputs):
        got = "no tensor" if shape is None else f"an output of shape {tuple(shape)}"
        raise ValueError(
            f"The module returns {got} for {len(sample)} samples of {n_outputs} "
            f"classes; it must return one logit per class, shape "
            f"{(len(sample), n_outputs)}."
        )
    return module


def attach(
    regularizer: Regularizer, module: nn.Module, sample: Tensor, seed: int
) -> nn.Module:
    """Attach a regularizer; what it draws comes from `seed`.

    Parameters
    ----------
    regularizer : Regularizer
        The method.
    module : torch.nn.Module
        On the device to train on.
    sample : torch.Tensor of shape (n, ...)
        A few rows.
    seed : int
        The estimator's.

    Returns
    -------
    torch.nn.Module
        The module to train.
    """
    # (seed, e) is epoch e's; zeros at the end would not tell two seeds apart.
    with BUILD_LOCK, seeded(derive_seed(seed, 0, 1), sample.device):
        return regularizer.attach(module, sample)


def make_net(
    estimator: Any,
    module: nn.Module,
    regularizer: Regularizer,
    *,
    seed: int,
    n_batches: int,
) -> StructuredNet:
    """Put a skorch net with optimizer and callbacks around an attached module.

    Parameters
    ----------
    estimator : StructuredClassifier
        Read for optimizer, schedule, callbacks, verbosity and `multilabel_`.
    module : torch.nn.Module
        Attached.
    regularizer : Regularizer
        The method.
    seed : int
        Of the order of the rows and of dropout masks.
    n_batches : int
        Per epoch, validation included; for the progress bar.

    Returns
    -------
    StructuredNet
        Initialized, not trained.
    """
    optimizer, settings = _optimizer(estimator)
    device = next(module.parameters()).device
    if "fused" in inspect.signature(optimizer).parameters:
        settings["fused"] = device.type in FUSED_DEVICES
    net = StructuredNet(
        module,
        regularizer=regularizer,
        seed=seed,
        classes=np.arange(len(estimator.classes_)),
        criterion=LOSSES[estimator.multilabel_],
        optimizer=optimizer,
        lr=estimator.learning_rate,
        **{f"optimizer__{name}": value for name, value in settings.items()},
        max_epochs=estimator.max_epochs,
        device=str(device),
        callbacks=_callbacks(estimator, n_batches),
        verbose=int(estimator.verbose),
    )
    net.initialize()
    return net


def _optimizer(estimator: Any) -> tuple[type[Optimizer], dict[str, Any]]:
    optimizer = OPTIMIZERS.get(estimator.optimizer, estimator.optimizer)
    if not (inspect.isclass(optimizer) and issubclass(optimizer, Optimizer)):
        raise ValueError(
            f"optimizer={optimizer!r} is no torch optimizer class; pass one, such as "
            f"torch.optim.RMSprop, or one of {sorted(OPTIMIZERS)}."
        )
    known = inspect.signature(optimizer).parameters
    settings = {
        "momentum": float(estimator.momentum),
        "weight_decay": float(estimator.weight_decay),
    }
    return optimizer, {k: v for k, v in settings.items() if k in known}


def _callbacks(estimator: Any, n_batches: int) -> list[Any]:
    callbacks: list[Any] = []
    for item in estimator.callbacks or []:
        callback = item[1] if isinstance(item, tuple | list) else item
        kind = callback if inspect.isclass(callback) else type(callback)
        if not issubclass(kind, Callback):
            raise ValueError(
                f"callbacks holds {item!r}, which is no skorch callback; pass "
                "instances, classes or (name, callback) pairs."
            )
    if estimator.lr_schedule is not None:
        policy = Schedule(estimator.lr_schedule, estimator.max_epochs)
        callbacks.append(("lr_schedule", LRScheduler(policy)))
    if estimator.early_stopping:
        stop = EarlyStopping(patience=estimator.n_iter_no_change, load_best=True)
        callbacks.append(("early_stopping", stop))
    if estimator.verbose >= 2:
        callbacks.append(("progress_bar", ProgressBar(batches_per_epoch=n_batches)))
    return [*callbacks, *(estimator.callbacks or [])]


class Schedule:
    """A learning-rate schedule over a known number of epochs.

    Parameters
    ----------
    schedule : "cosine" or callable
        ``callable(optimizer, n_epochs)`` returns a torch scheduler.
    n_epochs : int
        Length of the training.
    """

    def __init__(
        self,
        schedule: str | Callable[[Optimizer, int], TorchScheduler],
        n_epochs: int,
    ) -> None:
        self.schedule, self.n_epochs = schedule, n_epochs

    def __call__(self, optimizer: Optimizer, last_epoch: int = -1) -> TorchScheduler:
        """Make the scheduler of `optimizer`, to be stepped once an epoch.

        skorch would go on at `last_epoch` of the history; a warm start begins anew.
        """
        if not callable(self.schedule):
            return CosineAnnealingLR(optimizer, T_max=self.n_epochs)
        scheduler = self.schedule(optimizer, self.n_epochs)
        if not hasattr(scheduler, "step"):
            raise ValueError(
                f"lr_schedule returned {scheduler!r}; a callable (optimizer, n_epochs) "
                "must return a torch learning-rate scheduler."
            )
        return scheduler


def predict_logits(module: nn.Module, batches: Batches) -> Tensor:
    """Return the logits of every row in order, float64 on the CPU."""
    module.eval()
    with torch.inference_mode():
        logits = [
            module(_pad(X))[: len(X)].cpu().double() for X, _, _ in batches.epoch(None)
        ]
    result = torch.cat(logits)
    if not torch.isfinite(result).all():
        raise ValueError(
            "The network's outputs are not finite, so its training must have diverged; "
            "fit it anew with a lower learning_rate or scaled features."
        )
    return result


def _pad(X: Tensor) -> Tensor:
    """Fill a few flat rows up with zeros.

    Matrix products of a handful of rows go through other kernels, which round
    otherwise: a sample's float32 logits would depend on how many come with it.
    """
    if X.ndim > 2 or len(X) >= MIN_FLAT_ROWS:
        return X
    return functional.pad(X, (0, 0, 0, MIN_FLAT_ROWS - len(X)))
