"""Every callback of skorch works in our estimators, or is refused with the reason."""

import functools
import importlib.util
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import skorch.callbacks as skorch_callbacks
import torch
from sklearn.metrics import accuracy_score, f1_score, r2_score
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    InputShapeSetter,
    LoadInitState,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
    ProgressBar,
    TrainEndCheckpoint,
)
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_structreg import SelfInformedClassifier
from sklearn_structreg.blockout import Blockout
from sklearn_structreg.cges import CGES
from sklearn_structreg.core import (
    RegularizerCallback,
    StructuredClassifier,
    StructuredRegressor,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
FAST = {"max_epochs": 4, "batch_size": 40, "random_state": 0}
STEPS = 3  # of an epoch over the 90 blobs
POLICIES = {
    "WarmRestartLR": {},
    "CosineAnnealingLR": {"T_max": 3},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_every": "batch"},
    "ExponentialLR": {"gamma": 0.5},
    "LambdaLR": {"lr_lambda": lambda epoch: 0.5**epoch},
    "MultiStepLR": {"milestones": [2]},
    "ReduceLROnPlateau": {"patience": 0, "threshold": 10.0},
    "StepLR": {"step_size": 1},
}


class Log:
    """Stands for the service that a logger sends its figures to."""

    info, dir = SimpleNamespace(run_id="0"), "."

    def __init__(self, folder):
        self.calls, self.dir = [], str(folder)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


def logged(log, estimator):
    return len(log.calls) >= estimator.n_iter_


def made(name, folder):
    """Make a callback of each kind, with a check of what it has done."""
    init = functools.partial(nn.init.constant_, val=0.25)
    checkpoint = Checkpoint(monitor="train_loss_best", dirname=str(folder))
    log = Log(folder)
    sent = functools.partial(logged, log)
    first = "0.weight"
    cases = {
        "BatchScoring": lambda: (
            BatchScoring("neg_mean_squared_error", name="mse", on_train=True),
            lambda e: len(e.history_[:, "mse"]) == 4,
        ),
        "Callback": lambda: (Callback(), lambda e: True),
        "Checkpoint": lambda: (
            checkpoint,
            lambda e: (folder / "params.pt").exists() and "event_cp" in e.history_[-1],
        ),
        "EarlyStopping": lambda: (
            EarlyStopping("train_loss", threshold=10.0, patience=2, load_best=True),
            lambda e: e.n_iter_ == 3,
        ),
        "EpochScoring": lambda: (
            EpochScoring("neg_mean_squared_error", name="mse", on_train=True),
            lambda e: len(e.history_[:, "mse"]) == 4,
        ),
        "EpochTimer": lambda: (
            skorch_callbacks.EpochTimer(),
            lambda e: e.history_[-1, "dur"] > 0,
        ),
        "Freezer": lambda: (
            [
                ("a", skorch_callbacks.Initializer(first, fn=init)),
                ("b", skorch_callbacks.Freezer(first)),
            ],
            lambda e: bool((e.module_[0].weight == 0.25).all()),
        ),
        "GradientNormClipping": lambda: (
            skorch_callbacks.GradientNormClipping(1e-12),
            lambda e: abs(np.ptp(e.history_[:, "train_loss"])) < 1e-4,
        ),
        "Initializer": lambda: (
            skorch_callbacks.Initializer(first, fn=nn.init.zeros_, at=4),
            lambda e: float(e.module_[0].weight.detach().abs().max()) < 0.1,
        ),
        "InputShapeSetter": lambda: (InputShapeSetter(), "which would build"),
        "LRScheduler": lambda: (
            LRScheduler("StepLR", step_size=1),
            lambda e: e.history_[-1, "event_lr"] < 1e-3,
        ),
        "LoadInitState": lambda: (
            [("cp", checkpoint), ("load", LoadInitState(checkpoint))],
            lambda e: e.fit(*e.data).n_iter_ > 4,
        ),
        "MlflowLogger": lambda: (
            skorch_callbacks.MlflowLogger(log, log, log_on_batch_end=True),
            sent,
        ),
        "NeptuneLogger": lambda: (skorch_callbacks.NeptuneLogger(log), sent),
        "ParamMapper": lambda: (
            skorch_callbacks.ParamMapper(first, nn.init.zeros_, at=4),
            lambda e: float(e.module_[0].weight.detach().abs().max()) < 0.1,
        ),
        "PassthroughScoring": lambda: (
            PassthroughScoring("train_loss", on_train=True),
            lambda e: len(e.history_[-1, "batches"]) == STEPS,
        ),
        "PrintLog": lambda: (PrintLog(sink=log.line), lambda e: len(log.calls) >= 4),
        "ProgressBar": lambda: (
            ProgressBar(detect_notebook=False),
            lambda e: (
                e.net_.callbacks_[-1][1].pbar_.total == STEPS
                if e.net_.callbacks_[-1][0] == "ProgressBar"
                else True
            ),
        ),
        "SacredLogger": lambda: (
            skorch_callbacks.SacredLogger(log, log_on_batch_end=True),
            lambda e: len(log.calls) >= 4 * STEPS,
        ),
        "TensorBoard": lambda: (skorch_callbacks.TensorBoard(log), sent),
        "TrainEndCheckpoint": lambda: (
            TrainEndCheckpoint(dirname=str(folder)),
            lambda e: (folder / "train_end_params.pt").exists(),
        ),
        "Unfreezer": lambda: (
            [
                ("a", skorch_callbacks.Initializer(first, fn=init)),
                ("b", skorch_callbacks.Freezer(first)),
                ("c", skorch_callbacks.Unfreezer(first, at=4)),
            ],
            lambda e: (
                0 < float((e.module_[0].weight.detach() - 0.25).abs().max()) < 0.1
            ),
        ),
        "WandbLogger": lambda: (
            skorch_callbacks.WandbLogger(log, save_model=False),
            sent,
        ),
        "WarmRestartLR": lambda: (
            LRScheduler(skorch_callbacks.WarmRestartLR),
            lambda e: e.history_[-1, "event_lr"] < 0.05,
        ),
    }
    return cases[name]()


@pytest.mark.parametrize("method", [CGES(0.1), Blockout(2)], ids=["CGES", "Blockout"])
def test_loggers_get_numbers_alone(method, blobs, tmp_path):
    log = Log(tmp_path)
    callbacks = [
        skorch_callbacks.MlflowLogger(log, log),
        skorch_callbacks.SacredLogger(log),
    ]
    StructuredClassifier(regularizers=[method], callbacks=callbacks, **FAST).fit(*blobs)
    figures = [args for name, args, _ in log.calls if name.startswith("log_")]
    assert len(figures) >= 8
    assert not any(isinstance(x, dict | list) for args in figures for x in args)


@pytest.mark.parametrize("kind", [StructuredClassifier, StructuredRegressor])
@pytest.mark.parametrize("name", skorch_callbacks.__all__)
def test_every_callback_of_skorch(name, kind, blobs, tmp_path):
    if name == "NeptuneLogger" and importlib.util.find_spec("neptune") is None:
        pytest.skip("neptune is not installed")
    callback, outcome = made(name, tmp_path)
    callbacks = callback if isinstance(callback, list) else [callback]
    estimator = kind(callbacks=callbacks, **FAST)
    if isinstance(outcome, str):
        with pytest.raises(ValueError, match=outcome):
            estimator.fit(*blobs)
        assert not hasattr(estimator, "net_")
        return
    estimator.data = blobs
    estimator.fit(*blobs)
    assert outcome(estimator)


@pytest.mark.parametrize("policy", POLICIES)
def test_schedules_by_name_go_on_in_warm_starts(policy, blobs):
    callback = LRScheduler(policy, **POLICIES[policy])
    model = StructuredClassifier(callbacks=[callback], warm_start=True, **FAST)
    model.fit(*blobs)
    if policy == "ExponentialLR":
        expected = [0.05 * 0.5**epoch for epoch in range(4)]
        assert model.history_[:, "event_lr"] == pytest.approx(expected)
    assert model.fit(*blobs).partial_fit(*blobs).n_iter_ == 9


@pytest.mark.parametrize("caching", [True, False])
@pytest.mark.parametrize("task", ["classes", "labels", "numbers"])
def test_scores_are_those_of_the_rows(task, caching, blobs):
    X, y = blobs
    held = {"early_stopping": True, "validation_fraction": 0.2}
    if task == "numbers":
        model, score, name = StructuredRegressor(**FAST, **held), r2_score, "r2"
    else:
        model, score, name = StructuredClassifier(**FAST, **held), f1_score, "f1_macro"
        score = functools.partial(score, average="macro")
    target = np.column_stack([y == 0, y > 0]).astype(int) if task == "labels" else y
    seen = {}

    class Rows(Callback):
        def on_epoch_end(self, net, dataset_train, dataset_valid, **kwargs):
            seen.update(train=dataset_train, valid=dataset_valid)

    scoring = {"lower_is_better": False, "use_caching": caching}
    callbacks = [
        ("a", EpochScoring(name, on_train=True, name="a", **scoring)),
        ("b", EpochScoring(name, name="b", **scoring)),
        ("rows", Rows()),
    ]
    model.set_params(callbacks=callbacks, max_epochs=3, n_iter_no_change=9)
    model.fit(X, target)
    # Cached predictions for training rows are those of the running epoch.
    for key, rows in seen.items() if not caching else [("valid", seen["valid"])]:
        predicted = model.net_.predict(rows.X)
        expected = score(rows.y.numpy(), predicted)
        figure = model.history_[:, {"train": "a", "valid": "b"}[key]]
        best = int(np.argmin(model.history_[:, "valid_loss"]))  # is brought back
        assert figure[best] == pytest.approx(expected, abs=1e-9)
    assert len(seen["train"]) == 72
    assert all(0 <= value <= 1 for value in model.history_[:, "a"] if task != "numbers")


def test_batches_are_recorded_for_callbacks_alone(blobs):
    params = FAST | {"early_stopping": True}
    plain = StructuredClassifier(lr_schedule="cosine", **params).fit(*blobs)
    assert not any(plain.history_[:, "batches"])
    watched = StructuredClassifier(
        lr_schedule="cosine", callbacks=[Callback()], **params
    ).fit(*blobs)
    rows = watched.history_[-1, "batches"]
    assert [sorted(row) for row in rows] == [
        *[["train_batch_size", "train_loss"]] * 3,
        ["valid_batch_size", "valid_loss"],
    ]
    sizes = [row["train_batch_size"] for row in rows[:3]]
    losses = [row["train_loss"] for row in rows[:3]]
    mean = np.average(losses, weights=sizes)
    assert watched.history_[-1, "train_loss"] == pytest.approx(mean)
    assert sum(sizes) == 81


def test_a_checkpoint_brings_the_best_epoch_back(blobs, tmp_path):
    checkpoint = Checkpoint(dirname=str(tmp_path), f_pickle="net.pkl", load_best=True)
    model = StructuredClassifier(
        early_stopping=True, callbacks=[checkpoint], **FAST | {"max_epochs": 30}
    ).fit(*blobs)
    saved = torch.load(tmp_path / "params.pt")
    for name, value in model.module_.state_dict().items():
        assert torch.equal(saved[name], value)
    with (tmp_path / "net.pkl").open("rb") as file:
        net = pickle.load(file)
    X = torch.tensor(blobs[0], dtype=torch.float32)
    expected = model.predict_proba(blobs[0])
    np.testing.assert_allclose(net.predict_proba(X), expected, atol=1e-5)


def test_callbacks_come_in_the_order_given(blobs):
    order = []

    class Noting(Callback):
        def __init__(self, name):
            self.name = name

        def on_epoch_end(self, net, **kwargs):
            order.append(self.name)

    callbacks = [Noting("one"), ("named", Noting("two")), Noting("three")]
    StructuredClassifier(callbacks=callbacks, max_epochs=1).fit(*blobs)
    assert order == ["one", "two", "three"]


# ---- refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (EarlyStopping(), "EarlyStopping looks for 'valid_loss'.*monitor='train_loss'"),
        (EarlyStopping, "early_stopping=True"),
        (("stop", EarlyStopping("valid_acc")), "'valid_acc', which does not exist"),
        (Checkpoint(), "'valid_loss_best'.*monitor='train_loss_best'"),
        (LRScheduler("ReduceLROnPlateau", monitor="valid_loss"), "LRScheduler looks"),
        (InputShapeSetter, "a module class or factory gets the input's shape"),
        (RegularizerCallback(CGES(0.1)), "list its regularizer in regularizers="),
        (print, "no skorch callback"),
    ],
)
def test_callbacks_that_cannot_work_are_refused_before_the_training(
    callback, words, blobs
):
    trained = []

    class Telling(Callback):
        def on_train_begin(self, net, **kwargs):
            trained.append(net)

    params = {"callbacks": [Telling(), callback], **FAST}
    for kind in (StructuredClassifier, StructuredRegressor):
        with pytest.raises(ValueError, match=words):
            kind(**params).fit(*blobs)
    base = StructuredClassifier(callbacks=[Telling()], max_epochs=1)
    with pytest.raises(ValueError, match=words):
        SelfInformedClassifier(base, **params).fit(*blobs)
    assert not trained


def test_weights_that_are_all_frozen(blobs):
    model = StructuredClassifier(callbacks=[skorch_callbacks.Freezer("*")], **FAST)
    with pytest.raises(ValueError, match="A callback has frozen all weights"):
        model.fit(*blobs)


def test_scores_without_a_hold_out_cannot_be_monitored(blobs):
    scoring, stop = EpochScoring("accuracy", name="acc"), EarlyStopping("acc")
    with pytest.raises(ValueError, match="looks for 'acc', which does not exist"):
        StructuredClassifier(callbacks=[scoring, stop], **FAST).fit(*blobs)
    scoring.set_params(on_train=True)
    StructuredClassifier(callbacks=[scoring, stop], **FAST).fit(*blobs)


@pytest.mark.parametrize("monitor", ["loss", "sparsty"])
def test_figures_that_do_not_exist_are_named(monitor, blobs):
    for callback in (EarlyStopping(monitor), Checkpoint(monitor)):
        model = StructuredClassifier(callbacks=[callback], **FAST)
        with pytest.raises(ValueError, match=f"{monitor}.*have epoch, train_loss"):
            model.fit(*blobs)
    model = StructuredClassifier(
        callbacks=[EarlyStopping("sparsity")], regularizers=[CGES(0.1)], **FAST
    )
    model.fit(*blobs)


def test_a_dataset_beyond_memory_is_scored(blobs):
    X, y = torch.tensor(blobs[0]), torch.tensor(blobs[1])
    scoring = EpochScoring("accuracy", on_train=True, name="score")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = StructuredClassifier(
            callbacks=[scoring, ProgressBar(detect_notebook=False)], **FAST
        ).fit(TensorDataset(X, y))
    assert model.history_[-1, "score"] > 0.5
    assert accuracy_score(y, model.predict(X)) > 0.5
