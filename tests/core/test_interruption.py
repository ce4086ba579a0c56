"""Trainings that break off: Ctrl-C, errors of callbacks, errors of the machine."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from sklearn_structreg import (
    BlockoutClassifier,
    BlockoutRegressor,
    CGESClassifier,
    CGESRegressor,
    DropClusterClassifier,
    DropClusterRegressor,
    SelfInformedClassifier,
)
from sklearn_structreg.core import StructuredClassifier, StructuredRegressor, make_mlp

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
FAST = {"max_epochs": 3, "batch_size": 30, "random_state": 0}
HEADS = {"n_clusters": 2, "head_layer_sizes": (4,), "fine_tune": True, "n_rounds": 2}
HEADS |= {"head_epochs": 1.0}
ESTIMATORS = [
    *(StructuredClassifier, StructuredRegressor, CGESClassifier, CGESRegressor),
    *(BlockoutClassifier, BlockoutRegressor),
    *(DropClusterClassifier, DropClusterRegressor, SelfInformedClassifier),
]
HOOKS = ["on_train_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end"]


class Acting(Callback):
    """Acts at the n-th call of a hook, and counts the calls."""

    def __init__(self, hook, at, act):
        self.n_calls_ = 0

        def called(net, **kwargs):
            self.n_calls_ += 1
            if self.n_calls_ == at:
                act()

        setattr(self, hook, called)

    def on_batch_end(self, net, **kwargs):
        """Listen to batches, whatever the hook."""

    def initialize(self):
        return self

    def get_params(self, deep=True):
        return {}

    def __sklearn_clone__(self):
        return self


def press():
    signal.raise_signal(signal.SIGINT)


def raiser(error):
    def act():
        raise error

    return act


def make(kind, **params):
    more = HEADS if kind is SelfInformedClassifier else {}
    return kind(**(FAST | more | params))


def assert_nothing_is_left_behind(model, before, X, state):
    np.testing.assert_array_equal(model.predict(X), before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert torch.equal(torch.get_rng_state(), state)


# ---- errors --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_callback_that_raises_leaves_the_last_fit(kind, blobs):
    X, y = blobs
    model, state = make(kind).fit(X, y), torch.get_rng_state()
    before, fitted = model.predict(X), set(vars(model))
    errors = [MemoryError("full"), RuntimeError("broken"), OSError(), SystemExit()]
    for hook, error in zip(HOOKS, errors, strict=True):
        for at in (1, 2) if hook != "on_train_begin" else (1,):
            callbacks = [Acting(hook, at, raiser(error))]
            with pytest.raises(type(error)):
                model.set_params(callbacks=callbacks).fit(X, y)
            assert_nothing_is_left_behind(model, before, X, state)
            assert set(vars(model)) == fitted
            fresh = make(kind, callbacks=callbacks)
            callbacks[0].n_calls_ = 0
            with pytest.raises(type(error)):
                fresh.fit(X, y)
            with pytest.raises(NotFittedError):
                fresh.predict(X)
    model.set_params(callbacks=None).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), before)


def test_a_callback_that_raises_leaves_a_partial_fit(blobs):
    X, y = blobs
    model = StructuredClassifier(**FAST).fit(X, y)
    before, state = model.predict_proba(X), torch.get_rng_state()
    for act, error in (
        (raiser(MemoryError()), MemoryError),
        (press, KeyboardInterrupt),
    ):
        model.set_params(callbacks=[Acting("on_batch_end", 2, act)])
        with pytest.raises(error):
            model.partial_fit(X, y)
        np.testing.assert_array_equal(model.predict_proba(X), before)
        assert model.n_iter_ == 3
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", [BlockoutClassifier, BlockoutRegressor])
def test_weights_that_are_no_numbers_are_a_rate_too_high(kind, blobs):
    with pytest.raises(ValueError, match="non-finite in epoch .*lower learning_rate"):
        make(kind, learning_rate=1e18).fit(*blobs)


# ---- Ctrl-C --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_ctrl_c_stops_after_the_step_in_every_stage(kind, blobs):
    X, y = blobs
    counting = Acting("on_batch_end", -1, press)
    model = make(kind, callbacks=[counting]).fit(X, y)
    before, state = model.predict(X), torch.get_rng_state()
    total = counting.n_calls_
    assert total >= (36 if kind is SelfInformedClassifier else 9)
    for at in np.unique(np.linspace(1, total, 9, dtype=int)):
        pressing = Acting("on_batch_end", at, press)
        with pytest.raises(KeyboardInterrupt):
            model.set_params(callbacks=[pressing]).fit(X, y)
        assert at <= pressing.n_calls_ <= at + 1
        assert_nothing_is_left_behind(model, before, X, state)


class Watched(nn.Sequential):
    """Presses Ctrl-C in the n-th of its forward passes in evaluation mode."""

    at, n_passes = -1, 0

    def __init__(self):
        super().__init__(*make_mlp(4, 3))

    def forward(self, x):
        if not self.training:
            type(self).n_passes += 1
            if self.at == self.n_passes:
                press()
        return super().forward(x)


def test_ctrl_c_stops_scoring_and_checks(blobs, monkeypatch):
    X, y = blobs
    model = make(SelfInformedClassifier, module=Watched).fit(X, y)
    before, state, total = model.predict(X), torch.get_rng_state(), Watched.n_passes
    for at in range(1, total, 3):
        monkeypatch.setattr(Watched, "n_passes", 0)
        monkeypatch.setattr(Watched, "at", at)
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
        assert Watched.n_passes == at
        monkeypatch.setattr(Watched, "at", -1)
        assert_nothing_is_left_behind(model, before, X, state)


def test_ctrl_c_stops_the_training_of_a_skorch_net(blobs):
    X, y = blobs
    pressing = Acting("on_batch_end", 5, press)
    net = NeuralNetClassifier(
        make_mlp(4, 3).double(),
        criterion=nn.CrossEntropyLoss,
        batch_size=10,
        callbacks=[("pressing", pressing)],
        train_split=None,
        verbose=0,
    )
    with pytest.raises(KeyboardInterrupt):
        make(SelfInformedClassifier, estimator=net).fit(X, y)
    assert pressing.n_calls_ == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_is_no_signal_of_ours_stops_too(blobs):
    class Broken(torch.utils.data.TensorDataset):
        n_reads = 0

        def __getitem__(self, row):
            Broken.n_reads += 1
            if Broken.n_reads == 500:
                raise KeyboardInterrupt
            return super().__getitem__(row)

    data = Broken(torch.tensor(blobs[0]), torch.tensor(blobs[1]))
    model = StructuredClassifier(max_epochs=10, standardize=False)
    with pytest.raises(KeyboardInterrupt):
        model.fit(data)
    assert Broken.n_reads == 500


def test_a_callback_may_stop_the_training(blobs):
    callback = Acting("on_epoch_end", 2, raiser(KeyboardInterrupt()))
    model = StructuredClassifier(callbacks=[callback], **FAST).fit(*blobs)
    assert model.n_iter_ == 2


def test_searches_stop(blobs):
    pressing = Acting("on_batch_end", 4, press)
    model = StructuredClassifier(callbacks=[pressing], verbose=1, **FAST)
    with pytest.raises(KeyboardInterrupt):
        cross_val_score(model, *blobs)
    assert pressing.n_calls_ <= 5


SESSION = """
import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from sklearn_structreg import CGESClassifier, SelfInformedClassifier
class Telling(Callback):
    def on_batch_end(self, net, **kwargs):
        print("step", len(net.history), flush=True)

X, y = np.random.default_rng(0).normal(size=(90, 4)), np.arange(90) % 3
params = dict(verbose=1, max_epochs=10**6, batch_size=30, random_state=0)
params |= dict(alpha=0.1, ramp=0, refit=0)
model = CGESClassifier(callbacks=[Telling()], **params)
quiet = CGESClassifier(callbacks=[Telling()], **(params | {"verbose": 0}))
heads = SelfInformedClassifier(clone(model), n_clusters=2, max_epochs=2)
def in_function(): model.fit(X, y); print("went on")

"""
CALLS = {
    "model.fit(X, y)": True,
    "quiet.fit(X, y)": False,
    "heads.fit(X, y)": False,
    "in_function()": False,
    "make_pipeline(model).fit(X, y)": False,
    "cross_val_score(model, X, y)": False,
    "GridSearchCV(model, {'alpha': [0, 1]}).fit(X, y)": False,
}


@pytest.mark.slow
def test_at_the_prompt_whole_epochs_are_kept_and_all_else_stops():
    command = [sys.executable, "-i", "-q", "-u"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, text=True, env=env, **pipes) as session:
        watchdog = threading.Timer(120, session.kill)
        watchdog.start()
        session.stdin.write(SESSION)
        for call, kept in CALLS.items():
            session.stdin.write(f"last = {call}\nprint('next')\n")
            session.stdin.flush()
            said = ""
            while said.strip() != "step 3":
                said = session.stdout.readline()
                assert said, session.stderr.read()
            session.send_signal(signal.SIGINT)
            while said.strip() != "next":
                assert "went on" not in said
                said = session.stdout.readline()
            if kept:
                session.stdin.write(
                    textwrap.dedent("""\
                    n = last.n_iter_
                    params["max_epochs"] = n
                    same = CGESClassifier(**params).fit(X, y)
                    print("kept", n >= 2, len(last.history_) == n, end=" ")
                    print(np.array_equal(same.predict_proba(X), last.predict_proba(X)))
                """)
                )
                session.stdin.flush()
                while not said.startswith("kept"):
                    said = session.stdout.readline()
                assert said.split() == ["kept", "True", "True", "True"]
        _, errors = session.communicate()
        watchdog.cancel()
    assert errors.count("\nKeyboardInterrupt") == len(CALLS) - 1
    assert errors.count("ConvergenceWarning: The training was interrupted; the ") == 1
