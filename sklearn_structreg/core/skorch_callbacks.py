"""skorch's callbacks: checks before a training, and those that hear of batches."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from skorch.callbacks import (
    Callback,
    Checkpoint,
    InputShapeSetter,
    TrainEndCheckpoint,
)
from skorch.callbacks.scoring import ScoringBase

__all__ = ["check_callbacks", "listens_to_batches", "writes"]

BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_grad_computed")


def check_callbacks(
    callbacks: Sequence[Any] | None, *, validates: bool
) -> tuple[Any, ...]:
    """Name callbacks; refuse those that cannot work, or look for absent figures.

    Raises
    ------
    ValueError
        For the first of them.
    """
    items = tuple(callbacks or ())
    found = [item[1] if _is_pair(item) else item for item in items]
    for item, callback in zip(items, found, strict=True):
        kind = callback if inspect.isclass(callback) else type(callback)
        if not issubclass(kind, Callback):
            raise ValueError(
                f"callbacks holds {item!r}, which is no skorch callback; pass "
                "instances, classes or (name, callback) pairs."
            )
        if issubclass(kind, InputShapeSetter):
            raise ValueError(
                "callbacks holds an InputShapeSetter, which would build the module "
                "anew; leave it out: a module class or factory gets the input's shape."
            )
        if getattr(kind, "attaches_regularizer", False):
            raise ValueError(
                f"callbacks holds a {kind.__name__}, which is for skorch nets; list "
                "its regularizer in regularizers=[...]."
            )
    if not validates:
        _check_monitors(found)
    return _named(items)


def listens_to_batches(callbacks: Iterable[tuple[str, Callback]]) -> bool:
    """Whether a callback is to be called for single mini-batches."""
    return any(
        getattr(type(callback), hook) != getattr(Callback, hook)
        and getattr(callback, "step_every", "batch") == "batch"  # LRScheduler's
        for _, callback in callbacks
        for hook in BATCH_HOOKS
    )


def writes(item: Any) -> bool:
    """Whether a callback of skorch, or a pair with its name, leaves files or prints."""
    callback = item[1] if _is_pair(item) else item
    kind = callback if inspect.isclass(callback) else type(callback)
    keeps = issubclass(kind, Checkpoint | TrainEndCheckpoint)
    return keeps or kind.__module__ == "skorch.callbacks.logging"


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple | list) and len(item) == 2


def _named(items: Sequence[Any]) -> tuple[Any, ...]:
    """Give each a name of its own: skorch would bring those of one class together."""
    kinds = [
        "" if _is_pair(x) else getattr(x, "__name__", type(x).__name__) for x in items
    ]
    return tuple(
        (f"{kind}_{kinds[:at].count(kind) + 1}" if kinds.count(kind) > 1 else kind, x)
        if kind
        else x
        for at, (kind, x) in enumerate(zip(kinds, items, strict=True))
    )


def _check_monitors(callbacks: Iterable[Any]) -> None:
    """Check that no figure of held-out samples is looked for."""
    missing = {"valid_loss", "valid_acc"}
    for callback in callbacks:
        if isinstance(callback, ScoringBase):
            name = copy.copy(callback).initialize().name_
            (missing.discard if callback.on_train else missing.add)(name)
    for callback in callbacks:
        if inspect.isclass(callback):
            known = inspect.signature(callback).parameters.get("monitor")
            name, monitor = callback.__name__, known and known.default
        else:
            name, monitor = type(callback).__name__, getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor.removesuffix("_best") in missing:
            instead = "train_loss" + "_best" * monitor.endswith("_best")
            raise ValueError(
                f"{name} looks for {monitor!r}, which does not exist without a "
                f"hold-out; set early_stopping=True, pass an eval_set to fit, or set "
                f"monitor={instead!r}."
            )
