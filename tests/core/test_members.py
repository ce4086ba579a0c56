"""Several networks that differ in their seeds alone, as one estimator."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    CGESRegressor,
    DropClusterClassifier,
    SelfInformedClassifier,
    StructuredClassifier,
    StructuredRegressor,
)
from sklearn_structreg.baselines import Dropout
from sklearn_structreg.blockout import ExpectedClustersDisplay
from sklearn_structreg.cges import SparsityDisplay
from sklearn_structreg.core import together
from sklearn_structreg.core.stacking import groups_of

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning"  # few epochs
)

HOW = {
    "hidden_layer_sizes": (20,),
    "dtype": "float64",
    "max_epochs": 3,
    "n_members": 3,
    "random_state": 0,
}
CASES = {
    "classes": StructuredClassifier(regularizers=[Dropout(0.2)], **HOW),
    "labels": CGESClassifier(**HOW),
    "numbers": CGESRegressor(**HOW),
    "one batch": CGESClassifier(batch_size=None, **HOW),
    "early stopping": StructuredClassifier(
        early_stopping=True, n_iter_no_change=1, **{**HOW, "max_epochs": 30}
    ).set_params(learning_rate=0.3),
    "blockout": BlockoutClassifier(n_clusters=2, **HOW),
    "self-informed": SelfInformedClassifier(n_clusters=2, head_layer_sizes=(5,), **HOW),
}


@pytest.fixture(scope="module")
def data():
    X, y = load_digits(return_X_y=True)
    return X[:200], y[:200]


@pytest.fixture
def sizes(monkeypatch):
    """The sizes of the groups of the last call."""
    found = []

    def noted(jobs):
        groups = groups_of(jobs)
        found[:] = [len(group) for group in groups]
        return groups

    monkeypatch.setattr(together, "groups_of", noted)
    return found


def outputs_of(model, X):
    name = "predict_proba" if hasattr(model, "predict_proba") else "predict"
    return getattr(model, name)(X)


def mean_of(models, X):
    return np.mean([outputs_of(each, X) for each in models], axis=0)


@pytest.mark.parametrize("name", CASES)
def test_prediction_is_the_mean_of_networks_fitted_alone(data, sizes, name, tmp_path):
    X, y = data
    targets = {"labels": np.c_[y > 4, y % 2, y == 0].astype(int), "numbers": y / 3}
    y = targets.get(name, y)
    model = clone(CASES[name]).fit(X, y)
    assert (sizes == [3]) == (name != "self-informed")
    seeds = {each.random_state for each in model.estimators_}
    assert len(seeds) == len(model.estimators_) == 3
    alone = [clone(each).fit(X, y) for each in model.estimators_]
    assert {each.n_members for each in alone} == {1}
    found, expected = outputs_of(model, X), mean_of(alone, X)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    if name == "early stopping":
        assert len({each.n_iter_ for each in model.estimators_}) > 1
    if name == "labels":
        np.testing.assert_array_equal(model.predict(X), expected > 0.5)
    elif name != "numbers":
        np.testing.assert_array_equal(model.predict(X), expected.argmax(axis=1))

    copy = pickle.loads(pickle.dumps(model))
    model.save(tmp_path / "model.safetensors")
    loaded = type(model).load(tmp_path / "model.safetensors")
    for other in (copy, loaded):
        np.testing.assert_array_equal(outputs_of(other, X), found)
        assert repr(other) == repr(model)
    if name not in ("self-informed", "early stopping"):
        loaded.partial_fit(X, y)
        model.partial_fit(X, y)
        np.testing.assert_array_equal(outputs_of(loaded, X), outputs_of(model, X))
    small = model.compact()
    assert len(small.estimators_) == model.n_members
    np.testing.assert_allclose(
        outputs_of(small, X), outputs_of(model, X), rtol=0, atol=1e-8
    )
    sizes_of_one = model.estimators_[0].size_report(X)
    assert model.size_report(X).n_plain == model.n_members * sizes_of_one.n_plain
    report = model.export(tmp_path / "model.pt2", compact=True)
    assert report.max_difference < 1e-8


def test_one_member_is_the_plain_estimator(data):
    X, y = data
    plain = CGESClassifier(max_epochs=2, random_state=0).fit(X, y)
    one = CGESClassifier(max_epochs=2, random_state=0, n_members=1).fit(X, y)
    assert vars(one).keys() == vars(plain).keys()
    states = one.module_.state_dict(), plain.module_.state_dict()
    assert [*states[0]] == [*states[1]]
    assert all(map(torch.equal, *(state.values() for state in states)))


def test_members_are_trained_further(data):
    X, y = data
    model = StructuredClassifier(**HOW).fit(X, y)
    alone = [clone(each).fit(X, y) for each in model.estimators_]
    model.partial_fit(X[:50], y[:50])
    for each in alone:
        each.partial_fit(X[:50], y[:50])
    np.testing.assert_allclose(model.predict_proba(X), mean_of(alone, X), rtol=1e-8)
    model.set_params(warm_start=True, max_epochs=2).fit(X, y)
    for each in alone:
        each.set_params(warm_start=True, max_epochs=2).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), mean_of(alone, X), rtol=1e-8)
    assert model.n_iter_ == 3 + 1 + 2
    for n_members in (1, 2):
        with pytest.raises(ValueError, match="n_members cannot change from 3"):
            model.set_params(n_members=n_members).fit(X, y)
        with pytest.raises(ValueError, match="n_members cannot change from 3"):
            model.partial_fit(X, y)


def test_partial_fit_trains_all_or_none(data):
    X, y = data
    model = StructuredRegressor(**HOW).fit(X, y / 1.0)
    before = model.predict(X)

    def fail(*args):
        raise RuntimeError("out of memory")

    model.estimators_[-1]._fit_further = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        model.partial_fit(X, y / 1.0)
    np.testing.assert_array_equal(model.predict(X), before)


def test_figures_of_one_network_and_of_all(data):
    X, y = data
    model = CGESClassifier(alpha=1.0, **HOW).fit(X, y)
    members = model.estimators_
    expected = np.mean([each.feature_importances_ for each in members], axis=0)
    np.testing.assert_allclose(model.feature_importances_, expected)
    assert model.sparsity_ == pytest.approx(np.mean([m.sparsity_ for m in members]))
    assert model.n_parameters_ == 3 * members[0].n_parameters_
    figures = [lambda: SparsityDisplay.from_estimator(model)]
    blockout = BlockoutClassifier(n_clusters=2, **HOW).fit(X, y)
    figures += [
        lambda: blockout.cluster_probabilities_,
        blockout.fold,
        lambda: ExpectedClustersDisplay.from_estimator(blockout),
    ]
    maps = {**HOW, "n_members": 2, "max_epochs": 1}
    dropcluster = DropClusterClassifier(image_shape=(8, 8), **maps).fit(X, y)
    figures.append(lambda: dropcluster.n_clusters_)
    for figure in figures:
        with pytest.raises(AttributeError, match="look at one of estimators_"):
            figure()


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_members": 0}, "'n_members'"),
        ({"checkpoint": "folder"}, "set checkpoint=None"),
        ({"learning_rate": 1e300}, "lower learning_rate"),
    ],
)
def test_a_fit_that_fails_leaves_the_estimator(data, params, match):
    model = StructuredClassifier(**HOW).set_params(**params)
    with pytest.raises(ValueError, match=match):
        model.fit(*data)
    assert not hasattr(model, "estimators_")


def test_heads_go_on_one_network(data):
    inner = StructuredClassifier(**HOW)
    with pytest.raises(ValueError, match="that of the SelfInformedClassifier"):
        SelfInformedClassifier(inner, n_clusters=2).fit(*data)
