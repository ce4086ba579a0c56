"""A fit that failed says so: one warning, with the figure and the remedy."""

from __future__ import annotations

import math
import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.inspection import has_own_weight
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.recipe import TensorSpec
from sklearn_structreg.core.standardization import Standardize
from sklearn_structreg.core.task import Task

__all__ = ["warn_of_failure"]

CLEARLY_BELOW = 0.9  # of the loss of a constant prediction: no need to look closer
N_BATCHES = 16  # looked at otherwise
FEW_ROWS = 64
CERTAIN = 1e-3  # a loss of constant predictions that leaves nothing to learn
BLOW_UP = 10.0  # a loss that ends so many times above its beginning


def warn_of_failure(net: StructuredNet, data: TrainingData, spec: TensorSpec) -> None:
    """Warn once, as `ConvergenceWarning`, where a training has learned nothing."""
    with net.draws(net.seed):
        problem = (
            _empty_layer(net, data, spec)
            or _no_better_than_constant(net, data, spec)
            or _blow_up(net)
            or _no_improvement(net)
        )
    if problem:
        warnings.warn(problem, ConvergenceWarning, stacklevel=5)


def _empty_layer(
    net: StructuredNet, data: TrainingData, spec: TensorSpec
) -> str | None:
    """Name a layer without any weight left, where that makes all outputs alike."""
    empty = [
        name
        for name, layer in net.module_.named_modules()
        if has_own_weight(layer) and not bool(layer.weight.any())
    ]
    if not empty:
        return None
    net.module_.eval()
    with torch.no_grad():
        outputs = net.module_(data.first_rows(FEW_ROWS, spec))
    if not torch.equal(outputs, outputs[:1].expand_as(outputs)):
        return None
    strong = [
        f"alpha={regularizer.alpha:g} of {key!r}"
        for key, regularizer in net.regularizers.items()
        if getattr(regularizer, "alpha", 0) > 0
    ]
    layer = f"Layer {empty[0]!r}" if empty[0] else "The layer"
    return (
        f"{layer} has no weight left, so the network predicts the same for every "
        f"sample; lower {' or '.join(strong) or 'the weight decay'}."
    )


def _no_better_than_constant(
    net: StructuredNet, data: TrainingData, spec: TensorSpec
) -> str | None:
    """Compare the loss with that of the class frequencies, or of the mean."""
    if net.recipe.criterion is not None:
        return None
    size = net.recipe.rows_per_batch(data.n_rows)
    target, weight = _targets(data)
    constant = _constant_loss(net.recipe.task, target, weight)
    if constant <= CERTAIN or net.history[-1, "train_loss"] < CLEARLY_BELOW * constant:
        return None
    batches = data.batches(spec, batch_size=size, normalize=True)
    losses, sizes, predicted = [], [], set()
    net.module_.eval()
    with torch.no_grad():
        for (X, y, w), _ in zip(batches.epoch(0), range(N_BATCHES), strict=False):
            outputs = net.module_(X)
            losses.append(float(net.criterion_(outputs, y, w)))
            sizes.append(len(y))
            predicted |= set(outputs.argmax(dim=1).tolist())
    loss = math.fsum(x * n for x, n in zip(losses, sizes, strict=True)) / sum(sizes)
    if loss < constant:
        return None
    rate = net.recipe.learning_rate
    known = "the mean" if net.recipe.task is Task.VALUES else "the class frequencies"
    one = net.recipe.task is Task.CLASSES and len(predicted) == 1
    raw = not any(isinstance(part, Standardize) for part in net.module_.modules())
    return (
        f"The training loss of {loss:.4g} is no better than that of {known} alone, "
        f"{constant:.4g}{', and one class alone is predicted' if one else ''}; train "
        f"for longer than max_epochs={net.recipe.max_epochs}, change "
        f"learning_rate={rate:g}, {'standardize the features, ' if raw else ''}or "
        "lower the strength of the regularizers."
    )


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
