"""The strength from which on everything vanishes, and a grid below it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.cges.estimator import (
    SparseEstimator,
    Untrained,
    check_estimator,
)
from sklearn_structreg.cges.regularizer import LayerPenalty
from sklearn_structreg.core.batches import Batch, Batches
from sklearn_structreg.core.checks import is_integer, is_number
from sklearn_structreg.core.insertion import insertions
from sklearn_structreg.core.optimizers import resolve_optimizer
from sklearn_structreg.core.standardization import Standardize
from sklearn_structreg.core.task import Task

__all__ = ["alpha_max", "alpha_path"]

LINEAR = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout)
POOLING = (
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)
MAX_POOLING = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
CONTRACTIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Hardtanh)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
PENALISED = (nn.Linear, *CONVOLUTIONS)

Parts = list[tuple[str, nn.Module]]


def alpha_max(
    estimator: SparseEstimator,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Return a strength from which on every penalised weight vanishes.

    For a linear model (one penalised layer) this is the smallest such strength: the
    largest norm of a group's gradient at zero weights, over the group's coefficient.
    For a deeper network this is an upper bound: from there on zero weights are the
    global minimum of the penalised loss. Both are of the problem that `fit` solves,
    with its standardized samples.

    Parameters
    ----------
    estimator : CGESClassifier or CGESRegressor
        Its `alpha` is not used. It is not fitted.
    X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
        Samples as the estimator takes them, raw ones where it standardizes; in a
        pipeline, as the steps before transform them.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Labels, an indicator of several, or numbers, as in `fit`.
    sample_weight : array-like of shape (n_samples,) or None, default=None
        As in `fit`.

    Returns
    -------
    float
        In the units of `alpha`. Infinite where no strength takes all weights away: the
        L2 penalty only shrinks them, and the exclusive one never zeroes the largest of
        a group (``prox="paper"`` does, as an artefact of its step), nor does CGES where
        `exclusivity` is 0 or 1, since one layer then has no group term.

    Raises
    ------
    ValueError
        If the network holds a layer for which no bound is known, such as batch
        normalization, behind which the scale of the weights does not matter, or a last
        layer without a bias, so that zero weights cannot fit the shares of the classes;
        and for a `criterion` other than None.
    TypeError
        If `estimator` is another one, such as a pipeline.

    See Also
    --------
    alpha_path : Strengths to search, from here downwards.

    Notes
    -----
    With SGD and momentum m the training settles at the minimum for (1 - m) alpha, so
    the strength here is that of the objective over 1 - m. For other optimizers it is
    that of the objective. `weight_decay` and `regularizers` are left out. The gradients
    of mini-batches scatter around zero, so that single weights come and go near the
    exact value.

    The bound: let :math:`t_l` be the penalty of layer l, whose coefficient is
    :math:`c_l`, and :math:`L_0` the loss of constant predictions. Each layer changes
    distances by a factor of at most :math:`\kappa_l t_l` and nothing between the layers
    increases them, so that outputs differ from those at the mean sample by at most
    :math:`D\prod_l\kappa_l t_l` on average, D being the mean distance to it. The loss
    gains at most :math:`\sqrt2` times that (the root of the number of labels where y
    is an indicator; :math:`2\sqrt{L_0/K}` for K numbers, with root mean squares as
    averages), and never more than :math:`L_0`; the penalty costs
    :math:`\alpha\sum_l c_l t_l \ge \alpha L\,(\prod_l c_l t_l)^{1/L}`. It costs more
    than can be gained from

    .. math:: \alpha = \frac{L_0}{L} \Big( \frac{\sqrt2\,D}{L_0}
              \prod_l \frac{\kappa_l}{c_l} \Big)^{1/L}

    on. (Zero weights are a local minimum at any positive strength, since the loss
    changes with the product of the layers only.)

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn_structreg import CGESClassifier
    >>> from sklearn_structreg.cges import alpha_max
    >>> X, y = load_wine(return_X_y=True)
    >>> linear = CGESClassifier(
    ...     hidden_layer_sizes=(), penalty="group", momentum=0.0, batch_size=None,
    ...     learning_rate=1.0)
    >>> largest = alpha_max(linear, X, y)
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # that nothing, or next to it, is left
    ...     above = linear.set_params(alpha=1.02 * largest).fit(X, y).sparsity_
    ...     below = linear.set_params(alpha=0.98 * largest).fit(X, y).sparsity_
    >>> above, below < 1
    (1.0, True)
    """
    check_estimator(estimator, "alpha_max")
    probe = clone(estimator).set_params(
        alpha=1.0,
        target_density=None,
        regularizers=None,
        dtype="float64",
        device="cpu",
        callbacks=None,
    )
    if probe.criterion is not None:
        raise ValueError(
            f"alpha_max knows no bound for criterion={probe.criterion!r}; leave it at "
            "None, or give the strengths, such as numpy.geomspace(1, 1e-3, 10)."
        )
    untrained = probe._untrained(X, y, sample_weight)
    if probe.penalty in ("l2", "exclusive") or not all(
        layer.group > 0 for layer in untrained.penalty.layers_
    ):
        return math.inf
    parts = list(_parts(untrained.module.eval()))
    strength = (_exact if _is_linear(parts) else _bound)(parts, untrained)
    is_sgd = issubclass(resolve_optimizer(probe.optimizer), torch.optim.SGD)
    momentum = float(probe.momentum) if is_sgd else 0.0
    return strength / (1.0 - momentum)


def alpha_path(
    estimator: SparseEstimator,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    n_alphas: int = 10,
    eps: float = 1e-3,
) -> NDArray[np.float64]:
    """Return strengths for a grid search, evenly spaced on a log scale.

    Parameters
    ----------
    estimator, X, y, sample_weight
        As in `alpha_max`.
    n_alphas : int, default=10
        Number of strengths, at least 1.
    eps : float in (0, 1), default=1e-3
        The smallest strength over the largest.

    Returns
    -------
    ndarray of shape (n_alphas,)
        From `alpha_max` downwards.

    Raises
    ------
    ValueError
        If `alpha_max` is zero, infinite or has no bound, or a parameter is out of its
        range.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn_structreg import CGESClassifier
    >>> from sklearn_structreg.cges import alpha_path
    >>> X, y = load_wine(return_X_y=True)
    >>> net = CGESClassifier(hidden_layer_sizes=(), penalty="l1", momentum=0.0)
    >>> alpha_path(net, X, y, n_alphas=4).round(4)
    array([0.3893, 0.0389, 0.0039, 0.0004])
    """
    if not (is_integer(n_alphas) and is_number(eps) and 0 < eps < 1):
        raise ValueError(
            f"n_alphas={n_alphas!r} must be an integer of at least 1 and eps={eps!r} "
            "in (0, 1)."
        )
    largest = alpha_max(estimator, X, y, sample_weight)
    if math.isinf(largest):
        raise ValueError(
            f"No strength of penalty={estimator.penalty!r} with exclusivity="
            f"{estimator.exclusivity:g} takes all weights away, so there is no largest "
            "to start from; give the strengths, such as numpy.geomspace(1, 1e-3, 10)."
        )
    if largest == 0:
        raise ValueError(
            "Constants predict y as well as any network, so every strength takes all "
            "weights away; give samples whose labels depend on X."
        )
    return np.geomspace(largest, eps * largest, int(n_alphas))


def _parts(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of nested Sequentials with their names, in forward order."""
    if not isinstance(module, nn.Sequential):
        yield name, module
        return
    for key, child in module.named_children():
        yield from _parts(child, f"{name}.{key}".lstrip("."))


def _is_linear(parts: Parts) -> bool:
    layers: list[Any] = [p for _, p in parts if isinstance(p, PENALISED)]
    others = [part for _, part in parts if not isinstance(part, PENALISED)]
    return (
        len(layers) == 1
        and layers[0].weight.requires_grad
        and all(isinstance(part, LINEAR + POOLING) for part in others)
    )


def _exact(parts: Parts, untrained: Untrained) -> float:
    """Return the largest of the groups' gradients at zero weights."""
    module, penalty, batches, task = untrained
    layer: Any = next(part for _, part in parts if isinstance(part, PENALISED))
    with torch.no_grad():
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
    n_outputs = module(next(iter(batches.epoch(None)))[0][:1]).shape[1]
    if layer.bias is not None:  # constant outputs fit the means of the targets
        predicted = _target_means(batches, task, n_outputs)
    else:
        at_zero = {Task.CLASSES: 1.0 / n_outputs, Task.LABELS: 0.5, Task.VALUES: 0.0}
        predicted = torch.full((n_outputs,), at_zero[task], dtype=torch.float64)
    total = sum(_weight_sum(batch) for batch in batches.epoch(None))
    for X, y, weight in batches.epoch(None):
        slopes = predicted - _as_numbers(y, task, n_outputs)  # of losses by outputs
        slopes *= 2.0 / n_outputs if task is Task.VALUES else 1.0
        slopes *= 1.0 if weight is None else weight[:, None]
        module(X).backward(slopes / total)
    assert layer.weight.grad is not None
    norms = layer.weight.grad.abs()
    (terms,) = penalty.layers_
    if penalty.penalty != "l1":
        norms = torch.linalg.vector_norm(norms, dim=terms.group_dims)
    return float(norms.max()) / terms.group


def _bound(parts: Parts, untrained: Untrained) -> float:
    """Return the bound that the Notes of `alpha_max` derive."""
    module, penalty, batches, task = untrained
    across = penalty.penalty == "l1" or penalty.groups == "feature"
    penalties = {layer.name: layer for layer in penalty.layers_}
    log_ratio = sum(_log_ratio(n, p, penalties, across) for n, p in parts)
    last = max(i for i, (_, part) in enumerate(parts) if isinstance(part, PENALISED))
    _require(parts[last][1].bias is not None, *parts[last], "without a bias at its end")
    for name, part in parts[last + 1 :]:
        _require(isinstance(part, LINEAR + POOLING), name, part, "at its end")
    n_outputs = module(next(iter(batches.epoch(None)))[0][:1]).shape[1]
    first = next(part for _, part in parts if isinstance(part, PENALISED))
    order = math.inf if across and isinstance(first, nn.Linear) else 2.0
    power = 2.0 if task is Task.VALUES else 1.0
    distance = _mean_distance(module, batches, order, power)
    loss, slope = _constant_loss(batches, task, n_outputs)
    if loss == 0 or distance == 0:  # constants predict y as well
        return 0.0
    n_layers = len(penalty.layers_)
    log_ratio += math.log(slope * distance / loss)
    return loss / n_layers * math.exp(log_ratio / n_layers)


def _constant_loss(batches: Batches, task: Task, n_outputs: int) -> tuple[float, float]:
    """Return the least loss of constant outputs, and a bound on the gain below it."""
    means = _target_means(batches, task, n_outputs)
    if task is Task.VALUES:
        total = sum(_weight_sum(batch) for batch in batches.epoch(None))
        squares = 0.0
        for _, y, weight in batches.epoch(None):
            rows = (y - means).square().mean(dim=1)
            squares += float(rows.sum() if weight is None else rows @ weight)
        loss = squares / total
        return loss, 2.0 * math.sqrt(loss / n_outputs)
    entropy = float(torch.special.entr(means).sum())
    if task is Task.CLASSES:
        return entropy, math.sqrt(2.0)
    entropy += float(torch.special.entr(1.0 - means).sum())
    return entropy, math.sqrt(n_outputs)


def _log_ratio(
    name: str, part: nn.Module, penalties: dict[str, LayerPenalty], across: bool
) -> float:
    """Return log(kappa / c) of a layer with a penalty; log(kappa) of another."""
    if isinstance(part, PENALISED):
        key, kernel = f"{name}.weight".lstrip("."), 1.0
        penalised = key in penalties and part.weight.requires_grad
        _require(penalised, name, part, "whose weight is not penalised")
        if isinstance(part, CONVOLUTIONS):
            _require(part.padding_mode == "zeros", name, part)
            kernel = 1.0 if across else math.sqrt(math.prod(part.kernel_size))
        return math.log(kernel / penalties[key].group)
    if isinstance(part, nn.Dropout):
        return -0.5 * math.log1p(-part.p) if part.p < 1 else 0.0
    known = isinstance(part, LINEAR + POOLING + CONTRACTIONS)
    if isinstance(part, MAX_POOLING):
        known = _sizes(part.stride) >= _sizes(part.kernel_size)
    if isinstance(part, nn.LeakyReLU):
        known = abs(part.negative_slope) <= 1
    _require(known, name, part)
    return 0.0


def _sizes(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else min(size)


def _require(known: bool, name: str, part: nn.Module, why: str = "") -> None:
    if not known:
        kind = " ".join([type(part).__name__, *([f"(layer {name!r})"] if name else [])])
        raise ValueError(
            f"alpha_max knows no bound for a network with {f'{kind} {why}'.strip()}; "
            "give the strengths, such as numpy.geomspace(1, 1e-3, 10)."
        )


def _weight_sum(batch: Batch) -> float:
    _, y, weight = batch
    return float(len(y)) if weight is None else float(weight.sum())


def _as_numbers(y: Tensor, task: Task, n_outputs: int) -> Tensor:
    """Return targets as numbers, (n, n_outputs): of classes an indicator."""
    if task is Task.CLASSES:
        y = functional.one_hot(y, n_outputs)
    return y.double()


def _target_means(batches: Batches, task: Task, n_outputs: int) -> Tensor:
    """Return the weighted means of the targets: of classes and labels their shares."""
    sums, total = torch.zeros(n_outputs, dtype=torch.float64), 0.0
    for batch in batches.epoch(None):
        _, y, weight = batch
        numbers = _as_numbers(y, task, n_outputs)
        sums += numbers.sum(0) if weight is None else weight.double() @ numbers
        total += _weight_sum(batch)
    return sums / total


def _mean_distance(
    module: nn.Module, batches: Batches, order: float, power: float
) -> float:
    """Return the power mean of the samples' distances to their mean, by weight.

    Samples are taken as they reach the first layer: standardized, where `fit` does so.
    """
    total = sum(_weight_sum(batch) for batch in batches.epoch(None))
    mean = torch.zeros(())
    for X, weight in _reaching(module, batches):
        mean = mean + (X.sum(0) if weight is None else weight @ X) / total
    powers = 0.0
    for X, weight in _reaching(module, batches):
        norms = torch.linalg.vector_norm(X - mean, order, dim=1) ** power
        powers += float(norms.sum() if weight is None else norms @ weight) / total
    return math.pow(powers, 1.0 / power)


def _reaching(
    module: nn.Module, batches: Batches
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the flattened inputs of the first layer, with their weights."""
    layers = [each.layer for each in insertions(module)]
    standardize = [layer for layer in layers if isinstance(layer, Standardize)]
    for X, _, weight in batches.epoch(None):
        for layer in standardize:
            X = layer(X)
        yield X.flatten(1), weight
