"""Fits that are broken off and go on: the same as uninterrupted ones, bit for bit."""

import os

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EpochScoring, Freezer, LRScheduler
from torch import nn
from torch.optim import lr_scheduler

from sklearn_structreg import (
    BlockoutClassifier,
    BlockoutRegressor,
    CGESClassifier,
    CGESRegressor,
    DropClusterClassifier,
    DropClusterRegressor,
    SelfInformedClassifier,
    StructuredClassifier,
    StructuredRegressor,
)
from sklearn_structreg.baselines import (
    L2SP,
    DropBlock,
    Dropout,
    SpatialDropout,
    StochasticDepth,
)
from sklearn_structreg.blockout import Blockout
from sklearn_structreg.cges import CGES, IterativePruning
from sklearn_structreg.core.estimator import StructuredEstimator
from sklearn_structreg.core.state_files import encode, read_state
from sklearn_structreg.dropcluster import DropCluster

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore:The default value of divide_by_zero:UserWarning",
)

SMALL = {"max_epochs": 7, "hidden_layer_sizes": (12,), "random_state": 0}
STOPPING = {"early_stopping": True, "n_iter_no_change": 2}
IMAGES = {"image_shape": (1, 8, 8), **SMALL}
CLUSTERS = {"start_epoch": 1, "update_every": 2, **IMAGES}


class BrokenOffError(Exception):
    """Stands for a killed process."""


class Averaged(Callback):
    """A user's callback: an average of the weights, which the training ends with."""

    def on_train_begin(self, net, **kwargs):
        self.average = torch.optim.swa_utils.AveragedModel(net.module_)
        self.n_calls, self.scores = 0, [np.inf]

    def on_epoch_end(self, net, **kwargs):
        self.n_calls += 1
        self.scores.append(np.float64(net.history[-1, "train_loss"]))
        self.average.update_parameters(net.module_)
        net.history.record("n_calls", self.n_calls + len(self.scores))

    def on_train_end(self, net, **kwargs):
        net.module_.load_state_dict(self.average.module.state_dict())


class Branched(nn.Module):
    """A residual network with batch normalization."""

    def __init__(self):
        super().__init__()
        self.stem, self.branch = nn.Linear(64, 16), nn.Linear(16, 16)
        self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(self.norm(x + self.branch(x)))


def one_cycle(optimizer, n_epochs):
    return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=n_epochs)


def plateau(optimizer, n_epochs):
    return lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0)


def halving(optimizer, n_epochs):
    parts = [lr_scheduler.LambdaLR(optimizer, lambda e: 0.5**e) for _ in range(2)]
    return lr_scheduler.SequentialLR(optimizer, parts, [3])


FITS = {
    "cosine": StructuredClassifier(lr_schedule="cosine", **STOPPING, **SMALL),
    "one-cycle": StructuredClassifier(lr_schedule=one_cycle, optimizer="adam", **SMALL),
    "plateau": StructuredClassifier(lr_schedule=plateau, **SMALL),
    "sequence of schedules": StructuredClassifier(lr_schedule=halving, **SMALL),
    "stops early": StructuredClassifier(
        learning_rate=3.0, **STOPPING, **SMALL | {"max_epochs": 30}
    ),
    "a new seed": StructuredClassifier(**SMALL | {"random_state": None}),
    "callbacks": StructuredClassifier(
        Branched(),
        callbacks=[
            Averaged(),
            EpochScoring("accuracy", lower_is_better=False, on_train=True),
            LRScheduler(lr_scheduler.StepLR, step_size=2),
            Freezer("stem.*", at=3),
        ],
        **SMALL,
    ),
    "penalty, pruning": CGESClassifier(
        target_density=0.2, pruning_rounds=3, lr_schedule="cosine", **STOPPING, **SMALL
    ),
    "draws": BlockoutClassifier(lr_schedule="cosine", **STOPPING, **SMALL),
    "clusters": DropClusterClassifier(lr_schedule="cosine", **STOPPING, **CLUSTERS),
    "stages": SelfInformedClassifier(
        n_clusters=3,
        head_layer_sizes=(6,),
        n_rounds=2,
        fine_tune=True,
        lr_schedule="cosine",
        regularizers=[CGES(0.01), IterativePruning(0.5, pruning_start=0.2)],
        **STOPPING,
        **SMALL | {"max_epochs": 3, "random_state": None},
    ),
    "own network with heads": SelfInformedClassifier(
        CGESClassifier(alpha=0.01, **SMALL),
        n_clusters=2,
        head_layer_sizes=(6,),
        **SMALL,
    ),
    "all on images": StructuredClassifier(
        regularizers=[
            *[IterativePruning(0.3), CGES(0.02), Blockout(3), Dropout(0.2), L2SP(0.01)],
            DropCluster(0.2, start_epoch=1, update_every=2),
            *[SpatialDropout(0.2), DropBlock(0.2)],
        ],
        **IMAGES,
    ),
    "residual": StructuredClassifier(
        Branched(), regularizers=[StochasticDepth(0.5)], **SMALL
    ),
    "numbers": StructuredRegressor(lr_schedule=one_cycle, **STOPPING, **SMALL),
    "pruned numbers": CGESRegressor(
        target_density=0.2, dtype="float64", optimizer=torch.optim.NAdam, **SMALL
    ),
    "drawn numbers": BlockoutRegressor(lr_schedule="cosine", **STOPPING, **SMALL),
    "clustered numbers": DropClusterRegressor(**STOPPING, **CLUSTERS),
    "line search": StructuredRegressor(
        optimizer=torch.optim.LBFGS, learning_rate=0.1, batch_size=None, **SMALL
    ),
}


def data_for(name, digits):
    X, y = (part[:200] for part in digits)
    return (X, y + 0.5) if "number" in name or "line" in name else (X, y)


def fitted_state(model):
    """Return all that a fit leaves, comparable, with its tensors."""
    tensors = {}
    rows = [{k: v for k, v in row.items() if k != "dur"} for row in model.history_]
    parts = [rows, model.n_iter_, model.module_.state_dict(), model.net_.seed]
    parts += [r.fitted_state() for r in model.regularizers_.values()]
    parts += [model.net_.optimizer_.state_dict(), vars(model).get("held_out_indices_")]
    return repr(encode(parts, tensors)), tensors


def assert_same(one, two, X):
    np.testing.assert_array_equal(one.predict(X), two.predict(X))
    (text, tensors), (other, others) = fitted_state(one), fitted_state(two)
    assert text == other
    for key, tensor in tensors.items():
        assert tensor.dtype == others[key].dtype
        np.testing.assert_array_equal(tensor, others[key])  # NaN equals NaN
    if hasattr(one, "estimator_"):
        assert_same(one.estimator_, two.estimator_, X)


def break_writes(monkeypatch, every):
    """Let every so many writes break off: before, within, or after the replacement."""
    n_calls = [0]
    replace = os.replace

    def breaking(source, target):
        n_calls[0] += 1
        moment = n_calls[0] // every % 3
        if n_calls[0] % every:
            return replace(source, target)
        if moment == 1:
            with open(source, "r+b") as file:
                file.truncate(100)
        if moment == 2:
            replace(source, target)
        raise BrokenOffError

    monkeypatch.setattr(os, "replace", breaking)


def fit_in_pieces(model, X, y, **params):
    """Fit again and again, until a fit gets through; return it and the attempts."""
    for n_attempts in range(1, 100):
        attempt = type(model)(**model.get_params(deep=False))
        try:
            return attempt.fit(X, y, **params), n_attempts
        except BrokenOffError:
            pass
    raise AssertionError("no fit got through")


def seeds_in(folder):
    """Return the seeds of a fit and of the one inside of it, in their order."""
    paths = [folder / "fit.safetensors", folder / "network" / "fit.safetensors"]
    return [read_state(path)["seed"] for path in paths if path.exists()]


@pytest.mark.parametrize("name", FITS)
def test_a_fit_in_pieces_is_the_uninterrupted_one(name, digits, tmp_path, monkeypatch):
    X, y = data_for(name, digits)
    model = FITS[name].set_params(checkpoint=tmp_path / "folder")
    with monkeypatch.context() as patch:
        break_writes(patch, every=3)
        in_pieces, n_attempts = fit_in_pieces(model, X, y)
    assert n_attempts > 2
    if model.random_state is None:
        seeds = iter(seeds_in(tmp_path / "folder"))
        monkeypatch.setattr(StructuredEstimator, "_draw_seed", lambda self: next(seeds))
    whole = model.set_params(checkpoint=None).fit(X, y)
    assert_same(in_pieces, whole, X)
    assert not list(tmp_path.rglob("*.unfinished"))
