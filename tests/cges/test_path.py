"""Warm-started paths of strengths, and what they report."""

import re

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from torch import nn

from sklearn_structreg.cges import CGESClassifier, CGESRegressor, cges_path

ALPHAS = [0.3, 0.0, 0.05]


@pytest.fixture(scope="module")
def halves(digits):
    X, y = digits
    return X[::2], y[::2], X[1::2], y[1::2]


@pytest.fixture(scope="module")
def model():
    return CGESClassifier(max_epochs=8, random_state=0)


def test_each_network_goes_on_from_the_weaker_one(halves, model):
    X, y, X_test, y_test = halves
    path = cges_path(model, *halves, alphas=ALPHAS)
    np.testing.assert_array_equal(path.alphas, [0.0, 0.05, 0.3])
    by_hand = CGESClassifier(max_epochs=8, random_state=0, warm_start=True)
    for step, alpha in enumerate(path.alphas):
        by_hand.set_params(alpha=alpha).fit(X, y)
        fitted = path.estimators[step]
        assert fitted.alpha == alpha
        for one, two in zip(
            fitted.module_.parameters(), by_hand.module_.parameters(), strict=True
        ):
            assert torch.equal(one, two)
        assert path.scores[step] == by_hand.score(X_test, y_test)
        assert path.sparsity[step] == by_hand.sparsity_
        weights = [p for p in by_hand.module_.parameters() if p.ndim > 1]
        nonzero = sum(int((w != 0).sum()) for w in weights)
        assert path.multiply_adds[step] == pytest.approx(nonzero / 7400)
        assert path.parameters[step] == by_hand.n_nonzero_parameters_ / 7510
    assert not hasattr(model, "net_")
    assert (np.diff(path.sparsity) > 0).all()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_from_strong_to_weak_networks_stay_empty(halves, model):
    model = clone(model).set_params(max_epochs=5)
    path = cges_path(model, *halves, alphas=[0.0, 30.0], order="decreasing")
    np.testing.assert_array_equal(path.alphas, [0.0, 30.0])
    assert [m.alpha for m in path.estimators] == [0.0, 30.0]
    assert (path.scores < 0.2).all()
    X, y, X_test, y_test = halves
    assert model.set_params(alpha=0.0).fit(X, y).score(X_test, y_test) > 0.8


def test_a_network_that_only_the_path_has_emptied():
    X, y = load_wine(return_X_y=True)
    model = CGESClassifier(
        penalty="group", optimizer="adam", learning_rate=0.05, max_epochs=60
    ).set_params(random_state=0)
    halves = X[::2], y[::2], X[1::2], y[1::2]
    with pytest.warns(ConvergenceWarning) as caught:
        path = cges_path(model, *halves, alphas=[0.1, 1.0, 1.1])
    assert len(caught) == 1
    assert re.match("At alpha=1: .*no weight left.*alone", str(caught[0].message))
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(path.sparsity == 1, [False, True, True])
    assert model.set_params(alpha=1.0).fit(X[::2], y[::2]).sparsity_ < 0.7


def test_an_unknown_order(halves, model):
    with pytest.raises(ValueError, match="order='up' must be"):
        cges_path(model, *halves, alphas=[0.1], order="up")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_convolution_counts_by_pixel(halves):
    X, y, X_test, y_test = halves
    model = CGESClassifier(image_shape=(1, 8, 8), max_epochs=1, random_state=0)
    path = cges_path(model, X[:200], y[:200], X_test[:50], y_test[:50], alphas=[2.0])
    uses = {0: 64, 3: 16, 7: 1, 9: 1}  # pixels of each layer's output
    weights = {i: path.estimators[0].module_[i].weight for i in uses}
    left = sum(n * int((weights[i] != 0).sum()) for i, n in uses.items())
    whole = sum(n * weights[i].numel() for i, n in uses.items())
    assert path.multiply_adds[0] == pytest.approx(left / whole)
    assert 0 < left < whole


def test_test_samples_that_do_not_fit_are_found_after_the_first_network(halves):
    X, y, X_test, y_test = halves
    epochs = []

    class Count(Callback):
        def on_epoch_end(self, net, **kwargs):
            epochs.append(1)

    model = CGESClassifier(max_epochs=1, callbacks=[Count()])
    with pytest.raises(ValueError, match="X has 5 features"):
        cges_path(model, X, y, X_test[:, :5], y_test, alphas=ALPHAS)
    assert len(epochs) == 1


class WithProduct(nn.Module):
    """Half of its multiply-adds are a matrix product with a parameter of its own."""

    def __init__(self, n_outputs):
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(64))
        self.layer, self.last = nn.Linear(64, 54), nn.Linear(54, n_outputs)

    def forward(self, X):
        return self.last(torch.relu(self.layer(X @ self.matrix)))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_products_outside_of_layers_count(halves):
    model = CGESClassifier(WithProduct, max_epochs=2, random_state=0, penalty="l1")
    with pytest.warns(UserWarning, match="layers are penalised, not matrix"):
        path = cges_path(model, *halves, alphas=[0.0, 1e3])
    assert path.sparsity[1] == 1
    product, layers = 64 * 64, 64 * 54 + 54 * 10
    np.testing.assert_allclose(path.multiply_adds, [1, product / (product + layers)])


def test_regressors_have_a_path(halves):
    X, y, X_test, y_test = halves
    model = CGESRegressor(learning_rate=0.01, max_epochs=10, random_state=0)
    path = cges_path(model, X, y, X_test, y_test, alphas=[0.0, 0.02, 0.2])
    assert path.scores[0] > 0.6
    assert path.scores[1] == path.estimators[1].score(X_test, y_test)
    assert (np.diff(path.sparsity) > 0).all()
    assert (np.diff(path.multiply_adds) < 0).all()


def test_a_checkpoint_is_for_a_single_fit(halves, model, tmp_path):
    model = clone(model).set_params(checkpoint=tmp_path)
    with pytest.raises(ValueError, match="cges_path.*set checkpoint=None"):
        cges_path(model, *halves, alphas=ALPHAS)
    assert not list(tmp_path.iterdir())


def test_a_pipeline_is_told_what_to_do(halves):
    with pytest.raises(TypeError, match="got Pipeline. Of a pipeline give the last"):
        cges_path(make_pipeline(CGESClassifier()), *halves, alphas=ALPHAS)
