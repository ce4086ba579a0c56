"""A fit that failed says so: one warning, with the figure and the remedy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from math import isfinite
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from sklearn_structreg.core.batches import KEPT_BATCHES, Batch
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.recipe import TensorSpec
from sklearn_structreg.core.regularizer import Regularizer
from sklearn_structreg.core.standardization import Standardize
from sklearn_structreg.core.task import Task
from sklearn_structreg.core.weights import own_weights

__all__ = ["note_failure", "note_problem", "noted", "warn_once"]

CLEARLY_BELOW = 0.9  # of the loss of a constant prediction: no need to look closer
FEW_ROWS = 64
CERTAIN = 1e-3  # a loss of constant predictions that leaves nothing to learn
BLOW_UP = 10.0  # a loss that ends so many times above its beginning
STILL = 1e-4  # a loss that changed by less, relatively, from first to last epoch
COMMON = 0.6  # share of a class that a network may well predict alone

_problems: ContextVar[list[str] | None] = ContextVar("problems", default=None)


@contextmanager
def noted() -> Iterator[list[str]]:
    """Yield the list of the problems noted in this context, for the caller to tell."""
    problems: list[str] = []
    token = _problems.set(problems)
    try:
        yield problems
    finally:
        _problems.reset(token)


@contextmanager
def warn_once() -> Iterator[None]:
    """Warn of the first problem noted in this context, as `ConvergenceWarning`.

    Inside of another such context the outer one warns: a fit that trains several
    networks does so once. For use in a `fit` with scikit-learn's decorator.
    """
    outer = _problems.get()
    with noted() as problems:
        yield
    if outer is not None:
        outer.extend(problems)
    elif problems:  # from here: contextlib, `fit`, the decorator, the caller
        warnings.warn(problems[0], ConvergenceWarning, stacklevel=5)


def note_problem(problem: str) -> None:
    """Add to the problems of the context."""
    problems = _problems.get()
    if problems is not None:
        problems.append(problem)


def note_failure(net: StructuredNet, data: TrainingData, spec: TensorSpec) -> None:
    """Note where a training has learned nothing, or less than it was to."""
    with net.draws(net.seed):
        problem = (
            _empty_layer(net, data, spec)
            or _no_better_than_constant(net, data, spec)
            or _blow_up(net)
            or _no_improvement(net)
            or _idle_regularizer(net)
        )
    if problem:
        note_problem(problem)


def _empty_layer(
    net: StructuredNet, data: TrainingData, spec: TensorSpec
) -> str | None:
    """Name a layer without any weight left, where that makes all outputs alike."""
    empty = [
        name
        for name, layer in net.module_.named_modules()
        if not all(bool(w.any()) for w in own_weights(layer).values())
    ]
    remedies = _remedies(net, lambda regularizer: regularizer.zeroes_weights)
    if not empty or not remedies:
        return None
    net.module_.eval()
    with torch.no_grad():
        outputs = net.module_(data.first_rows(FEW_ROWS, spec))
    if not torch.equal(outputs, outputs[:1].expand_as(outputs)):
        return None
    layer = f"Layer {empty[0]!r}" if empty[0] else "The layer"
    return (
        f"{layer} has no weight left, so the network predicts the same for every "
        f"sample; {_in_words(remedies)}."
    )


def _no_better_than_constant(
    net: StructuredNet, data: TrainingData, spec: TensorSpec
) -> str | None:
    """Compare the loss with that of the best prediction that is the same for all."""
    recipe, losses = net.recipe, net.history[:, "train_loss"]
    target, weight = _targets(data)
    constant = _constant_loss(recipe.task, target, weight)
    usual = recipe.criterion is None
    if constant <= CERTAIN or (usual and losses[-1] < CLEARLY_BELOW * constant):
        return None
    outputs, *truth = _outputs(net, data, spec)
    with torch.no_grad():
        loss = float(net.criterion_(outputs, *truth))
    known = "the mean" if recipe.task is Task.VALUES else "the class frequencies"
    known += " alone"
    if not usual:
        known, constant = (
            "the same prediction for every sample",
            _fitted_constant(net, outputs, truth),
        )
    near = loss > constant - (1 - CLEARLY_BELOW) * abs(constant)
    still = len(losses) > 1 and abs(losses[-1] - losses[0]) <= STILL * abs(losses[0])
    only = set(outputs.argmax(dim=1).tolist() if recipe.task is Task.CLASSES else [])
    one = len(only) == 1
    rare = one and float(weight[target == min(only)].sum() / weight.sum()) <= COMMON
    if loss < constant and not (near and (still or rare)):
        return None
    relation = "no better than" if loss >= constant else "close to"
    return (
        f"The training loss of {loss:.4g} is {relation} that of {known}, "
        f"{constant:.4g}{', and one class alone is predicted' if one else ''}; "
        f"{_in_words(_changes(net, constant, still=still))}."
    )


def _changes(net: StructuredNet, constant: float, *, still: bool) -> list[str]:
    """List the changes of parameters that may help, the likeliest first."""
    recipe = net.recipe
    diverged = max(net.history[:, "train_loss"]) > BLOW_UP * max(constant, CERTAIN)
    verb = "lower" if diverged else "raise" if still else "change"
    rate = [f"{verb} learning_rate={recipe.learning_rate:g}"]
    longer = [] if diverged or still else [f"raise max_epochs={recipe.max_epochs}"]
    decay = recipe.optimizer_settings.get("weight_decay", 0)
    milder = [f"lower weight_decay={decay:g}"] if decay else []
    milder += _remedies(net, lambda regularizer: True)
    changes = [*rate, *milder] if diverged or still else [*milder, *rate]
    if not any(isinstance(part, Standardize) for part in net.module_.modules()):
        changes.insert(0, "set standardize=True")
    return [*changes, *longer]


def _remedies(net: StructuredNet, chosen: Callable[[Regularizer], bool]) -> list[str]:
    """List the changes that make regularizers milder."""
    return [
        f"{remedy} of {key!r}"
        for key, regularizer in net.regularizers.items()
        if chosen(regularizer) and (remedy := regularizer.remedy())
    ]


def _in_words(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + (", or " if parts[1:] else "") + parts[-1]


def _outputs(
    net: StructuredNet, data: TrainingData, spec: TensorSpec
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the outputs for some rows, with their targets and weights."""
    size = net.recipe.rows_per_batch(data.n_rows)
    batches: Iterable[Batch] = data.seen
    if not batches:
        epoch = data.batches(spec, batch_size=size, normalize=True).epoch(0)
        batches = islice(epoch, KEPT_BATCHES)
    net.module_.eval()
    with torch.no_grad():
        parts = [(net.module_(X), y, w) for X, y, w in batches]
    outputs, y, w = zip(*parts, strict=True)
    weight = None if w[0] is None else torch.cat(w)
    return torch.cat(outputs), torch.cat(y), weight


def _fitted_constant(net: StructuredNet, outputs: Tensor, truth: list[Any]) -> float:
    """Return the least loss that a search finds for outputs that are all alike.

    Where no output is the best, as with log-probabilities, which need not sum to one
    here, it is the loss of the mean output.
    """
    same = torch.zeros_like(outputs[:1], requires_grad=True)
    search = torch.optim.LBFGS([same], max_iter=50, line_search_fn="strong_wolfe")
    losses: list[float] = []

    def closure() -> Tensor:
        same.grad = None
        loss: Tensor = net.criterion_(same.repeat(len(outputs), 1), *truth)
        losses.append(loss.item())
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    search.step(closure)  # type: ignore[no-untyped-call]
    least = min(losses)
    if not isfinite(least):
        with torch.no_grad():
            same[:] = outputs.mean(dim=0)
            least = float(net.criterion_(same.repeat(len(outputs), 1), *truth))
    return least


def _targets(data: TrainingData) -> tuple[Tensor, Tensor]:
    target = torch.from_numpy(data.target[data.rows])
    if data.weight is None:
        return target, torch.ones(len(target), dtype=torch.float64)
    return target, torch.from_numpy(data.weight[data.rows])


def _constant_loss(task: Task, target: Tensor, weight: Tensor) -> float:
    """Return the loss of the best prediction that is the same for all rows."""
    share = weight / weight.sum()
    if task is Task.CLASSES:
        p = torch.bincount(target, weights=share)
        return float(-torch.special.xlogy(p, p).sum())
    mean = share @ target.double()
    if task is Task.LABELS:
        q = 1 - mean
        entropies = torch.special.xlogy(mean, mean) + torch.special.xlogy(q, q)
        return float(-entropies.sum())
    return float((share @ (target.double() - mean) ** 2).mean())


def _blow_up(net: StructuredNet) -> str | None:
    """Compare the last loss with the first one."""
    losses = net.history[:, "train_loss"]
    if losses[-1] <= BLOW_UP * max(losses[0], 1e-3):
        return None
    return (
        f"The training loss rose from {losses[0]:.3g} in the first epoch to "
        f"{losses[-1]:.3g} in the last; lower learning_rate="
        f"{net.recipe.learning_rate:g}."
    )


def _no_improvement(net: StructuredNet) -> str | None:
    """Look for an early stop at which the first epoch was still the best."""
    if not net.recipe.early_stopping or len(net.history) < 2:
        return None
    losses = net.history[:, "valid_loss"]
    if min(losses[1:]) < losses[0]:
        return None
    return (
        f"Early stopping found no epoch better than the first, of validation loss "
        f"{losses[0]:.3g}, so its weights are used; lower learning_rate="
        f"{net.recipe.learning_rate:g}, or raise n_iter_no_change="
        f"{net.recipe.n_iter_no_change}."
    )


def _idle_regularizer(net: StructuredNet) -> str | None:
    """Look for a regularizer that had no effect on the weights that are kept."""
    for key, regularizer in net.regularizers.items():
        remedy = regularizer.remedy_if_idle(net.module_)
        if remedy:
            stop = "early stopping" if net.recipe.early_stopping else "max_epochs"
            return (
                f"{key!r} has not begun to act on the weights that are kept, after "
                f"{len(net.history)} epochs ({stop}); {remedy}."
            )
    return None
