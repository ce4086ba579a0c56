"""Fits on several processes, for `tests/core/test_processes.py`: a script of torchrun.

In the main thread they are divided; in another one each process fits alone.
"""

import os
import signal
import sys
import threading
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from checkpoint_cases import FITS, IMAGES, SMALL, X, data_for
from sklearn.base import clone
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    CGESClassifierCV,
    DropClusterClassifier,
    StructuredClassifier,
)
from sklearn_structreg.baselines import Dropout
from sklearn_structreg.core import Training
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.state_files import read_state
from sklearn_structreg.dropcluster import DropCluster

RANK = int(os.environ.get("RANK", "0"))
KILLED_AT = 4
DRAWN = {**SMALL, "batch_size": 33}  # the two halves differ
Y = data_for("draws")[1]
WEIGHT = np.arange(len(Y)) % 3


class Pictures(Dataset):
    """Digits that are loaded one by one, with noise."""

    n_loaded = 0

    def __len__(self):
        return len(Y)

    def __getitem__(self, row):
        Pictures.n_loaded += 1
        return torch.from_numpy(X[row]).view(1, 8, 8) + torch.rand(1) / 10, Y[row]


class Stream(IterableDataset):
    """Digits in their order."""

    def __iter__(self):
        yield from zip(torch.from_numpy(X), Y, strict=True)


def normed():
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.2)),
        *(nn.Flatten(), nn.Linear(144, 12), nn.BatchNorm1d(12), nn.Linear(12, 10)),
    )


def checkpointed(folder):
    pruned = CGESClassifier(target_density=0.3, dtype="float64", **SMALL)
    return pruned.set_params(checkpoint=folder)


def cases(folder):
    """Return functions that fit an estimator."""
    names = ["stops early", "a new seed", "a loss that learns", "callbacks"]
    names += ["penalty, pruning", "a size", "draws", "clusters", "stages", "numbers"]
    names += ["own network with heads", "all on images", "residual", "line search"]
    fits = {}
    for name in names:
        model = clone(FITS[name]).set_params(dtype="float64")
        fits[name] = partial(model.fit, *data_for(name))
    fits["own network with heads"].func.__self__.set_params(estimator__dtype="float64")
    options = {"clip_grad_norm": 1.0, "average_weights": 0.9, "augment": torch.sin}
    models = {
        "masks of samples": BlockoutClassifier(mask_per="sample", **DRAWN),
        "options": BlockoutClassifier(training=Training(**options), **DRAWN),
        "clusters of samples": DropClusterClassifier(
            mask_per="sample", start_epoch=1, **IMAGES
        ),
        "normed": StructuredClassifier(
            normed(), regularizers=[Dropout(0.3)], **IMAGES | {"batch_size": 33}
        ),
        "path": CGESClassifierCV(alphas=[0.1, 0.01], cv=2, **SMALL | {"max_epochs": 2}),
        "one row": StructuredClassifier(batch_size=1, **SMALL | {"max_epochs": 1}),
    }
    for name, model in models.items():
        model.set_params(dtype="float64")
        fits[name] = partial(model.fit, X, Y, WEIGHT)
    clusters = StructuredClassifier(
        normed(), regularizers=[DropCluster(0.2, start_epoch=1)], dtype="float64",
        **SMALL,
    )  # fmt: skip
    fits["dataset"] = partial(clusters.fit, Pictures(), eval_set=Pictures())
    stream = StructuredClassifier(dtype="float64", **SMALL)
    fits["stream"] = partial(stream.fit, Stream())
    part = CGESClassifier(dtype="float64", batch_size=33, **SMALL)
    fits["part"] = partial(part.partial_fit, X, Y, classes=np.unique(Y))
    fits["checkpoint"] = partial(checkpointed(folder).fit, X, Y)
    return fits


def state_of(model):
    """Return what a fit leaves: tensors, figures of the epochs, predictions."""
    members = getattr(model, "estimators_", [model])
    nets = [member.net_ for member in members]
    nets += [model.estimator_.net_] if hasattr(model, "estimator_") else []
    tensors = [t.double() for net in nets for t in net.module_.state_dict().values()]
    rows = [row for net in nets for row in net.history]
    figures = [{k: row[k] for k in row if k not in ("dur", "batches")} for row in rows]
    return tensors, figures, model.predict(X)


def fit_alone(fit):
    """Fit as one process does, in a thread of its own."""
    model = clone(fit.func.__self__)
    if "checkpoint" in model.get_params():
        model.set_params(checkpoint=None)
    call = getattr(model, fit.func.__name__)
    thread = threading.Thread(target=call, args=fit.args, kwargs=fit.keywords)
    thread.start()
    thread.join()
    return model


def run(folder):
    """Fit all on these processes, the first one also alone; keep the results."""
    found = {"left": read_state(next(Path(folder).rglob("training*")))["history"]}
    for name, fit in cases(f"{folder}/fit").items():
        np.random.seed(RANK)  # noqa: NPY002 (the first one's counts)
        found[name] = [state_of(fit())]
        found[f"{name}, loaded"] = [Pictures.n_loaded]
        if RANK == 0:
            np.random.seed(RANK)  # noqa: NPY002
            found[name].append(state_of(fit_alone(fit)))
            found[f"{name}, loaded"].append(Pictures.n_loaded)
    torch.save(found, f"{folder}/{RANK}.pt")


def talk():
    """Print and warn; fit on data that differ."""
    still = CGESClassifier(learning_rate=1e-9, verbose=1, **SMALL | {"max_epochs": 1})
    still.fit(X, Y)
    try:
        still.fit(X + RANK, Y)
    except ValueError as error:
        print(RANK, error)


def die_in_the_midst(folder):
    """Fit with a checkpoint until a process is killed; torchrun starts all again."""
    record = StructuredNet.record_epoch

    def recording(net, *args):
        if len(net.history) == KILLED_AT and RANK == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        record(net, *args)

    StructuredNet.record_epoch = recording
    checkpointed(f"{folder}/fit").fit(X, Y)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        die_in_the_midst(sys.argv[1])
    talk()
    warnings.simplefilter("ignore")
    run(sys.argv[1])
