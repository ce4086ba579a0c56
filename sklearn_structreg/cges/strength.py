"""The strength that takes all weights away, and a grid below it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.cges.estimator import (
    SparseEstimator,
    Untrained,
    check_estimator,
)
from sklearn_structreg.core.batches import Batch, Batches
from sklearn_structreg.core.checks import is_integer, is_number
from sklearn_structreg.core.task import Task

__all__ = ["alpha_max", "alpha_path"]

PENALISED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
LINEAR = (
    *(nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)
# Of a measurement: the first strength, the factor to the next, and the shares of
# `max_epochs` that the first and each later one gets.
FIRST, FACTOR, BEFORE, SHARE = 0.1, math.sqrt(2), 1 / 3, 0.1
LARGEST = 1e6

Parts = list[tuple[str, nn.Module]]


def alpha_max(
    estimator: SparseEstimator,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Return the strength that takes all penalised weights away.

    For a linear model (one penalised layer, no `criterion` of its own) this is exact:
    the largest norm of a group's gradient at zero weights, over the group's
    coefficient. For any other network it is measured: a network is trained while the
    strength rises, until a layer has lost its last weight; then it is halved as long as
    a whole fit loses it, too. That costs three to six times as much as `fit`.

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
        `exclusivity` is 0 or 1, since one layer then has no group term. Zero where
        constants predict y as well.

    Raises
    ------
    TypeError
        If `estimator` is another one, such as a pipeline.

    See Also
    --------
    alpha_path : Strengths to search, from here downwards.

    Notes
    -----
    The exact value leaves out `weight_decay` and `regularizers`; the gradients of
    mini-batches scatter around zero, so that single weights come and go near it. The
    measured one depends on `random_state`. Strengths rise from 0.1 by a factor of
    :math:`\sqrt2`, with a third of `max_epochs` for the first of them and a tenth for
    each of the others. There is no value to derive: zero weights are a local minimum of
    deeper networks at any positive strength, since the loss changes with the product of
    the layers only, and a bound on the global one lies up to 150 times higher than the
    strength at which a training ends there.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn_structreg import CGESClassifier
    >>> from sklearn_structreg.cges import alpha_max
    >>> X, y = load_wine(return_X_y=True)
    >>> linear = CGESClassifier(
    ...     hidden_layer_sizes=(), penalty="group", momentum=0.0, batch_size=None,
    ...     learning_rate=1.0, ramp=0, refit=0, random_state=0)
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
        alpha=1.0, target_density=None, regularizers=None, callbacks=None
    )
    probe.set_params(dtype="float64", device="cpu")
    untrained = probe._untrained(X, y, sample_weight)
    if probe.penalty in ("l2", "exclusive") or not all(
        layer.group > 0 for layer in untrained.penalty.layers_
    ):
        return math.inf
    if np.all(np.ptp(np.asarray(y), axis=0) == 0):
        return 0.0
    parts = list(_parts(untrained.module.eval()))
    if _is_linear(parts) and probe.criterion is None:
        return _exact(parts, untrained)
    return _measured(clone(estimator), X, y, sample_weight)


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
    >>> net = CGESClassifier(hidden_layer_sizes=(), penalty="l1", random_state=0)
    >>> alphas = alpha_path(net, X, y, n_alphas=4)
    >>> (alphas / alphas[0]).round(6)
    array([1.   , 0.1  , 0.01 , 0.001])
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
        and all(isinstance(part, LINEAR) for part in others)
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
        norms = torch.linalg.vector_norm(terms.view(norms), dim=terms.group_dims)
    return float(norms.max()) / terms.group


def _measured(model: SparseEstimator, X: Any, y: Any, sample_weight: Any) -> float:
    """Return a strength that empties the network in a fit, while half of it does not.

    Where strengths rise quickly, weights take some steps to follow, so that the last
    one may be too large.
    """
    model.set_params(
        target_density=None, early_stopping=False, checkpoint=None, verbose=0
    )
    rising = clone(model).set_params(
        alpha=FIRST, ramp=0, refit=0, lr_schedule=None, warm_start=True
    )
    rising.set_params(max_epochs=max(1, round(BEFORE * model.max_epochs)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # that nothing is left
        rising.fit(X, y, sample_weight)
        rising.set_params(max_epochs=max(1, round(SHARE * model.max_epochs)))
        while not _is_empty(rising):
            if rising.alpha > LARGEST:
                return math.inf
            rising.set_params(alpha=FACTOR * rising.alpha).fit(X, y, sample_weight)
        largest = float(rising.alpha)
        model.set_params(warm_start=False, alpha=largest / 2)
        while _is_empty(model.fit(X, y, sample_weight)):
            largest = float(model.alpha)
            model.set_params(alpha=largest / 2)
    return largest


def _is_empty(model: SparseEstimator) -> bool:
    """Whether a layer has lost all weights."""
    return 1.0 in model.history_[-1, "layer_sparsity"].values()


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
