"""Fits to break off, for the tests of checkpoints, and the comparison of two fits."""

import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
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
from sklearn_structreg.core import Training, checkpoint
from sklearn_structreg.core.state_files import encode, read_state
from sklearn_structreg.dropcluster import DropCluster

SMALL = {"max_epochs": 7, "hidden_layer_sizes": (12,), "random_state": 0}
STOPPING = {"early_stopping": True, "n_iter_no_change": 2}
IMAGES = {"image_shape": (1, 8, 8), **SMALL}
CLUSTERS = {"start_epoch": 1, "update_every": 2, **IMAGES}


class Averaged(Callback):
    """A user's callback: an average of the weights, which the training ends with."""

    def on_train_begin(self, net, **kwargs):
        self.average_ = torch.optim.swa_utils.AveragedModel(net.module_)
        self.n_calls_, self.scores_ = 0, [np.inf]

    def on_epoch_end(self, net, **kwargs):
        self.n_calls_ += 1
        self.scores_.append(np.float64(net.history[-1, "train_loss"]))
        self.average_.update_parameters(net.module_)
        net.history.record("n_calls", self.n_calls_ + len(self.scores_))

    def on_train_end(self, net, **kwargs):
        net.module_.load_state_dict(self.average_.module.state_dict())


class Branched(nn.Module):
    """A residual network with batch normalization."""

    def __init__(self):
        super().__init__()
        self.stem, self.branch = nn.Linear(64, 16), nn.Linear(16, 16)
        self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(self.norm(x + self.branch(x)))


class Tempered(nn.Module):
    """A loss that learns, and counts."""

    def __init__(self):
        super().__init__()
        self.log_factor = nn.Parameter(torch.zeros(()))
        self.register_buffer("n_calls", torch.zeros((), dtype=torch.int64))

    def forward(self, outputs, target):
        self.n_calls += 1
        outputs = outputs * self.log_factor.exp() / (1 + self.n_calls / 100)
        return nn.functional.cross_entropy(outputs, target, reduction="none")


def one_cycle(optimizer, n_epochs):
    return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=n_epochs)


def plateau(optimizer, n_epochs):
    return lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0)


def linear(optimizer, n_epochs):
    return lr_scheduler.LambdaLR(optimizer, lambda e: 1 - e / n_epochs)


def halving(optimizer, n_epochs):
    parts = [lr_scheduler.LambdaLR(optimizer, lambda e: 0.5**e) for _ in range(2)]
    return lr_scheduler.SequentialLR(optimizer, parts, [3])


def noisy(X):
    return X + 0.1 * torch.randn_like(X)


FITS = {
    "cosine": StructuredClassifier(lr_schedule="cosine", **STOPPING, **SMALL),
    "one-cycle": StructuredClassifier(lr_schedule=one_cycle, optimizer="adam", **SMALL),
    "plateau": StructuredClassifier(lr_schedule=plateau, **SMALL),
    "sequence of schedules": StructuredClassifier(lr_schedule=halving, **SMALL),
    "stops early": StructuredClassifier(
        learning_rate=3.0, **STOPPING, **SMALL | {"max_epochs": 30}
    ),
    "a new seed": StructuredClassifier(**SMALL | {"random_state": None}),
    "a loss that learns": StructuredClassifier(criterion=Tempered(), **SMALL),
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
    "a size": CGESClassifier(target_multiply_adds=0.4, **STOPPING, **SMALL),
    "draws": BlockoutClassifier(lr_schedule="cosine", **STOPPING, **SMALL),
    "clusters": DropClusterClassifier(lr_schedule="cosine", **STOPPING, **CLUSTERS),
    "stages": SelfInformedClassifier(
        n_clusters=3,
        head_layer_sizes=(6,),
        n_rounds=2,
        head_epochs=1.0,
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
        target_density=0.2,
        pruning_rounds=3,
        lr_schedule=linear,
        dtype="float64",
        optimizer=torch.optim.NAdam,
        **SMALL,
    ),
    "drawn numbers": BlockoutRegressor(lr_schedule="cosine", **STOPPING, **SMALL),
    "clustered numbers": DropClusterRegressor(**STOPPING, **CLUSTERS),
    "options": BlockoutClassifier(
        batch_size=40,
        training=Training(
            optimizer_params={"nesterov": True},
            clip_grad_norm=1.0,
            average_weights=0.9,
            precision="bfloat16",
            augment=noisy,
        ),
        **STOPPING,
        **SMALL,
    ),
    "line search": StructuredRegressor(
        optimizer=torch.optim.LBFGS, learning_rate=0.1, batch_size=None, **SMALL
    ),
}


X, Y = (part[:200] for part in load_digits(return_X_y=True))
X /= 16


def data_for(name):
    """Return samples with targets, classes or numbers."""
    return X, Y + 0.5 if "number" in name or name == "line search" else Y


def fit_and_kill(name, folder, n_kills=20):
    """Run a fit in processes that are killed at random; return traces of the kills.

    Each is the number of epochs that were kept, and whether a file was being written.
    After `n_kills` of them a process may finish. One that finishes before begins anew.
    """
    _fit_slowly(name, f"{folder}/0")  # all that is imported late is here from now on
    moments, longest, traces, n_fits = random.Random(0), 0.05, [(0, False)], 1
    while True:
        process = os.fork()
        if process == 0:
            _run_and_exit(name, f"{folder}/{n_fits}")
        if len(traces) <= n_kills:
            time.sleep(moments.uniform(0, longest))
            os.kill(process, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if status == 0 and len(traces) > n_kills:
            return f"{folder}/{n_fits}", traces[1:]
        if status == 0:
            n_fits, longest = n_fits + 1, 0.6 * longest
        else:
            assert status == -signal.SIGKILL
            traces.append(_trace(Path(folder) / str(n_fits)))
            # As fast as the machine is now, some epochs pass and some are broken off.
            longest *= 1.4 if traces[-1][0] <= traces[-2][0] else 0.8


def _run_and_exit(name, folder):
    try:
        _fit_slowly(name, folder)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _fit_slowly(name, folder):
    """Run a fit that spends about half of its time in writing."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    os.fsync = lambda _: time.sleep(0.01)
    checkpoint.LEFT_AFTER = 0.0  # so that each broken write is seen once
    clone(FITS[name]).set_params(checkpoint=folder).fit(*data_for(name))


def _trace(folder):
    paths = folder.rglob("*-*.safetensors")
    n_epochs = sum(len(read_state(path)["history"]) for path in paths)
    return n_epochs, any(folder.rglob("*.unfinished"))


def fitted_state(model):
    """Return all that a fit leaves, comparable, with its tensors."""
    tensors = {}
    rows = [{k: v for k, v in row.items() if k != "dur"} for row in model.history_]
    parts = [rows, model.n_iter_, model.module_.state_dict(), model.net_.seed]
    parts += [r.fitted_state() for r in model.regularizers_.values()]
    parts += [model.net_.optimizer_.state_dict(), vars(model).get("head_layer_sizes_")]
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        print(json.dumps([name, *fit_and_kill(name, f"{sys.argv[1]}/{name}")]))
