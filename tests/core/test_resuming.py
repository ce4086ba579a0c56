"""Training that goes on or stops: warm starts, streams, early stopping."""

import copy
import os
import signal

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from skorch.callbacks import Callback
from torch import nn

from sklearn_structreg.core import StructuredClassifier

FAST = {"max_epochs": 3, "random_state": 0}


def weights(estimator):
    return torch.cat([p.detach().flatten() for p in estimator.module_.parameters()])


# ---- going on ------------------------------------------------------------------


def test_warm_start_goes_on_from_the_last_weights(digits):
    X, y = digits
    model = StructuredClassifier(warm_start=True, **FAST).fit(X, y)
    loss = model.history_[-1, "train_loss"]
    model.fit(X, y)
    assert model.n_iter_ == len(model.history_) == 6
    assert model.history_[3, "train_loss"] < loss
    fresh = StructuredClassifier(**FAST).fit(X, y)
    assert fresh.fit(X, y).n_iter_ == 3


def test_warm_start_refuses_new_classes_and_keeps_the_fit(blobs):
    X, y = blobs
    model = StructuredClassifier(warm_start=True, **FAST).fit(X, y)
    with pytest.raises(ValueError, match=r"labels \[3\] that are not among"):
        model.fit(X, y + 1)
    with pytest.raises(ValueError, match="requires y to be passed"):
        model.fit(X)
    assert model.fit(X[y < 2], y[y < 2]).predict_proba(X).shape == (90, 3)


def test_a_warm_start_that_diverges_keeps_the_last_fit(blobs):
    X, y = blobs
    model = StructuredClassifier(warm_start=True, **FAST).fit(X, y)
    before = model.predict_proba(X)
    model.set_params(learning_rate=1e20)
    with pytest.raises(ValueError, match="non-finite"):
        model.fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_a_new_fit_that_fails_leaves_the_last_one_as_it_was(blobs):
    X, y = blobs
    model = StructuredClassifier(**FAST).fit(X, y)
    before, state = model.predict_proba(X), set(vars(model))
    with pytest.raises(ValueError, match="non-finite"):
        model.set_params(learning_rate=1e20).fit(X[:, :2], y == 1)
    with pytest.raises(ValueError, match="contains NaN"):
        model.fit(np.full((4, 2), np.nan), [0, 1, 0, 1])
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert set(vars(model)) == state
    model.set_params(learning_rate=0.05).partial_fit(X, y)
    assert model.n_iter_ == 4


@pytest.mark.parametrize("optimizer", [torch.optim.NAdam, torch.optim.SGD])
def test_a_stream_goes_on_as_if_a_failed_step_had_not_been(blobs, optimizer):
    X, y = blobs
    model = StructuredClassifier(optimizer=optimizer, dtype="float64", random_state=0)
    for _ in range(3):
        model.partial_fit(X, y, classes=[0, 1, 2])
    other = copy.deepcopy(model)
    with pytest.raises(ValueError, match="non-finite"):
        other.set_params(learning_rate=1e200).partial_fit(X, y)
    other.set_params(learning_rate="auto")
    for each in (model, other):
        each.partial_fit(X, y).partial_fit(X, y)
    np.testing.assert_array_equal(
        other.decision_function(X), model.decision_function(X)
    )


@pytest.mark.parametrize(
    "changed",
    [{"hidden_layer_sizes": (7,)}, {"module": nn.Linear(4, 3)}, {"module_params": {}}],
)
def test_a_network_that_trains_on_keeps_its_structure(blobs, changed):
    X, y = blobs
    model = StructuredClassifier(warm_start=True, **FAST).fit(X, y)
    name = next(iter(changed))
    for method in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=f"{name} cannot change from"):
            model.set_params(**changed) and method(X, y)
    model.set_params(warm_start=False, max_epochs=50).fit(X, y)
    assert model.n_iter_ == 50


def test_partial_fit_takes_up_changed_parameters_and_keeps_the_momentum(digits):
    X, y = digits
    model = StructuredClassifier(random_state=0).partial_fit(X, y, classes=range(10))
    net = model.net_
    model.partial_fit(X, y)
    assert model.net_ is net
    by_hand = copy.deepcopy(model)
    for group in by_hand.net_.optimizer_.param_groups:
        group["lr"] = 1e-3
    by_hand.partial_fit(X, y)
    model.set_params(learning_rate=1e-3).partial_fit(X, y)
    assert model.net_.optimizer_.param_groups[0]["lr"] == 1e-3
    np.testing.assert_array_equal(
        model.decision_function(X), by_hand.decision_function(X)
    )
    model.set_params(optimizer="adam").partial_fit(X, y)
    assert isinstance(model.net_.optimizer_, torch.optim.Adam)
    assert model.n_iter_ == 4


def test_precision_may_change_between_calls(digits):
    X, y = digits
    model = StructuredClassifier(**FAST).fit(X, y)
    model.set_params(dtype="float64").partial_fit(X, y)
    assert model.module_[0].weight.dtype == torch.float64
    assert model.predict(X).shape == y.shape


def test_partial_fit_learns_from_a_stream(digits):
    X, y = digits
    model = StructuredClassifier(random_state=0)
    for _ in range(5):
        for rows in np.array_split(np.arange(len(X)), 10):
            model.partial_fit(X[rows], y[rows], classes=np.arange(10))
    assert model.score(X, y) > 0.9
    assert model.n_iter_ == 50
    model.partial_fit(X[:1], y[:1])


def test_partial_fit_equals_fit_epoch_by_epoch(digits):
    X, y = digits
    whole = StructuredClassifier(**FAST).fit(X, y)
    steps = StructuredClassifier(random_state=0)
    for _ in range(3):
        steps.partial_fit(X, y, classes=np.arange(10))
    assert torch.equal(weights(whole), weights(steps))


def test_partial_fit_after_a_schedule_goes_on_at_the_learning_rate(digits):
    X, y = digits
    model = StructuredClassifier(lr_schedule="cosine", **FAST).fit(X, y)
    before = weights(model)
    model.partial_fit(X, y)
    assert model.net_.optimizer_.param_groups[0]["lr"] == 0.05
    assert not torch.equal(weights(model), before)


# ---- breaking off --------------------------------------------------------------


class Interrupting(Callback):
    """Presses Ctrl-C in the middle of an epoch."""

    def on_batch_end(self, net, training=True, **kwargs):
        if len(net.history) >= 3 and len(net.history[-1, "batches"]) == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_ends_a_fit_and_keeps_the_last_one(digits):
    X, y = digits
    model = StructuredClassifier(**FAST).fit(X, y)
    before = model.predict_proba(X)
    model.set_params(callbacks=[Interrupting()])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(warm_start=True).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert model.n_iter_ == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_ends_a_search(digits):
    fits = []

    class Counting(Interrupting):
        def on_train_begin(self, net, **kwargs):
            fits.append(net)

    model = StructuredClassifier(callbacks=[Counting()], **FAST)
    search = GridSearchCV(model, {"momentum": [0.5, 0.9]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        search.fit(*digits)
    assert len(fits) == 1


# ---- early stopping ------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Early stopping found no epoch better")
def test_early_stopping_brings_the_best_weights_back():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 20)), rng.integers(0, 2, 60)  # only noise: overfits
    model = StructuredClassifier(
        early_stopping=True,
        validation_fraction=0.5,
        n_iter_no_change=5,
        max_epochs=200,
        random_state=0,
        hidden_layer_sizes=(50,),
    ).fit(X, y)
    losses = model.history_[:, "valid_loss"]
    best = int(np.argmin(losses))
    assert best < model.n_iter_ - 1 < 199
    _, X_valid, _, y_valid = train_test_split(
        X, y, test_size=30, random_state=model.net_.seed, stratify=y
    )
    assert log_loss(y_valid, model.predict_proba(X_valid)) == pytest.approx(
        losses[best], rel=1e-5
    )


def test_early_stopping_holds_out_nothing_by_default(blobs):
    assert "valid_loss" not in StructuredClassifier(**FAST).fit(*blobs).history_[-1]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_early_stopping_where_classes_are_too_small_to_stratify():
    X, y = np.random.default_rng(0).normal(size=(12, 3)), np.array([0] * 11 + [1])
    model = StructuredClassifier(early_stopping=True, max_epochs=2).fit(X, y)
    assert "valid_loss" in model.history_[-1]
