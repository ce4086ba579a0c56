"""Fits that are broken off and go on: the same as uninterrupted ones, bit for bit."""

import copy
import doctest
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import checkpoint_cases
import numpy as np
import pytest
import torch
from checkpoint_cases import FITS, SMALL, STOPPING, assert_same, data_for
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochTimer, LRScheduler
from torch import nn
from torch.optim.lr_scheduler import StepLR

from sklearn_structreg import (
    CGESClassifier,
    SelfInformedClassifier,
    StructuredClassifier,
)
from sklearn_structreg.cges import CGES
from sklearn_structreg.core import Regularizer, checkpoint
from sklearn_structreg.core.estimator import StructuredEstimator
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.state_files import read_state, write_state

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore:The default value of divide_by_zero:UserWarning",
)


class BrokenOffError(Exception):
    """Stands for a killed process."""


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
    """Return the seeds of a fit and of those inside of it, in their order."""
    inside = ["", "network", "fold-1-network", "fold-2-network"]
    paths = [folder / name / "fit.safetensors" for name in inside]
    return [read_state(path)["seed"] for path in paths if path.exists()]


def whole_fit(model, folder, X, y, monkeypatch):
    """Fit without a break, by the seeds of a fit in this folder."""
    model = clone(model).set_params(checkpoint=None)
    with monkeypatch.context() as patch:
        if model.random_state is None:
            seeds = iter(seeds_in(folder))
            patch.setattr(StructuredEstimator, "_draw_seed", lambda self: next(seeds))
        return model.fit(X, y)


@pytest.mark.parametrize("name", FITS)
def test_a_fit_in_pieces_is_the_uninterrupted_one(name, tmp_path, monkeypatch):
    X, y = data_for(name)
    model = clone(FITS[name]).set_params(checkpoint=tmp_path / "folder")
    with monkeypatch.context() as patch:
        break_writes(patch, every=3)
        in_pieces, n_attempts = fit_in_pieces(model, X, y)
    assert n_attempts > 2
    whole = whole_fit(model, tmp_path / "folder", X, y, monkeypatch)
    assert_same(in_pieces, whole, X)
    assert not list(tmp_path.rglob("*.unfinished"))


KILLED = [name for name in FITS if name.startswith(("cosine", "penalty", "draws"))]
KILLED += ["clusters", "stages", *(name for name in FITS if "number" in name)]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_fits_that_are_killed_twenty_times_go_on(tmp_path, monkeypatch):
    command = [sys.executable, checkpoint_cases.__file__, str(tmp_path), *KILLED]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    n_writes = 0
    for name, folder, traces in map(json.loads, run.stdout.splitlines()):
        X, y = data_for(name)
        model = clone(FITS[name]).set_params(checkpoint=folder).fit(X, y)
        assert_same(model, whole_fit(model, Path(folder), X, y, monkeypatch), X)
        assert len(traces) == 20
        assert len({n_epochs for n_epochs, _ in traces}) > 2
        n_writes += sum(in_write for _, in_write in traces)
    assert n_writes > 20


def test_a_finished_fit_comes_back_without_training(blobs, tmp_path, monkeypatch):
    model = StructuredClassifier(learning_rate=3.0, checkpoint=tmp_path, **STOPPING)
    first = clone(model).fit(*blobs)
    assert first.n_iter_ < first.max_epochs
    monkeypatch.setattr(StructuredNet, "train_step", None)
    assert_same(clone(model).fit(*blobs), first, blobs[0])
    assert pickle.loads(pickle.dumps(first)).n_iter_ == first.n_iter_


def test_an_estimator_with_a_checkpoint_is_saved(blobs, tmp_path):
    model = fit_with(tmp_path / "folder", *blobs, **SMALL)
    model.save(tmp_path / "file")
    loaded = StructuredClassifier.load(tmp_path / "file")
    assert loaded.checkpoint == str(tmp_path / "folder")
    assert_same(clone(loaded).fit(*blobs), model, blobs[0])


def test_ctrl_c_leaves_the_last_whole_epoch(blobs, tmp_path):
    class Impatient(Callback):
        def on_batch_end(self, net, training, **kwargs):
            if len(net.history) == self.at and training:
                os.kill(os.getpid(), signal.SIGINT)

    model = StructuredClassifier(checkpoint=tmp_path, batch_size=30, **SMALL)
    model.set_params(callbacks=[Impatient()])
    for Impatient.at in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            model.fit(*blobs)
        [path] = tmp_path.glob("training*")
        assert len(read_state(path)["history"]) == Impatient.at - 1
    Impatient.at = None
    resumed, whole = model.fit(*blobs), clone(model).set_params(checkpoint=None)
    assert_same(resumed, whole.fit(*blobs), blobs[0])


def test_a_warm_start_is_a_fit_of_its_own(blobs, tmp_path, monkeypatch):
    X, y = blobs
    model = StructuredClassifier(warm_start=True, checkpoint=tmp_path / "1", **SMALL)
    model.fit(X, y)
    with pytest.raises(ValueError, match="differs in the network to go on from;"):
        model.fit(X, y)
    whole = copy.deepcopy(model).set_params(checkpoint=None).fit(X, y)
    model.set_params(checkpoint=tmp_path / "2")
    with monkeypatch.context() as patch:
        break_writes(patch, every=5)
        with pytest.raises(BrokenOffError):
            copy.deepcopy(model).fit(X, y)
    assert_same(model.fit(X, y), whole, X)


CLOCK = itertools.count()


class Rows(torch.utils.data.Dataset):
    """A dataset; `shift` None draws every item anew."""

    def __init__(self, X, y, shift=0.0):
        self.X, self.targets, self.shift = torch.as_tensor(X), y, shift

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        return self.X[row] + (next(CLOCK) if self.shift is None else self.shift)


def shallow(shape, n_outputs):
    return nn.Linear(shape[0], n_outputs)


def test_other_data_or_parameters_are_named(blobs, tmp_path):
    X, y = blobs
    X = X.astype("float32")
    base = {"max_epochs": 1, "random_state": 0, "module": nn.Linear(4, 3)}
    other_weights = copy.deepcopy(base["module"])
    other_weights.bias.detach()[0] += 1
    rows = {**base, "X": Rows(X, y)}
    cases = [
        (base, {"X": X + (np.arange(90) == 80)[:, None]}, "X"),
        (base, {"y": np.where(np.arange(90) == 80, 0, y)}, "y"),
        (base, {"sample_weight": np.ones(90)}, "sample_weight"),
        (base, {"X": X[:80], "y": y[:80], "max_epochs": 2}, "X, max_epochs, y"),
        (base, {"learning_rate": 0.1, "momentum": 0}, "learning_rate, momentum"),
        (base, {"class_weight": {0: 1, 1: 2, 2: 1}}, "class_weight"),
        (base, {"random_state": 1}, "random_state"),
        (base, {"module": other_weights}, "module"),
        (base, {"module": shallow}, "module"),
        (base, {"optimizer": torch.optim.Adam}, "optimizer"),
        (base, {"kind": CGESClassifier}, "alpha"),
        (
            base | {"lr_schedule": lambda optimizer, n: StepLR(optimizer, 2)},
            {"lr_schedule": lambda optimizer, n: StepLR(optimizer, 3)},
            "lr_schedule",
        ),
        (
            base | {"callbacks": [LRScheduler(StepLR, step_size=2)]},
            {"callbacks": [LRScheduler(StepLR, step_size=3)]},
            "callbacks",
        ),
        (
            base | {"regularizers": [CGES(0.1)]},
            {"regularizers": [CGES(0.2)]},
            "regularizers__cges__alpha",
        ),
        (rows, {"X": Rows(X, y, shift=1.0)}, "X"),
        (rows, {"X": Rows(X[1:], y[1:])}, "X, y"),
    ]
    for number, (one, other, names) in enumerate(cases):
        fit_with(tmp_path / str(number), X, y, **one)
        with pytest.raises(ValueError, match=f"which differs in .*{names}[;,]"):
            fit_with(tmp_path / str(number), X, y, **one | other)


def fit_with(
    folder, X, y, /, *, kind=StructuredClassifier, sample_weight=None, **params
):
    data = {"X": X, "y": y} | {k: params.pop(k) for k in ("X", "y") if k in params}
    if isinstance(data["X"], Rows):
        data["y"] = None
    return kind(checkpoint=folder, **params).fit(**data, sample_weight=sample_weight)


def test_what_does_not_change_the_result_is_free(blobs, tmp_path, capsys):
    X, y = blobs
    first = fit_with(tmp_path / "1", X, y, **SMALL, callbacks=[EpochTimer()])
    again = fit_with(
        f"{tmp_path}/1", X.tolist(), y.tolist(), callbacks=[EpochTimer()],
        **SMALL, verbose=2, device="cpu", warm_start=True,
    )  # fmt: skip
    assert_same(again, first, X)
    rng = np.random.RandomState(0)
    seeds = {
        fit_with(tmp_path / "2", X, y, **SMALL | {"random_state": rng}).net_.seed
        for _ in range(2)
    }
    assert len(seeds) == 1
    drawn = Rows(X.astype("float32"), y, shift=None)
    for _ in range(2):
        fit_with(tmp_path / "3", drawn, None, **SMALL)


def test_files_that_cannot_be_gone_on_from(blobs, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    fit_with(folder, *blobs, **SMALL)
    [training] = folder.glob("training*")
    for path in (training, folder / "fit.safetensors"):
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[-100] ^= 1
        foreign = tmp_path / "foreign"
        write_state(foreign, {"of": "another program"})
        for content in (whole[:-7], bytes(changed), b"", foreign.read_bytes()):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"delete the folder '.*' to start"):
                fit_with(folder, *blobs, **SMALL)
        path.write_bytes(whole)
    old, new = (folder / f".training.safetensors.{i}.unfinished" for i in (1, 2))
    for left in (old, new):
        left.touch()
    os.utime(old, (0, 0))
    fit_with(folder, *blobs, **SMALL)
    assert list(folder.glob(".*")) == [new]  # it may still be written
    for no_folder in (training, Path(os.devnull)):
        with pytest.raises(ValueError, match="is a file; name a folder"):
            fit_with(no_folder, *blobs, **SMALL)
    monkeypatch.setattr(checkpoint, "versions", lambda: {"sklearn-structreg": "0.0"})
    with pytest.warns(UserWarning, match=r"made with sklearn-structreg \d.*unlike now"):
        fit_with(folder, *blobs, **SMALL)


class Unheld(Regularizer):
    """A regularizer whose state no file holds."""

    def attach(self, module, sample):
        self.layer_ = module
        return module


def test_calls_that_keep_no_state_say_so_before_any_work(blobs, tmp_path):
    X, y = blobs
    model = StructuredClassifier(checkpoint=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="partial_fit leaves no state"):
        model.partial_fit(X, y, classes=[0, 1, 2])
    net = NeuralNetClassifier(nn.Linear(4, 3), criterion=nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match="keeps no state for checkpoint"):
        SelfInformedClassifier(net, n_clusters=2, checkpoint=tmp_path).fit(X, y)
    assert not list(tmp_path.iterdir())
    model.set_params(regularizers=[Unheld()], callbacks=[Never()])
    with pytest.raises(TypeError, match="'layer_'.*no file of safetensors"):
        model.fit(X, y)
    search = GridSearchCV(
        CGESClassifier(checkpoint=tmp_path / "folder", **SMALL),
        {"alpha": [0.0, 0.1]},
        cv=2,
        error_score="raise",
    )
    with pytest.raises(ValueError, match=r"a folder of its own"):
        search.fit(X, y)


def test_a_callback_may_load_a_history_of_its_own(blobs, tmp_path):
    class Loading(Callback):  # as skorch's LoadInitState does
        n_loaded, broken = 0, False

        def on_train_begin(self, net, **kwargs):
            for _ in range(self.n_loaded):
                net.history.new_epoch()

        def on_epoch_end(self, net, **kwargs):
            if self.broken and len(net.history) == 2:
                raise BrokenOffError

    loading = Loading()
    model = StructuredClassifier(callbacks=[loading], **SMALL)
    whole = clone(model).fit(*blobs)
    Loading.broken = True
    model.set_params(checkpoint=tmp_path)
    with pytest.raises(BrokenOffError):
        model.fit(*blobs)
    Loading.n_loaded, Loading.broken = 1, False
    assert_same(model.fit(*blobs), whole, blobs[0])


def test_a_fit_that_is_started_twice(blobs, tmp_path):
    def fit(_):
        return fit_with(tmp_path, *blobs, **SMALL)

    with ThreadPoolExecutor(4) as pool:
        models = [*pool.map(fit, range(4))]
    for model in models[1:]:
        assert_same(model, models[0], blobs[0])
    assert not list(tmp_path.glob(".*"))


class Never(Callback):
    def on_epoch_begin(self, net, **kwargs):
        raise AssertionError("an epoch has begun")


def test_the_example_of_the_guide(tmp_path, monkeypatch):
    guide = Path(__file__).parents[2] / "docs" / "guide" / "resuming.rst"
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testfile(str(guide), module_relative=False, optionflags=options)
    assert result.attempted > 5
    assert result.failed == 0
