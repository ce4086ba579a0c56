"""scikit-learn's own callbacks, from its version 1.9 on: a fit and its epochs as tasks.

Nothing is reported where no callback was set by ``estimator.set_callbacks(...)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from skorch.callbacks import Callback

from sklearn_structreg.core.net import StructuredNet

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn below 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands for the mixin of later versions."""


__all__ = ["CallbackSupportMixin", "fit_task", "reported_epochs", "reported_network"]


@dataclass
class FitTask:
    """A running `fit`, as scikit-learn's callbacks are told of it."""

    estimator: Any
    context: Any
    data: dict[str, Any]
    reconstruct: Callable[[StructuredNet], dict[str, Any] | None]

    def subtask(self, name: str) -> Any:
        """Begin a task inside of the fit."""
        context = self.context.subcontext(task_name=name)
        context.call_on_fit_task_begin(estimator=self.estimator, **self.data)
        return context


_task: ContextVar[FitTask | None] = ContextVar("task", default=None)


@contextmanager
def fit_task(
    estimator: Any,
    data: dict[str, Any],
    *,
    n_epochs: int | None,
    reconstruct: Callable[[StructuredNet], dict[str, Any] | None],
) -> Iterator[None]:
    """Report a fit, from here to the end of the context, to the estimator's callbacks.

    `data` are their arguments `X`, `y` and `metadata`. At most `n_epochs` will be
    trained; None is unknown. `reconstruct` returns, for the net of an epoch, the fitted
    attributes that make a fitted estimator of a copy; or None if it takes more.
    """
    task = None
    if getattr(estimator, "_skl_callbacks", None):
        context = estimator._init_callback_context(max_subtasks=n_epochs)
        context.call_on_fit_task_begin(estimator=estimator, **data)
        task = FitTask(estimator, context, data, reconstruct)
    token = _task.set(task)
    try:
        yield
    finally:
        _task.reset(token)
    if task is not None:
        task.context.call_on_fit_task_end(
            estimator=estimator, **data, reconstruction_attributes=dict
        )


@contextmanager
def reported_network(network: Any) -> Iterator[None]:
    """Report the fit of a network inside of another fit, through its own callbacks."""
    task = _task.get()
    if task is None or not isinstance(network, CallbackSupportMixin):
        yield
        return
    context = task.context.subcontext(task_name="fit-network")
    with context.propagate_callback_context(network):
        context.call_on_fit_task_begin(estimator=task.estimator, **task.data)
        yield
    context.call_on_fit_task_end(estimator=task.estimator, **task.data)


@contextmanager
def reported_epochs(net: StructuredNet) -> Iterator[None]:
    """Report the epochs of a net that is trained in this context."""
    task, callbacks = _task.get(), net.callbacks_
    if task is not None:
        net.callbacks_ = [*callbacks, ("epoch_tasks", EpochTasks(task))]
    try:
        yield
    finally:
        net.callbacks_ = callbacks


class EpochTasks(Callback):
    """Reports every epoch; scikit-learn's callbacks may stop the training."""

    def __init__(self, task: FitTask) -> None:
        self.task, self.epoch = task, None

    def on_epoch_begin(self, net: StructuredNet, **kwargs: Any) -> None:
        """Begin a task."""
        self.epoch = self.task.subtask("epoch")

    def on_epoch_end(self, net: StructuredNet, **kwargs: Any) -> None:
        """End it, with an estimator of the weights of now for those who ask for it."""
        epoch, self.epoch = self.epoch, None
        assert epoch is not None
        if epoch.call_on_fit_task_end(
            estimator=self.task.estimator,
            **self.task.data,
            reconstruction_attributes=lambda: self.task.reconstruct(net),
        ):
            raise KeyboardInterrupt  # skorch's way to stop

    def on_train_end(self, net: StructuredNet, **kwargs: Any) -> None:
        """End the epoch in which another callback has stopped the training."""
        if self.epoch is not None:
            self.on_epoch_end(net)
