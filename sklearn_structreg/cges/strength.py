"""How strong a penalty must be for everything to vanish, and a grid below that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.cges.classifier import CGESClassifier
from sklearn_structreg.cges.layers import PENALISED
from sklearn_structreg.cges.regularizer import CGESRegularizer, LayerPenalty
from sklearn_structreg.core.batches import Batch, Batches
from sklearn_structreg.core.validation import validate_training_data

__all__ = ["alpha_max", "alpha_path", "check_estimator"]

LINEAR = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout)
POOLING = (
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)
MAX_POOLING = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
CONTRACTIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Hardtanh)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def alpha_max(
    estimator: CGESClassifier,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Return a strength from which on every penalised weight vanishes.

    For a linear model (one penalised layer) this is the smallest such strength: the
    largest norm of a group's gradient at zero weights, over the group's coefficient.
    A deeper network has no such strength to compute, and this is an upper bound: from
    there on zero weights are the global minimum of the penalised loss.

    Parameters
    ----------
    estimator : CGESClassifier
        Its `alpha` is not used. It is not fitted.
    X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
        Samples as the estimator sees them in a pipeline: scaled, say.
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Labels, or an indicator of several, as in `fit`.
    sample_weight : array-like of shape (n_samples,) or None, default=None
        As in `fit`.

    Returns
    -------
    float
        In the units of `alpha`. Infinite where no strength takes all weights away: the
        L2 penalty shrinks them only, and the exclusive one never zeroes the largest of
        a group (``prox="paper"`` does, as an artefact of its step), nor does CGES where
        `exclusivity` is 0 or 1, since one layer then has no group term.

    Raises
    ------
    ValueError
        If the network holds a layer for which no bound is known, such as batch
        normalization, behind which the scale of the weights does not matter, or a last
        layer without a bias, so that zero weights cannot fit the shares of the classes.
    TypeError
        If `estimator` is no CGESClassifier, but a pipeline, say.

    See Also
    --------
    alpha_path : Strengths to search, from here downwards.

    Notes
    -----
    With SGD and momentum m the training settles at the minimum for (1 - m) alpha, so
    the strength here is that of the objective over 1 - m. For other optimizers it is
    that of the objective. `weight_decay` is left out. The gradients of mini-batches
    scatter around zero, so that single weights come and go near the exact value.

    The bound: let :math:`t_l` be the penalty of layer l, whose coefficient is
    :math:`c_l`, and :math:`L_0` the loss of constant predictions. Each layer changes
    distances by a factor of at most :math:`\kappa_l t_l` and what lies between the
    layers does not increase them, so that logits differ from those at the mean sample
    by at most :math:`D\prod_l\kappa_l t_l` on average, D being the mean distance to it.
    The loss gains at most :math:`\sqrt2` times that (the root of the number of labels
    where y is an indicator), and never more than :math:`L_0`;
    the penalty costs :math:`\alpha\sum_l c_l t_l \ge \alpha L\,(\prod_l c_l
    t_l)^{1/L}`. It costs more than can be gained from

    .. math:: \alpha = \frac{L_0}{L} \Big( \frac{\sqrt2\,D}{L_0}
              \prod_l \frac{\kappa_l}{c_l} \Big)^{1/L}

    on. (Zero weights are a local minimum at any positive strength, since the loss
    changes with the product of the layers only.)

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.preprocessing import scale
    >>> from sklearn_structreg import CGESClassifier
    >>> from sklearn_structreg.cges import alpha_max
    >>> X, y = load_wine(return_X_y=True)
    >>> X = scale(X)
    >>> linear = CGESClassifier(
    ...     hidden_layer_sizes=(), penalty="group", momentum=0.0, batch_size=None,
    ...     learning_rate=1.0)
    >>> largest = alpha_max(linear, X, y)
    >>> linear.set_params(alpha=1.02 * largest).fit(X, y).sparsity_
    1.0
    >>> linear.set_params(alpha=0.98 * largest).fit(X, y).sparsity_ < 1
    True
    """
    check_estimator(estimator, "alpha_max")
    estimator._validate_params()
    probe = clone(estimator).set_params(
        alpha=1.0, target_density=None, dtype="float64", device="cpu", callbacks=None
    )
    data = validate_training_data(
        probe, X, y, sample_weight, reset=True, min_samples=2, classes=None
    )
    batches = probe._batches(data, torch.device("cpu"), normalize=True)
    net = probe._make_net(data, torch.device("cpu"), probe._draw_seed(), None, batches)
    regularizer: CGESRegularizer = net.regularizer
    if probe.penalty in ("l2", "exclusive") or not all(
        layer.group > 0 for layer in regularizer.layers_
    ):
        return math.inf
    module = net.module_.eval()
    parts = list(_parts(module))
    compute = _exact if _is_linear(parts) else _bound
    strength = compute(module, parts, regularizer, batches)
    momentum = float(probe.momentum) if probe.optimizer == "sgd" else 0.0
    return strength / (1.0 - momentum)


def alpha_path(
    estimator: CGESClassifier,
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
    >>> from sklearn.preprocessing import scale
    >>> from sklearn_structreg import CGESClassifier
    >>> from sklearn_structreg.cges import alpha_path
    >>> X, y = load_wine(return_X_y=True)
    >>> net = CGESClassifier(hidden_layer_sizes=(), penalty="l1", momentum=0.0)
    >>> alpha_path(net, scale(X), y, n_alphas=4).round(4)
    array([0.3893, 0.0389, 0.0039, 0.0004])
    """
    if not (isinstance(n_alphas, Integral) and n_alphas >= 1 and 0 < eps < 1):
        raise ValueError(
            f"n_alphas={n_alphas!r} must be an integer of at least 1 and eps={eps!r} "
            "in (0, 1)."
        )
    largest = alpha_max(estimator, X, y, sample_weight)
    if math.isinf(largest):
        raise ValueError(
            f"No strength of penalty={estimator.penalty!r} with exclusivity="
            f"{estimator.exclusivity:g} takes all weights away, so there is no largest "
            "to start from; give the strengths, say numpy.geomspace(1, 1e-3, 10)."
        )
    if largest == 0:
        raise ValueError(
            "Constants predict y as well as any network, so every strength takes all "
            "weights away; give samples whose labels depend on X."
        )
    return np.geomspace(largest, eps * largest, int(n_alphas))


def check_estimator(estimator: Any, caller: str) -> None:
    """Raise a TypeError if a function's `estimator` is no CGESClassifier."""
    if not isinstance(estimator, CGESClassifier):
        raise TypeError(
            f"{caller} takes a CGESClassifier; got {type(estimator).__name__}. Of a "
            "pipeline give the last step, and X as the steps before transform it."
        )


def _parts(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of nested Sequentials with their names, in forward order."""
    if not isinstance(module, nn.Sequential):
        yield name, module
        return
    for key, child in module.named_children():
        yield from _parts(child, f"{name}.{key}".lstrip("."))


def _is_linear(parts: list[tuple[str, nn.Module]]) -> bool:
    layers = [part for _, part in parts if isinstance(part, PENALISED)]
    others = [part for _, part in parts if not isinstance(part, PENALISED)]
    return len(layers) == 1 and all(isinstance(p, LINEAR + POOLING) for p in others)


def _exact(
    module: nn.Module,
    parts: list[tuple[str, nn.Module]],
    regularizer: CGESRegularizer,
    batches: Batches,
) -> float:
    """Return the largest of the groups' gradients at zero weights."""
    (layer,) = (part for _, part in parts if isinstance(part, PENALISED))
    (penalty,) = regularizer.layers_
    weight: Tensor = layer.weight
    with torch.no_grad():
        weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
    total = sum(_weight_sum(batch) for batch in batches.epoch(None))
    for X, y, sample_weight in batches.epoch(None):
        logits = module(X)
        n_outputs = logits.shape[1]
        target = y if y.ndim == 2 else functional.one_hot(y, n_outputs)
        if layer.bias is not None:  # constant logits fit the shares of the classes
            predicted = _shares(batches, n_outputs)
        else:
            predicted = torch.full((n_outputs,), 0.5 if y.ndim == 2 else 1 / n_outputs)
        slopes = predicted - target  # of the losses by the logits
        slopes *= 1.0 if sample_weight is None else sample_weight[:, None]
        logits.backward(slopes.to(logits.dtype) / total)
    assert weight.grad is not None
    norms = weight.grad.abs()
    if regularizer.penalty != "l1":
        norms = torch.linalg.vector_norm(norms, dim=penalty.group_dims)
    return float(norms.max()) / penalty.group


def _bound(
    module: nn.Module,
    parts: list[tuple[str, nn.Module]],
    regularizer: CGESRegularizer,
    batches: Batches,
) -> float:
    """Return the bound that the Notes of `alpha_max` derive."""
    across = regularizer.penalty == "l1" or regularizer.groups == "feature"
    penalties = {layer.name: layer for layer in regularizer.layers_}
    log_ratio = sum(_log_ratio(n, p, penalties, across) for n, p in parts)
    last = max(i for i, (_, part) in enumerate(parts) if isinstance(part, PENALISED))
    _require(parts[last][1].bias is not None, *parts[last], "without a bias at its end")
    for name, part in parts[last + 1 :]:
        _require(isinstance(part, LINEAR + POOLING), name, part, "at its end")
    X, y, _ = next(iter(batches.epoch(None)))
    n_outputs = module(X[:1]).shape[1]
    shares = _shares(batches, n_outputs)
    entropy = float(torch.special.entr(shares).sum())
    slope = math.sqrt(2.0)
    if y.ndim == 2:  # logistic units
        entropy += float(torch.special.entr(1.0 - shares).sum())
        slope = math.sqrt(n_outputs)
    first = next(part for _, part in parts if isinstance(part, PENALISED))
    largest = across and isinstance(first, nn.Linear)
    distance = _mean_distance(batches, math.inf if largest else 2.0)
    if entropy == 0 or distance == 0:  # constants predict y as well
        return 0.0
    n_layers = len(regularizer.layers_)
    log_ratio += math.log(slope * distance / entropy)
    return entropy / n_layers * math.exp(log_ratio / n_layers)


def _log_ratio(
    name: str, part: nn.Module, penalties: dict[str, LayerPenalty], across: bool
) -> float:
    """Return log(kappa / c) of a layer with a penalty; log(kappa) of another."""
    if isinstance(part, PENALISED):
        key, kernel = f"{name}.weight".lstrip("."), 1.0
        _require(key in penalties, name, part, "whose weight is not penalised")
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
            "give the strengths, say numpy.geomspace(1, 1e-3, 10)."
        )


def _weight_sum(batch: Batch) -> float:
    _, y, weight = batch
    return float(len(y)) if weight is None else float(weight.sum())


def _shares(batches: Batches, n_outputs: int) -> Tensor:
    """Return the weighted shares of the classes, or of the ones of each label."""
    counts, total = torch.zeros(n_outputs, dtype=torch.float64), 0.0
    for batch in batches.epoch(None):
        _, y, weight = batch
        weights = torch.ones(len(y)) if weight is None else weight
        if y.ndim == 2:
            counts += weights.double() @ y.double()
        else:
            counts.index_add_(0, y, weights.double())
        total += _weight_sum(batch)
    return counts / total


def _mean_distance(batches: Batches, order: float) -> float:
    """Return the weighted mean distance of the samples to their mean."""
    total = sum(_weight_sum(batch) for batch in batches.epoch(None))
    mean = torch.zeros(())
    for X, _, weight in batches.epoch(None):
        rows = X.flatten(1)
        mean = mean + (rows.sum(0) if weight is None else weight @ rows) / total
    distance = 0.0
    for X, _, weight in batches.epoch(None):
        norms = torch.linalg.vector_norm(X.flatten(1) - mean, order, dim=1)
        distance += float(norms.sum() if weight is None else norms @ weight) / total
    return distance
