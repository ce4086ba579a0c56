"""Compaction of a fitted estimator."""

import copy
import pickle

import numpy as np
import pytest
import torch
from compaction.networks import count
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from torch import nn

from sklearn_structreg import (
    BlockoutClassifier,
    BlockoutRegressor,
    CGESClassifier,
    CGESClassifierCV,
    CGESRegressor,
    DropClusterClassifier,
    SelfInformedClassifier,
    StructuredClassifier,
    StructuredRegressor,
)
from sklearn_structreg.baselines import Dropout

IGNORE = "ignore::sklearn.exceptions.ConvergenceWarning"
FILTERS = {"penalty": "group", "groups": "filter", "alpha": 0.7}
FEATURES = {"penalty": "group", "groups": "feature", "alpha": 0.7}


def fitted(digits, images=False, **params):
    X, y = digits
    settings = {"max_epochs": 20, "random_state": 0, "hidden_layer_sizes": (60,)}
    if images:
        settings["image_shape"], X, y = (1, 8, 8), X[:500], y[:500]
        params["alpha"] *= 3
    return CGESClassifier(**settings | params).fit(X, y)


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("groups", [FEATURES, FILTERS])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outputs_are_the_same(digits, images, groups, dtype):
    model = fitted(digits, images, dtype=dtype, **groups)
    assert model.score(*digits) > 0.5  # far from chance, so far from all zeros
    before = copy.deepcopy(model.module_.state_dict())
    smaller = model.compact().simplified_module()
    assert count(smaller) < 0.9 * count(model.module_)
    assert not smaller.training
    X = torch.tensor(digits[0], dtype=getattr(torch, dtype))
    with torch.no_grad():
        got = smaller(X.reshape(-1, *model.input_shape_)).double().numpy()
    expected = model.decision_function(digits[0])
    tolerance = {"float32": 1e-6, "float64": 1e-12}[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)
    for name, tensor in model.module_.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_smaller_estimator_predicts_as_before(digits, tmp_path):
    X, y = digits
    dense = fitted(digits, **FEATURES)
    model, whole = dense.compact(), copy.deepcopy(dense.module_.state_dict())
    assert type(model) is CGESClassifier
    assert model.n_parameters_ == count(model.module_) < count(dense.module_)
    assert model.n_iter_ == dense.n_iter_
    model.save(tmp_path / "model")
    loaded = CGESClassifier.load(tmp_path / "model")
    for fresh in (model, loaded, pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(fresh.predict(X), dense.predict(X))
        np.testing.assert_allclose(
            fresh.predict_proba(X), dense.predict_proba(X), rtol=0, atol=1e-6
        )
    with pytest.raises(NotFittedError):
        clone(model).predict(X)
    assert clone(model).get_params() == dense.get_params()
    model.partial_fit(X, y)
    for name, tensor in dense.module_.state_dict().items():
        assert torch.equal(tensor, whole[name])
    model.fit(X, y)  # a fit that does not go on starts with the whole network
    assert count(model.module_) == count(dense.module_)


@pytest.mark.parametrize("n_members", [1, 2])
def test_columns_that_say_nothing_cost_nothing(digits, tmp_path, n_members):
    noise = np.random.default_rng(0).normal(5, 30, (500, 150))
    X, y = np.c_[digits[0][:500], noise], digits[1][:500] == 3
    model = CGESClassifier(
        alpha=0.4, penalty="group", n_members=n_members, max_epochs=60, random_state=0
    )
    model.fit(X, y)
    n_read = np.count_nonzero(model.feature_importances_)
    smaller = model.compact()
    assert 5 < n_read < 64
    assert count(smaller.module_) < 0.2 * count(model.module_)
    smaller.save(tmp_path / "model.safetensors")
    loaded = CGESClassifier.load(tmp_path / "model.safetensors")
    for each in (smaller, loaded, copy.deepcopy(smaller), smaller.compact()):
        np.testing.assert_allclose(
            each.predict_proba(X), model.predict_proba(X), rtol=1e-5, atol=1e-7
        )
    assert np.count_nonzero(smaller.feature_importances_) == n_read
    plain = smaller.simplified_module()  # takes raw samples
    with torch.no_grad():
        logits = plain(torch.tensor(X, dtype=torch.float32)).double().numpy()
    np.testing.assert_allclose(logits, model._logits(X), rtol=1e-4, atol=1e-4)
    for each in (smaller, loaded):
        each.partial_fit(X, y)
    np.testing.assert_array_equal(smaller.predict_proba(X), loaded.predict_proba(X))


def test_a_regressor_predicts_as_before(digits):
    X, y = digits
    dense = CGESRegressor(max_epochs=10, random_state=0, **FEATURES | {"alpha": 0.1})
    model = dense.fit(X, y).compact()
    assert count(model.module_) < count(dense.module_)
    np.testing.assert_allclose(model.predict(X), dense.predict(X), rtol=0, atol=1e-4)
    assert model.score(X, y) > 0.5


LAYERS_THAT_GO = {
    "blockout": BlockoutClassifier(),
    "dropcluster": DropClusterClassifier(image_shape=(1, 8, 8)),
    "dropout": CGESClassifier(regularizers=[Dropout(0.2)]),
    "raw": BlockoutClassifier(standardize=False),
    "numbers": BlockoutRegressor(),
    "heads": SelfInformedClassifier(n_clusters=3, cv=None),
    "average": CGESClassifierCV(alphas=[0.3], cv=2, regularizers=[Dropout(0.2)]),
}


@pytest.mark.parametrize("name", LAYERS_THAT_GO)
def test_layers_of_regularizers_are_gone(digits, name, tmp_path):
    X, y = digits[0][:400], digits[1][:400]
    model = clone(LAYERS_THAT_GO[name]).set_params(max_epochs=3, random_state=0)
    smaller = model.fit(X, y).compact()
    plain = StructuredRegressor if name == "numbers" else StructuredClassifier
    assert type(smaller) is plain
    method = "predict" if name == "numbers" else "predict_proba"
    expected = getattr(model, method)(X)
    smaller.save(tmp_path / "model")
    own = None if smaller.module == "auto" else smaller.module
    for each in (smaller, plain.load(tmp_path / "model", module=own)):
        np.testing.assert_allclose(getattr(each, method)(X), expected, atol=1e-4)
    n_before = smaller.n_iter_
    smaller.set_params(warm_start=True).fit(X, y)
    assert smaller.n_iter_ == n_before + 3
    assert smaller.partial_fit(X, y).score(X, y) > model.score(X, y) - 0.1
    np.testing.assert_array_equal(getattr(model, method)(X), expected)


def test_training_goes_on_with_the_smaller_network(digits):
    X, y = digits
    model = fitted(digits, warm_start=True, **FEATURES)
    model = model.compact()
    shapes = [p.shape for p in model.module_.parameters()]
    twin = pickle.loads(pickle.dumps(model))
    for each in (model, twin):
        each.partial_fit(X, y)
        each.partial_fit(X, y)
    assert [p.shape for p in model.module_.parameters()] == shapes
    assert model.n_iter_ == 22
    assert model.sparsity_ > 0
    np.testing.assert_array_equal(model.decision_function(X), twin.decision_function(X))
    model.fit(X, y)
    assert model.n_iter_ == 42
    assert [p.shape for p in model.module_.parameters()] == shapes
    assert model.score(X, y) > 0.9


@pytest.mark.filterwarnings(IGNORE)
def test_all_weights_gone(digits):
    model = fitted(digits, images=True, alpha=50.0, penalty="group")
    assert model.sparsity_ == 1.0
    before = model.predict_proba(digits[0])
    model = model.compact()
    assert model.n_parameters_ < 100
    np.testing.assert_allclose(model.predict_proba(digits[0]), before, atol=1e-6)
    model.partial_fit(*digits)


def test_a_search_s_best_estimator_can_be_compacted(blobs):
    search = GridSearchCV(
        CGESClassifier(max_epochs=3, random_state=0), {"alpha": [0.1, 1.0]}, cv=2
    ).fit(*blobs)
    assert search.best_estimator_.compact().predict(blobs[0]).shape == (90,)


@pytest.mark.filterwarnings(IGNORE)
def test_errors(digits, blobs):
    with pytest.raises(NotFittedError):
        CGESClassifier().compact()

    def with_bilinear(input_shape, n_outputs):
        return nn.Sequential(nn.Linear(4, 4), nn.Hardtanh(), Odd(), nn.Linear(4, 3))

    model = CGESClassifier(with_bilinear, max_epochs=1).fit(*blobs)
    before = model.predict_proba(blobs[0])
    with pytest.raises(ValueError, match=r"The layer '2' \(Odd\)"):
        model.compact()
    np.testing.assert_array_equal(model.predict_proba(blobs[0]), before)


class Odd(nn.Module):
    """Cannot be followed."""

    def forward(self, x):
        return x if x.sum() > 0 else -x
