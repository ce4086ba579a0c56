"""The contestants of the suite: our methods, their rivals, and the settings of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    DropClusterClassifier,
    SelfInformedClassifier,
    StructuredClassifier,
)
from sklearn_structreg.baselines import DropBlock, Dropout

__all__ = ["CONTESTANTS", "N_SETTINGS", "Contestant"]

Setting = dict[str, Any]

N_SETTINGS = 4
"""Settings that every tuned contestant chooses from."""


@dataclass(frozen=True)
class Contestant:
    """A way to a classifier.

    Attributes
    ----------
    name : str
        As in the tables of results.
    make : callable
        ``make(**setting, random_state=...)`` returns a classifier.
    grid : sequence of dict
        The settings to choose from on validation rows; none for an untuned contestant.
    default : bool
        Whether it also stands in the tables as it comes.
    on : {"all", "images", "classes"}
        "images" needs images, "classes" at least four classes.
    largest : float
        The most features times classes for which the fits are affordable.
    needs : str or None
        A package that need not be there.
    figures : callable
        Further figures of a fitted classifier.
    is_net : bool
        Whether it takes images as they are, and not as flat rows.
    """

    name: str
    make: Callable[..., BaseEstimator]
    grid: Sequence[Setting] = ()
    default: bool = True
    on: str = "all"
    largest: float = np.inf
    needs: str | None = None
    figures: Callable[[Any], dict[str, float]] = lambda model: {}
    is_net: bool = True

    @property
    def is_missing(self) -> bool:
        """Whether the package that it needs is not installed."""
        return self.needs is not None and find_spec(self.needs) is None

    def applies_to(self, X: np.ndarray, y: np.ndarray) -> bool:
        """Return whether it can run on these training rows."""
        n_classes = len(np.unique(y))
        if self.is_missing or np.prod(X.shape[1:]) * n_classes > self.largest:
            return False
        return {"all": True, "images": X.ndim > 2, "classes": n_classes >= 4}[self.on]


def grid(name: str, *values: Any, **fixed: Any) -> list[Setting]:
    """Return settings that differ in one parameter."""
    return [{name: value, **fixed} for value in values]


def regularized(kind: type) -> Callable[..., BaseEstimator]:
    """Return a factory of the plain net with a regularizer of one rate."""

    def make(drop_rate: float, **params: Any) -> BaseEstimator:
        return StructuredClassifier(regularizers=[kind(drop_rate)], **params)

    return make


def scaled(kind: type, **fixed: Any) -> Callable[..., BaseEstimator]:
    """Return a factory of a scikit-learn classifier after a StandardScaler."""

    def make(**params: Any) -> BaseEstimator:
        return make_pipeline(StandardScaler(), kind(**fixed, **params))

    return make


def l1_regression(**params: Any) -> BaseEstimator:
    model = LogisticRegression(l1_ratio=1, solver="liblinear", **params)
    return make_pipeline(StandardScaler(), OneVsRestClassifier(model))


def realmlp(**params: Any) -> BaseEstimator:
    """Return the tuned defaults of Holzmueller et al. 2024, without their chatter."""
    from pytabkit import RealMLP_TD_S_Classifier

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    return RealMLP_TD_S_Classifier(device="cpu", n_threads=1, **params)


def sparse_figures(model: Any) -> dict[str, float]:
    """Return shares of zero weights and of the inputs that are read."""
    read = np.mean(model.feature_importances_ > 0)
    return {"zeros": float(model.sparsity_), "reads": float(read)}


def blockout_figures(model: Any) -> dict[str, float]:
    """Return the mean distance of the probabilities from where they began."""
    moved = [np.abs(p - model.init_probability) for p in model.cluster_probabilities_]
    return {"moved": float(np.mean(np.concatenate([p.ravel() for p in moved])))}


def dropcluster_figures(model: Any) -> dict[str, float]:
    """Return whether clusters were dropped before the training ended."""
    return {"began": float(bool(model.regularizers_["dropcluster"].updated_))}


def heads_figures(model: Any) -> dict[str, float]:
    """Return the heads' multiply-adds by those of the network without them."""
    cost = model.multiply_adds_
    return {"heads": cost.augmented / cost.base - 1}


ALPHAS, GROUP_ALPHAS = (0.3, 1, 2, 3), (0.1, 0.3, 0.5, 1)
RATES = (0.1, 0.2, 0.35, 0.5)
PLAIN = "plain net"
FLAT = {"is_net": False}

CONTESTANTS = [
    Contestant(
        PLAIN,
        StructuredClassifier,
        [
            {},
            {"lr_schedule": "cosine"},
            {"optimizer": "adam"},
            {"optimizer": "adam", "lr_schedule": "cosine"},
        ],
    ),
    Contestant(
        "plain net, 2 x epochs", lambda **p: StructuredClassifier(max_epochs=200, **p)
    ),
    Contestant("CGES", CGESClassifier, grid("alpha", *ALPHAS), figures=sparse_figures),
    Contestant(
        "CGES, group",
        lambda **p: CGESClassifier(penalty="group", **p),
        grid("alpha", *GROUP_ALPHAS),
        figures=sparse_figures,
    ),
    Contestant(
        "Blockout",
        BlockoutClassifier,
        [{}, {"block_penalty": 0.1}, {"assignment": "soft"}, {"n_clusters": 2}],
        figures=blockout_figures,
    ),
    Contestant(
        "DropCluster",
        DropClusterClassifier,
        grid("drop_rate", *RATES),
        on="images",
        figures=dropcluster_figures,
    ),
    Contestant(
        "Self-informed",
        SelfInformedClassifier,
        [{}, {"head_layer_sizes": (64,)}, {"fine_tune": True}, {"budget": 0.3}],
        on="classes",
        figures=heads_figures,
    ),
    Contestant(
        "one wide head",
        lambda **p: SelfInformedClassifier(n_clusters=1, cv=None, **p),
        on="classes",
        figures=heads_figures,
    ),
    Contestant(
        "weight decay",
        StructuredClassifier,
        grid("weight_decay", 1e-4, 1e-3, 1e-2, 1e-1),
        default=False,
    ),
    Contestant(
        "Dropout", regularized(Dropout), grid("drop_rate", *RATES), default=False
    ),
    Contestant(
        "DropBlock",
        regularized(DropBlock),
        grid("drop_rate", *RATES),
        default=False,
        on="images",
    ),
    Contestant(
        "MLPClassifier", scaled(MLPClassifier), grid("alpha", 1e-4, 1e-2, 1, 10), **FLAT
    ),
    Contestant(
        "HistGradientBoosting",
        HistGradientBoostingClassifier,
        [{}, {"max_leaf_nodes": 8}, {"learning_rate": 0.05}, {"max_features": 0.3}],
        largest=7_000,
        **FLAT,
    ),
    Contestant(
        "RandomForest",
        RandomForestClassifier,
        [{}, {"max_features": 0.2}, {"min_samples_leaf": 3}, {"n_estimators": 300}],
        **FLAT,
    ),
    Contestant(
        "L1 logistic regression", l1_regression, grid("C", 0.03, 0.1, 1, 10), **FLAT
    ),
    Contestant(
        "L2 logistic regression",
        scaled(LogisticRegression, max_iter=1_000),
        grid("C", 1e-3, 1e-2, 1e-1, 1),
        **FLAT,
    ),
    Contestant("RealMLP-TD-S", realmlp, needs="pytabkit", **FLAT),
]
