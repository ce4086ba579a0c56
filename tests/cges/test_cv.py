"""Strengths chosen by cross-validation, against loops by hand."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from torch.utils.data import TensorDataset

from sklearn_structreg import (
    CGESClassifier,
    CGESClassifierCV,
    CGESRegressor,
    CGESRegressorCV,
)
from sklearn_structreg.cges import cges_path

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
COMMON = {"hidden_layer_sizes": (12,), "penalty": "group", "optimizer": "adam"}
FAST = {"alphas": [0.1, 3.0], "cv": 2, "max_epochs": 4, "random_state": 0, **COMMON}


@pytest.fixture(scope="module")
def rows(digits):
    X, y = digits
    return X[:200].copy(), y[:200].copy()


@pytest.fixture(scope="module")
def weight():
    return np.random.default_rng(0).integers(0, 3, 200).astype(float)


def path_by_hand(model, alphas, *data):
    """Train along the strengths: every network after the first for half the epochs."""
    fitted = []
    model.set_params(warm_start=True)
    for alpha in alphas:
        model.set_params(alpha=alpha).fit(*data)
        fitted.append(pickle.loads(pickle.dumps(model)))
        model.set_params(max_epochs=3)
    return fitted


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
def test_scores_are_those_of_loops_by_hand(rows, weight, weighted):
    X, y = rows
    weight = weight if weighted else None
    present = np.arange(200) if weight is None else np.flatnonzero(weight)
    alphas, draws = [0.1, 0.5, 3.0], np.random.RandomState(3)
    model = CGESClassifierCV(
        alphas=alphas[::-1], cv=3, max_epochs=6, random_state=3, **COMMON
    ).fit(X, y, weight)
    splits = StratifiedKFold(3).split(X[present], y[present])
    for fold, (train, test) in enumerate(splits):
        train, test = present[train], present[test]
        w_train, w_test = (None if weight is None else weight[r] for r in (train, test))
        by_hand = CGESClassifier(max_epochs=6, random_state=draws, **COMMON)
        path = path_by_hand(by_hand, alphas, X[train], y[train], w_train)
        scores = [each.score(X[test], y[test], w_test) for each in path]
        np.testing.assert_array_equal(model.scores_[fold], scores)
    np.testing.assert_array_equal(model.alphas_, alphas)
    np.testing.assert_allclose(model.mean_scores_, model.scores_.mean(axis=0))
    errors = model.scores_.std(axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(model.standard_errors_, errors)
    assert len(set(model.scores_.ravel())) > 3
