"""Networks of one shape trained in one: each as it would be alone."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    CGESRegressor,
    DropClusterClassifier,
    StructuredClassifier,
)
from sklearn_structreg.baselines import L2SP, DropBlock, Dropout, SpatialDropout
from sklearn_structreg.blockout import Blockout
from sklearn_structreg.cges import CGES, IterativePruning
from sklearn_structreg.core import Regularizer, Training
from sklearn_structreg.core import together as together_module
from sklearn_structreg.core.stacking import groups_of
from sklearn_structreg.core.together import Fit, fit_together

HOW = {"dtype": "float64", "random_state": 0, "max_epochs": 5, "batch_size": 100}
IMAGES = {**HOW, "image_shape": (8, 8), "max_epochs": 2}
NORM = nn.Sequential(
    nn.Linear(64, 20), nn.BatchNorm1d(20), nn.Tanh(), nn.Dropout(0.3), nn.Linear(20, 10)
)
MAPS = nn.Sequential(
    *(nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(6, 6, 2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 10)),
)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:300], y[:300]


@pytest.fixture
def sizes(monkeypatch):
    """The sizes of the groups of the last call."""
    found = []

    def noted(jobs):
        groups = groups_of(jobs)
        found[:] = [len(group) for group in groups]
        return groups

    monkeypatch.setattr(together_module, "groups_of", noted)
    return found


def nets(estimator, **grid):
    (name, values), *_ = grid.items()
    return [clone(estimator).set_params(**{name: value}) for value in values]


def with_each(regularizers):
    return [StructuredClassifier(regularizers=[each], **HOW) for each in regularizers]


CGES_NET = CGESClassifier(**HOW)
CASES = {
    "rates": nets(StructuredClassifier(**HOW), learning_rate=[0.01, 0.05, 0.1]),
    "momentum": nets(StructuredClassifier(**HOW), momentum=[0.0, 0.5, 0.9]),
    "decay": nets(CGESClassifier(**HOW), weight_decay=[0.0, 0.01, 0.1]),
    "adagrad": nets(
        StructuredClassifier(optimizer=torch.optim.Adagrad, **HOW),
        learning_rate=[0.01, 0.03, 0.1],
    ),
    **{
        f"cges, {penalty}, {optimizer}": nets(
            CGESClassifier(
                penalty=penalty, optimizer=optimizer, lr_schedule="cosine", **HOW
            ),
            alpha=[0.0, 0.3, 1.0, 3.0],
        )
        for penalty, optimizer in (
            *(("cges", "adam"), ("cges", "sgd"), ("group", "adamw")),
            *(("exclusive", "sgd"), ("l1", "adam"), ("l2", "adam")),
        )
    },
    "ramps": nets(CGES_NET, ramp=[0.0, 0.3, 0.6]),
    "dropout": with_each([Dropout(0.1), Dropout(0.3), Dropout(0.5)]),
    "on inputs": with_each([Dropout(p, layers="input") for p in (0.1, 0.2, 0.3)]),
    "l2sp": with_each([L2SP(0.1), L2SP(0.3), L2SP(1.0, how="proximal")]),
    "batch norm": nets(
        CGESClassifier(NORM, standardize=True, **HOW), alpha=[0.1, 1, 2]
    ),
    "pruning": with_each([IterativePruning(p) for p in (0.5, 0.3, 0.2)]),
    "maps": nets(CGESClassifier(MAPS, **IMAGES), alpha=[0.1, 1.0, 3.0]),
    "several": [
        StructuredClassifier(
            regularizers=[SpatialDropout(p), DropBlock(p), CGES(p)], **IMAGES
        )
        for p in (0.1, 0.2, 0.3)
    ],
    "dropcluster": nets(DropClusterClassifier(**IMAGES), drop_rate=[0.1, 0.2, 0.3]),
    **{
        f"blockout, {name}": nets(BlockoutClassifier(**{**HOW, **how}), **grid)
        for name, how, grid in (
            ("rates", {}, {"logit_rate_factor": [1.0, 10.0, 100.0]}),
            ("paper", {"gradient": "paper"}, {"init_probability": [0.5, 0.7, 0.9]}),
            ("prices", {"optimizer": "adam"}, {"block_penalty": [0.0, 0.3, 1.0]}),
            ("soft", {"assignment": "soft"}, {"random_state": [0, 1, 2]}),
            (
                "deep",
                {"hidden_layer_sizes": (9, 8)},
                {"learning_rate": [0.01, 0.03, 0.1]},
            ),
        )
    },
    "blockout with others": [
        StructuredClassifier(
            regularizers=[Blockout(3), IterativePruning(p), CGES(p), Dropout(p)],
            early_stopping=True,
            **HOW,
        )
        for p in (0.5, 0.3, 0.2)
    ],
    "seeds": nets(CGESClassifier(MAPS, **IMAGES), random_state=[0, 1, 2]),
    "criterion": nets(
        CGESClassifier(criterion=nn.CrossEntropyLoss(label_smoothing=0.1), **HOW),
        alpha=[0.1, 1.0, 3.0],
    ),
}


def check(estimators, X, y, **metadata):
    alone = [clone(each).fit(X, y, **metadata) for each in estimators]
    fits = [Fit(clone(each), X, y, metadata) for each in estimators]
    fit_together(fits)
    for one, fit in zip(alone, fits, strict=True):
        assert fit.error is None
        other = fit.estimator
        assert one.n_iter_ == other.n_iter_
        expected, found = one.module_.state_dict(), other.module_.state_dict()
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-8, atol=1e-10)
        for key in ("train_loss", "valid_loss"):
            if key in one.history_[-1]:
                losses = (each.history_[:, key] for each in (one, other))
                np.testing.assert_allclose(*losses, rtol=1e-8)
        np.testing.assert_allclose(other.predict_proba(X), one.predict_proba(X))
    return alone


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", CASES)
def test_members_are_as_alone(digits, sizes, name):
    estimators = CASES[name]
    check(estimators, *digits)
    assert sizes == [len(estimators)]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_members_stop_early_each_at_its_own_epoch(digits, sizes):
    how = {**HOW, "max_epochs": 25}
    net = StructuredClassifier(early_stopping=True, n_iter_no_change=1, **how)
    alone = check(nets(net, learning_rate=[0.01, 0.1, 0.3, 0.5]), *digits)
    assert sizes == [4]
    assert len({each.n_iter_ for each in alone}) > 2


def test_weights_of_samples(digits, sizes):
    weight = np.random.default_rng(0).integers(0, 3, len(digits[1]))
    check(nets(CGES_NET, alpha=[0.1, 1.0, 2.0]), *digits, sample_weight=weight)
    assert sizes == [3]


def test_numbers_as_targets(digits, sizes):
    X, y = digits
    estimators = nets(CGESRegressor(**HOW), alpha=[0.1, 0.3, 1.0])
    fits = [Fit(clone(each), X, y / 3) for each in estimators]
    fit_together(fits)
    for fit, each in zip(fits, estimators, strict=True):
        expected = each.fit(X, y / 3).predict(X)
        np.testing.assert_allclose(fit.estimator.predict(X), expected, rtol=1e-8)
    assert sizes == [3]


def test_a_member_that_fails_touches_no_other(digits, sizes):
    rates = [0.01, 1e300, 0.1]
    fits = [Fit(each, *digits) for each in nets(CASES["rates"][0], learning_rate=rates)]
    fit_together(fits)
    assert sizes == [3]
    assert "lower learning_rate" in str(fits[1].error)
    assert not hasattr(fits[1].estimator, "net_")
    check([CASES["rates"][0]] * 3, *digits)


class Cutting(Regularizer):
    """Replaces a layer while it trains."""

    can_stack = False


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "estimators",
    [
        nets(
            StructuredClassifier(regularizers=[Cutting()], **HOW),
            momentum=[0, 0.5, 0.9],
        ),
        nets(
            StructuredClassifier(training=Training(average_weights=0.9), **HOW),
            momentum=[0.0, 0.5, 0.9],
        ),
        nets(BlockoutClassifier(mask_per="sample", **HOW), random_state=[0, 1, 2]),
        nets(StructuredClassifier(**HOW), hidden_layer_sizes=[(10,), (20,), (30,)]),
        nets(StructuredClassifier(**HOW), batch_size=[50, 100, 150]),
        nets(StructuredClassifier(**HOW), learning_rate=[0.01, 0.1]),
    ],
    ids=["cutting", "averages", "blockout", "shapes", "batches", "few"],
)
def test_others_are_trained_alone(digits, sizes, estimators):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check(estimators, *digits)
    assert set(sizes) <= {1}
