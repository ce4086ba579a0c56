"""Estimators in files and in pickles: the same ones come back, and go on."""

import copy
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rooms import ESTIMATORS
from sklearn.base import is_classifier
from torch import nn

from sklearn_structreg import (
    BlockoutClassifier,
    BlockoutRegressor,
    CGESClassifier,
    CGESRegressor,
    DropClusterClassifier,
    SelfInformedClassifier,
    StructuredClassifier,
    StructuredRegressor,
)
from sklearn_structreg.baselines import L2SP, DropBlock, Dropout
from sklearn_structreg.blockout import Blockout
from sklearn_structreg.cges import CGES, IterativePruning
from sklearn_structreg.core.saving import FORMAT
from sklearn_structreg.dropcluster import DropCluster

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
FIXTURES = Path(__file__).parent / "fixtures"
SAVED = sorted(path.stem for path in FIXTURES.glob("*.safetensors"))
FAST = {"max_epochs": 2, "hidden_layer_sizes": (12,), "random_state": 0}
IMAGES = {"image_shape": (1, 8, 8), **FAST}
HEADS = {"head_layer_sizes": (8,), **FAST}
DROPS = {"start_epoch": 1, "update_every": 1}


class Wide(nn.Module):
    """A network of the user's own."""

    def __init__(self, input_shape, n_outputs, width=8):
        super().__init__()
        self.first = nn.Linear(*input_shape, width)
        self.norm, self.last = nn.BatchNorm1d(width), nn.Linear(width, n_outputs)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu())


def net():
    return nn.Sequential(
        nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10)
    )


@pytest.fixture(scope="module")
def rows(digits):
    X, y = digits
    return X[:200].copy(), y[:200].copy()


def same(one, two):
    """Compare the networks bit for bit."""
    states = one.module_.state_dict(), two.module_.state_dict()
    return [*states[0]] == [*states[1]] and all(
        torch.equal(a, states[1][name]) for name, a in states[0].items()
    )


def outputs(model, X):
    return (model.predict_proba if is_classifier(model) else model.predict)(X)


def figures(model):
    """Return the history without the durations."""
    return [{k: v for k, v in row.items() if k != "dur"} for row in model.history_]


def described(model):
    """Show the parameters, without the addresses of objects."""
    return re.sub("0x[0-9A-F]+", "", str(model.get_params()))


def reloaded(model, path, **module):
    model.save(path / "model")
    loaded = type(model).load(path / "model", **module)
    assert same(model, loaded)
    assert described(loaded) == described(model)
    assert {k for k in vars(loaded) if k[-1] == "_"} == {
        k for k in vars(model) if k[-1] == "_"
    }
    return loaded


CASES = {
    "labels": (
        StructuredClassifier,
        FAST,
        lambda X, y: (X, np.array([*"abcdefghij"])[y]),
    ),
    "several labels": (
        CGESClassifier,
        {"alpha": 0.01, **FAST},
        lambda X, y: (X, np.column_stack([y > 3, y % 2])),
    ),
    "names": (
        StructuredRegressor,
        FAST,
        lambda X, y: (pd.DataFrame(X).add_prefix("pixel "), y),
    ),
    "targets": (BlockoutRegressor, FAST, lambda X, y: (X, np.column_stack([y, -y]))),
    "float64": (CGESRegressor, {"dtype": "float64", **FAST}, None),
    "images": (StructuredClassifier, IMAGES, None),
    "raw images": (
        CGESClassifier,
        {"standardize": False, "alpha": 0.05, **FAST},
        lambda X, y: (X.reshape(-1, 1, 8, 8), y),
    ),
    "soft": (BlockoutClassifier, {"assignment": "soft", **FAST}, None),
    "per sample": (BlockoutClassifier, {"mask_per": "sample", **FAST}, None),
    "fixed": (BlockoutClassifier, {"learn_probabilities": False, **FAST}, None),
    "clusters": (DropClusterClassifier, {**DROPS, **IMAGES}, None),
    "hopkins": (
        DropClusterClassifier,
        {"unstructured": "hopkins", "hopkins_threshold": 0.7, **DROPS, **IMAGES},
        None,
    ),
    "pruning": (
        CGESClassifier,
        {"target_density": 0.3, "pruning_start": 0.0, "max_epochs": 6} | FAST,
        None,
    ),
    "everything": (
        StructuredClassifier,
        {
            "regularizers": [
                IterativePruning(0.5, pruning_start=0.0, pruning_rounds=1),
                ("sparse", CGES(0.01, layer_scale=[1.0, (0.5, 0.5), 1, 1])),
                Blockout(3),
                DropCluster(0.2, **DROPS),
                Dropout(0.2),
                L2SP(0.01),
                DropBlock(),
            ],
            **IMAGES,
        },
        None,
    ),
    "parameters": (
        StructuredClassifier,
        {
            "optimizer": torch.optim.RMSprop,
            "learning_rate": np.float64(0.01),
            "lr_schedule": "cosine",
            "early_stopping": True,
            "class_weight": {0: 2.0, 1: 0.5},
            "device": torch.device("cpu"),
            "criterion": nn.CrossEntropyLoss(label_smoothing=0.1),
            "callbacks": [],
            "random_state": np.random.RandomState(1),
            "hidden_layer_sizes": np.array([9, 5]),
            "max_epochs": 3,
        },
        None,
    ),
    "heads": (
        SelfInformedClassifier,
        {"regularizers": [Dropout(0.1), CGES(0.01)], "n_rounds": 2, **HEADS},
        None,
    ),
    "fine-tuned heads": (
        SelfInformedClassifier,
        {
            "estimator": BlockoutClassifier(n_clusters=3, **FAST),
            "fine_tune": True,
            "head_allocation": "difficulty",
            "regularizers": [Dropout(0.1)],
            "conditional": 2,
            **HEADS,
        },
        None,
    ),
    "no heads": (SelfInformedClassifier, {"n_clusters": 0, **HEADS}, None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_file_gives_the_same_estimator_that_goes_on_alike(rows, tmp_path, case):
    kind, params, change = case
    X, y = (change or (lambda *data: data))(*rows)
    model = kind(**copy.deepcopy(params)).fit(X, y)
    loaded = reloaded(model, tmp_path)
    np.testing.assert_array_equal(outputs(loaded, X), outputs(model, X))
    for name in ("classes_", "feature_names_in_", "target_mean_"):
        one, two = getattr(model, name, None), getattr(loaded, name, None)
        np.testing.assert_array_equal(one, two)
        assert getattr(one, "dtype", None) == getattr(two, "dtype", None)
    assert list(loaded.history_) == list(model.history_)
    assert list(loaded.regularizers_) == list(model.regularizers_)
    assert repr(loaded.simplified_module()) == repr(model.simplified_module())
    assert str(loaded.size_report(X, n_repeats=0)) == str(
        model.size_report(X, n_repeats=0)
    )
    for each in (model, loaded):
        each.set_params(warm_start=True).fit(X, y)
    assert same(model, loaded)
    assert same(pickle.loads(pickle.dumps(loaded)), model)


@pytest.mark.parametrize("kind", ESTIMATORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("own", [False, True], ids=["auto", "own module"])
def test_streams_go_on_after_a_file_as_if_there_had_been_none(
    rows, tmp_path, kind, own
):
    X, y = rows
    y = y if hasattr(kind, "predict_proba") else np.column_stack([y] * 10)
    module = {"module": net()} if own else {}
    model = kind(**FAST, **module).fit(X, y)
    if not hasattr(model, "partial_fit"):
        loaded = reloaded(model, tmp_path, **module)
        np.testing.assert_array_equal(outputs(loaded, X), outputs(model, X))
        return
    for optimizer in ("adam", "sgd"):  # a change in between
        model.set_params(optimizer=optimizer).partial_fit(X, y)
        others = [reloaded(model, tmp_path, **module)]
        others += [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
        for each in (model, *others):
            each.partial_fit(X, y[::-1]).partial_fit(X[:50], y[:50])
        assert all(same(model, other) for other in others)
        assert all(figures(model) == figures(other) for other in others)


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
def test_files_of_earlier_versions_still_predict(saved):
    name, _, number = saved.rpartition("-")
    expected = json.loads((FIXTURES / f"predictions-{number}.json").read_text("utf-8"))
    kind = {each.__name__: each for each in ESTIMATORS}[name.partition("+")[0]]
    model = kind.load(FIXTURES / f"{saved}.safetensors")
    X = np.sin(np.arange(144.0)).reshape(24, 6)  # as in fixtures/make.py
    np.testing.assert_allclose(outputs(model, X), expected[name], rtol=0, atol=1e-5)
    y = model.predict(X)
    if name.endswith("CV"):  # trains anew
        return
    model.set_params(warm_start=True, early_stopping=False).fit(X, y)
    assert model.n_iter_ > 2


def test_every_estimator_has_a_file_of_the_present_format():
    assert {f"{kind.__name__}-{FORMAT}" for kind in ESTIMATORS} <= {*SAVED}
