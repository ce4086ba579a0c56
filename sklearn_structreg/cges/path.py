"""Networks along a range of strengths, each trained on from the one before."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from sklearn_structreg.cges.estimator import SparseEstimator, check_estimator
from sklearn_structreg.cges.targets import target_of
from sklearn_structreg.compaction.counting import count_layers
from sklearn_structreg.core import count_multiply_adds
from sklearn_structreg.core.convergence import noted
from sklearn_structreg.core.messages import explaining, shown

__all__ = ["CGESPath", "cges_path"]

FRESH_OPTIMIZER = (
    " Or fit this strength alone: along a path every optimizer is fresh, and its first "
    "long steps may empty the network."
)


@dataclass(frozen=True)
class CGESPath:
    """Scores and sizes along a path of strengths.

    Parameters
    ----------
    alphas : ndarray of shape (n_alphas,)
        The strengths, in increasing order.
    scores : ndarray of shape (n_alphas,)
        On the test samples: accuracy, or R^2 of regressors.
    parameters : ndarray of shape (n_alphas,)
        Share of the network's parameters that are not zero, biases included.
    multiply_adds : ndarray of shape (n_alphas,)
        Share of the network's multiply-adds whose weight is not zero; matrix products
        outside of linear and convolutional layers are all counted in.
    sparsity : ndarray of shape (n_alphas,)
        Share of zeros among the penalised weights.
    estimators : list of CGESClassifier or CGESRegressor
        Fitted, one per strength.

    See Also
    --------
    TradeOffDisplay.from_paths : Draws it.
    """

    alphas: NDArray[np.float64]
    scores: NDArray[np.float64]
    parameters: NDArray[np.float64]
    multiply_adds: NDArray[np.float64]
    sparsity: NDArray[np.float64]
    estimators: list[Any]


def cges_path(
    estimator: SparseEstimator,
    X: ArrayLike,
    y: ArrayLike,
    X_test: ArrayLike,
    y_test: ArrayLike,
    *,
    alphas: ArrayLike,
    order: str = "increasing",
    sample_weight: ArrayLike | None = None,
) -> CGESPath:
    """Train one network after the other along a range of strengths.

    Parameters
    ----------
    estimator : CGESClassifier or CGESRegressor
        Trained for `max_epochs` at every strength. It is cloned, not fitted.
    X, y : as in the estimator's `fit`
        Training samples and targets.
    X_test, y_test : as in the estimator's `score`
        Samples and targets for the scores.
    alphas : array-like of shape (n_alphas,)
        Strengths, at least 0, in any order.
    order : {"increasing", "decreasing"}, default="increasing"
        From weak to strong, or from strong to weak. A network that a strong penalty has
        emptied hardly comes back: with all weights zero there is no gradient but the
        noise of mini-batches.
    sample_weight : array-like of shape (n_samples,) or None, default=None
        As in `fit`.

    Returns
    -------
    CGESPath
        In increasing order of the strengths.

    Raises
    ------
    ValueError
        If a strength is negative or not finite, if `order` is unknown, or if the
        estimator has a `checkpoint`, which is for a single fit, or a size as target.
    TypeError
        If `estimator` is another one, such as a pipeline.

    Warns
    -----
    ConvergenceWarning
        Once, of the first strength at which a network has learned nothing. Where it is
        empty, that may be the path: every strength has a fresh optimizer, whose first
        steps are long where gradients are small, as Adam's are after a good fit.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn_structreg import CGESClassifier
    >>> from sklearn_structreg.cges import cges_path
    >>> X, y = load_wine(return_X_y=True)
    >>> net = CGESClassifier(penalty="group", max_epochs=20, random_state=0)
    >>> path = cges_path(net, X[::2], y[::2], X[1::2], y[1::2], alphas=[0, 0.1, 0.5])
    >>> bool((path.parameters[1:] < path.parameters[:-1]).all())
    True
    """
    check_estimator(estimator, "cges_path")
    if estimator.checkpoint is not None:
        raise ValueError(
            "cges_path trains one network per strength, but a checkpoint is for a "
            "single fit; set checkpoint=None."
        )
    if target := target_of(estimator):
        raise ValueError(
            f"cges_path leaves the size to the strength; set {target[0]}=None."
        )
    strengths = check_strengths(alphas)
    if order not in ("increasing", "decreasing"):
        raise ValueError(f"order={order!r} must be 'increasing' or 'decreasing'.")
    model = clone(estimator).set_params(warm_start=True)
    fitted: list[Any] = []
    scores = []
    ordered = strengths if order == "increasing" else strengths[::-1]
    failure = None
    with noted() as problems:
        for each in train_along(model, ordered, lambda m: m.fit(X, y, sample_weight)):
            if problems and failure is None:
                failure = f"At alpha={each.alpha:g}: {problems[0]}"
                shares = each.history_[-1, "layer_sparsity"].values()
                if fitted and max(shares) == 1.0:
                    failure += FRESH_OPTIMIZER
            scores.append(each.score(X_test, y_test))
            fitted.append(each)
    if failure is not None:
        warnings.warn(failure, ConvergenceWarning, stacklevel=2)
    if order == "decreasing":
        fitted.reverse()
        scores.reverse()
    return CGESPath(
        alphas=strengths,
        scores=np.array(scores),
        parameters=np.array(
            [m.n_nonzero_parameters_ / m.n_parameters_ for m in fitted]
        ),
        multiply_adds=np.array([_share_of_multiply_adds(m) for m in fitted]),
        sparsity=np.array([m.sparsity_ for m in fitted]),
        estimators=fitted,
    )


def check_strengths(alphas: ArrayLike) -> NDArray[np.float64]:
    """Return strengths in increasing order."""
    with explaining(f"alphas={shown(alphas)} must hold numbers: {{}}."):
        strengths = np.sort(np.asarray(alphas, dtype=np.float64).ravel())
    if not (strengths.size and np.isfinite(strengths).all() and strengths[0] >= 0):
        raise ValueError(
            f"alphas={alphas!r} must hold one strength or more, finite and at least 0."
        )
    return strengths


def train_along(
    model: Any, strengths: NDArray[np.float64], train: Callable[[Any], Any]
) -> Iterator[Any]:
    """Train a model at one strength after the other, and yield each as it is then."""
    model = copy.copy(model)
    for alpha in strengths:
        train(model.set_params(alpha=float(alpha)))
        yield copy.copy(model)  # the next training is of a copy of the network


def _share_of_multiply_adds(model: SparseEstimator) -> float:
    """Return the share of multiply-adds whose weight is not zero."""
    module = model.simplified_module()
    parameter = next(module.parameters())
    sample = torch.zeros(
        (1, *model.input_shape_), dtype=parameter.dtype, device=parameter.device
    )
    flops = 2 * count_multiply_adds(module, sample)
    layers = count_layers(module, sample).values()
    return 1.0 - sum(layer.flops - layer.nonzero_flops for layer in layers) / flops
