"""Pickles: their versions, their size, and what is in them after a training."""

import copy
import io
import pickle

import joblib
import numpy as np
import pytest
import torch
from rooms import ESTIMATORS
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning

from sklearn_structreg import (
    CGESClassifier,
    ConfusionSpectralPartitioner,
    ReNAClusterer,
    SpatialHopkins,
    StructuredClassifier,
)
from sklearn_structreg.core import versions
from sklearn_structreg.dropcluster import DropCluster

FAST = {"max_epochs": 2, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def size_of(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return len(buffer.getvalue())


@pytest.mark.parametrize("kind", ESTIMATORS, ids=lambda kind: kind.__name__)
def test_a_pickle_is_hardly_larger_than_the_weights(digits, kind):
    X, y = digits[0][:200], digits[1][:200]
    model = kind(hidden_layer_sizes=(256, 256), early_stopping=True, **FAST).fit(X, y)
    n_bytes = size_of(model.module_.state_dict())
    if hasattr(model, "estimator_"):
        n_bytes += size_of(model.estimator_.module_.state_dict())
    assert len(pickle.dumps(model)) < 1.5 * n_bytes
    elsewhere = copy.deepcopy(model)
    elsewhere.net_.device = "cpu:0"  # stands for another device on any machine
    assert len(pickle.dumps(elsewhere)) < 1.5 * n_bytes
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    assert len(buffer.getvalue()) < 1.5 * n_bytes


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_stream_after_a_fit_begins_with_a_fresh_optimizer(digits, optimizer):
    X, y = digits
    model = StructuredClassifier(optimizer=optimizer, early_stopping=True, **FAST)
    model.fit(X, y).set_params(early_stopping=False)
    assert not model.net_.optimizer_.state
    stopping = dict(model.net_.callbacks_)["early_stopping"]
    assert stopping.best_model_weights_ is None
    others = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    for each in (model, *others):
        for _ in range(2):
            each.partial_fit(X, y)
        assert each.net_.optimizer_.state
    for other in others:
        for one, two in zip(
            model.module_.parameters(), other.module_.parameters(), strict=True
        ):
            assert torch.equal(one, two)


def test_one_module_before_and_after(digits):
    model = CGESClassifier(**FAST).fit(*digits)
    for each in (model, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert each.net_.module is each.net_.module_ is each.module_
    assert not hasattr(clone(model), "net_")


@pytest.mark.parametrize(
    "make",
    [
        lambda X, y: StructuredClassifier(**FAST).fit(X, y),
        lambda X, y: StructuredClassifier(regularizers=[DropCluster()]),
        lambda X, y: ReNAClusterer(2).fit(X),
        lambda X, y: SpatialHopkins(image_shape=(8, 8)).fit(X),
        lambda X, y: ConfusionSpectralPartitioner(2, random_state=0).fit(
            np.eye(10)[y] + X[:, :10], y
        ),
    ],
    ids=["fitted", "not fitted", "clusterer", "transformer", "partitioner"],
)
def test_other_versions_warn(digits, monkeypatch, make):
    model = make(digits[0][:100], digits[1][:100])
    pickled = pickle.dumps(model)
    state = vars(pickle.loads(pickled))
    assert state.keys() == vars(model).keys()
    monkeypatch.setattr(versions, "__version__", "0.2.0")
    with pytest.warns(InconsistentVersionWarning, match=r"0\.1\.0 \(now 0\.2\.0\)"):
        pickle.loads(pickled)


def test_a_pickle_without_versions_warns():
    model = StructuredClassifier(max_epochs=7)
    with pytest.warns(InconsistentVersionWarning, match="structreg of an unknown ver"):
        model.__setstate__({"max_epochs": 3})
    assert model.max_epochs == 3


def test_state_dicts_load_without_pickle(digits):
    for kind in ESTIMATORS:
        model = kind(hidden_layer_sizes=(8,), **FAST).fit(
            digits[0][:200], digits[1][:200]
        )
        buffer = io.BytesIO()
        torch.save(model.module_.state_dict(), buffer)
        buffer.seek(0)
        state = torch.load(buffer, weights_only=True)
        expected = model.module_.state_dict()
        assert list(state) == list(expected)
        assert all(torch.equal(state[name], expected[name]) for name in state)
