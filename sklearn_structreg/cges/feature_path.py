"""The order in which a network's input features die under a rising group penalty."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

from sklearn_structreg.cges.importance import first_layer_norms
from sklearn_structreg.cges.phases import Phases
from sklearn_structreg.cges.regularizer import CGES
from sklearn_structreg.core import StructuredClassifier, StructuredRegressor
from sklearn_structreg.core.estimator import StructuredEstimator
from sklearn_structreg.core.parameters import component, parameter
from sklearn_structreg.core.shared_parameters import NetworkParameters

__all__ = ["FeaturePath", "feature_paths", "rank_features"]

WEAKEST, STRONGEST = 0.01, 10.0
WARM_UP = 0.1  # share of the epochs before the penalty
N_STEPS, FEWEST_EPOCHS = 400, 40
KEPT = 0.5  # share of the features that go on to the next round
FEWEST_FEATURES = 8  # worth a round of their own


@dataclass(frozen=True)
class FeaturePath:
    """The norms of features' weights while a penalty on them rises.

    Parameters
    ----------
    features : ndarray of shape (n_features,)
        The columns of X.
    strengths : ndarray of shape (n_epochs,)
        The strength of the penalty in every epoch.
    norms : ndarray of shape (n_epochs, n_features)
        Norms of the weights that leave each feature, which the network standardizes.
    """

    features: NDArray[np.intp]
    strengths: NDArray[np.float64]
    norms: NDArray[np.float64]

    @property
    def lifetimes(self) -> NDArray[np.float64]:
        """The share of the path at whose end each feature was last alive."""
        alive = self.norms > 0
        n_epochs = np.arange(1, len(alive) + 1)
        lifetimes: NDArray[np.float64] = (alive * n_epochs[:, None]).max(0) / len(alive)
        return lifetimes

    @property
    def order(self) -> NDArray[np.intp]:
        """The features from the last to die to the first; equals by their norms."""
        return self.features[np.lexsort((-self.norms.sum(0), -self.lifetimes))]


def feature_paths(
    estimator: StructuredEstimator,
    X: NDArray[Any],
    y: Any,
    sample_weight: Any,
    seed: int,
) -> list[FeaturePath]:
    """Return the paths of several rounds, each with the better half of the features.

    Every round has a fresh network: one that has learned the noise of features by heart
    cannot find what the others say together.
    """
    paths: list[FeaturePath] = []
    features = np.arange(X.shape[1])
    while not paths or len(features) >= FEWEST_FEATURES:
        n_left = int(KEPT * len(features))
        n_left = n_left if n_left >= FEWEST_FEATURES else 0
        net = _path_network(estimator, X.shape[0], seed, n_left)
        with warnings.catch_warnings():  # that the network ends up empty
            warnings.simplefilter("ignore", ConvergenceWarning)
            net.fit(X[:, features], y, sample_weight)
        rising: Any = net.regularizers_["rising"]
        paths.append(
            FeaturePath(features, np.array(rising.strengths_), np.array(rising.norms_))
        )
        features = np.sort(paths[-1].order[:n_left])
    return paths


def rank_features(
    paths: list[FeaturePath],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the features from the best to the worst, and the score of each."""
    order = paths[0].order
    scores = np.zeros(len(order))
    for number, path in enumerate(paths):
        order = np.concatenate([path.order, order[len(path.order) :]])
        scores[path.features] = number + path.lifetimes
    return order, scores


@component
class RisingGroups(CGES):
    """The group penalty at a strength that grows by the same factor every epoch."""

    n_left: int = parameter(
        0, [Interval(Integral, 0, None, closed="left")], "int", "Features to stop at."
    )

    def attach(self, module: nn.Module, sample: Any) -> nn.Module:
        """Begin the record."""
        self.strengths_: list[float] = []
        self.norms_: list[NDArray[np.float32]] = []
        module = super().attach(module, sample)
        first_layer_norms(module, self.names[0], sample.shape[1:])  # or an error
        return module

    def callbacks(self) -> list[tuple[str, Callback]]:
        """Return the one that lets the strength rise."""
        return [("rise", Rise(self))]


class Rise(Phases):
    """Note the norms of the features in every epoch, until few are left."""

    def strength(self, epoch: int, max_epochs: int) -> float:
        """Return the strength of an epoch."""
        first = WARM_UP * max_epochs
        share = (epoch - first) / (max_epochs - first)
        weakest = WEAKEST / STRONGEST * self.penalty.alpha
        return weakest * (STRONGEST / WEAKEST) ** share if share >= 0 else 0.0

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Note the strength and the norms."""
        rising: Any = self.penalty
        weight = net.module_.get_parameter(rising.names[0]).detach()
        norms = weight.square().sum(dim=0).sqrt().cpu().numpy()
        rising.strengths_.append(rising.strength_)
        rising.norms_.append(norms)
        if np.count_nonzero(norms) <= rising.n_left:
            raise KeyboardInterrupt  # skorch's way to stop


def _path_network(
    estimator: StructuredEstimator, n_rows: int, seed: int, n_left: int
) -> StructuredEstimator:
    """Return a network like the estimator's, under a penalty that rises."""
    shared = {
        each.name: getattr(estimator, each.name) for each in fields(NetworkParameters)
    }
    size = shared["batch_size"]
    n_batches = 1 if size in (None, -1) else math.ceil(n_rows / size)
    rising = RisingGroups(
        STRONGEST, penalty="group", ramp=0.0, refit=0.0, n_left=n_left
    )
    changed = {
        "regularizers": [*(shared["regularizers"] or []), ("rising", rising)],
        "max_epochs": max(FEWEST_EPOCHS, math.ceil(N_STEPS / n_batches)),
        "early_stopping": False,
        "lr_schedule": None,
        "warm_start": False,
        "checkpoint": None,
        "n_members": 1,
        "random_state": seed,
    }
    kind = StructuredRegressor if is_regressor(estimator) else StructuredClassifier
    return kind(**(shared | changed))
