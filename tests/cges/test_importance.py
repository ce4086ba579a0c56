"""Feature importances: what they are, and that scikit-learn's selectors take them."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import RFE, RFECV, SelectFromModel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_structreg.cges import CGESClassifier
from sklearn_structreg.cges.importance import first_layer_norms

FAST = {"max_epochs": 3, "random_state": 0}


@pytest.fixture(scope="module")
def planted():
    """Wine with ten columns of noise: X (178, 23), y, and which columns are wine."""
    X, y = load_wine(return_X_y=True)
    rng = np.random.default_rng(0)
    X = np.hstack([X, rng.normal(size=(len(X), 10))])
    order = rng.permutation(23)
    return StandardScaler().fit_transform(X)[:, order], y, order < 13


# ---- what they are -------------------------------------------------------------


def test_norms_of_the_columns_of_the_first_layer(digits):
    model = CGESClassifier(**FAST).fit(*digits)
    weight = model.module_[0].weight.detach().double().numpy()
    assert model.feature_importances_.dtype == np.float64
    np.testing.assert_allclose(
        model.feature_importances_, np.sqrt((weight**2).sum(axis=0)), rtol=1e-12
    )
    with torch.no_grad():
        model.module_[0].weight[:, 7] = 0
    assert (np.flatnonzero(model.feature_importances_ == 0) == [7]).all()


@pytest.mark.parametrize("shape", [None, (1, 8, 8)])
def test_the_units_of_the_features_do_not_matter(blobs, digits, shape):
    X, y = blobs if shape is None else (digits[0][:300], digits[1][:300])
    units = np.array([1e-3, 1.0, 60.0, 1e6]) if shape is None else 255.0
    one = CGESClassifier(image_shape=shape, dtype="float64", **FAST).fit(X, y)
    other = clone(one).fit(units * (X + 10), y)
    np.testing.assert_allclose(
        other.feature_importances_, one.feature_importances_, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(2, 3, 3, padding=1, stride=2), (2, 7)),
        (nn.Conv2d(2, 4, (3, 2), padding=(0, 1), dilation=2), (2, 6, 5)),
        (nn.Conv2d(4, 4, 3, groups=2), (4, 5, 4)),
        (nn.Conv3d(1, 2, 2), (1, 3, 4, 3)),
    ],
)
def test_pixels_have_the_norms_of_the_convolutions_matrix(layer, shape):
    layer = layer.double()
    n_features = int(np.prod(shape))
    units = torch.eye(n_features, dtype=torch.float64).reshape(-1, *shape)
    with torch.no_grad():
        matrix = layer(units) - layer(torch.zeros_like(units))
    expected = matrix.reshape(n_features, -1).norm(dim=1).numpy()
    found = first_layer_norms(layer, "weight", shape)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_zero_means_that_the_feature_changes_nothing(digits):
    X, y = digits
    model = CGESClassifier(
        penalty="group", alpha=0.5, max_epochs=20, random_state=0
    ).fit(X, y)
    unused = model.feature_importances_ == 0
    assert 0 < unused.sum() < 64
    changed = X.copy()
    changed[:, unused] = 1e3 * np.random.default_rng(0).normal(
        size=(1797, unused.sum())
    )
    np.testing.assert_array_equal(model.predict_proba(changed), model.predict_proba(X))
    used = X.copy()
    used[:, ~unused] = 0.3
    assert (model.predict_proba(used) != model.predict_proba(X)).all(
        axis=1
    ).mean() > 0.9


class Residual(nn.Module):
    """The features also go around the first layer."""

    def __init__(self, input_shape, n_outputs):
        super().__init__()
        self.first = nn.Linear(*input_shape, 8)
        self.last = nn.Linear(8 + input_shape[0], n_outputs)

    def forward(self, X):
        return self.last(torch.cat([self.first(X), X], 1))


def mixing(input_shape, n_outputs):
    return nn.Sequential(nn.LayerNorm(input_shape), nn.Linear(*input_shape, n_outputs))


def shuffled(input_shape, n_outputs):
    return nn.Sequential(
        nn.Unflatten(1, (2, 2)), Transpose(), nn.Flatten(), nn.Linear(4, n_outputs)
    )


class Transpose(nn.Module):
    def forward(self, X):
        return X.mT


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Residual, "also reach the outputs past that layer"),
        (mixing, "its inputs are not the features one by one"),
        (shuffled, "its inputs are not the features one by one"),
    ],
)
def test_networks_whose_first_layer_does_not_tell(blobs, module, message):
    model = CGESClassifier(module, **FAST).fit(*blobs)
    before = {name: p.clone() for name, p in model.module_.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        _ = model.feature_importances_
    assert all(torch.equal(v, before[k]) for k, v in model.module_.state_dict().items())
    assert not any(part._forward_hooks for part in model.module_.modules())
    assert not any(part.training for part in model.module_.modules())


def test_layers_before_the_first_that_keep_features_apart(blobs):
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.2), nn.ReLU(), nn.Linear(4, 3))
    model = CGESClassifier(net, alpha=0.1, **{**FAST, "max_epochs": 20}).fit(*blobs)
    weight = model.module_[3].weight.detach().norm(dim=0).numpy()
    np.testing.assert_allclose(model.feature_importances_, weight, rtol=1e-6)


def test_images_in_their_flattened_order(digits):
    X, y = digits
    model = CGESClassifier(image_shape=(1, 8, 8), **FAST).fit(X, y)
    assert model.feature_importances_.shape == (64,)
    image = model.feature_importances_.reshape(8, 8)
    assert image[0, 0] < image[4, 4]  # a corner is under four taps of nine
    assert np.ptp(image[1:-1, 1:-1]) == pytest.approx(0, abs=1e-12)


def test_a_frozen_first_layer_counts_as_well(digits):
    net = nn.Sequential(nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
    net[0].requires_grad_(False)
    model = CGESClassifier(net, max_epochs=1, random_state=0).fit(*digits)
    norms = net[0].weight.norm(dim=0).numpy()
    np.testing.assert_allclose(model.feature_importances_, norms, rtol=1e-6)


def test_before_fit():
    assert not hasattr(CGESClassifier(), "feature_importances_")
    with pytest.raises(NotFittedError):
        _ = CGESClassifier().feature_importances_


# ---- in scikit-learn's selectors -----------------------------------------------


def test_select_from_model_keeps_what_is_used(planted):
    X, y, wine = planted
    net = CGESClassifier(alpha=1, penalty="group", max_epochs=60, random_state=0)
    selector = SelectFromModel(net, threshold=1e-5).fit(X, y)
    kept = selector.get_support()
    np.testing.assert_array_equal(kept, selector.estimator_.feature_importances_ > 0)
    assert not kept[~wine].any()
    assert kept[wine].sum() >= 8
    assert selector.transform(X).shape == (178, kept.sum())


def test_select_from_model_in_a_pipeline_with_grid_search(planted):
    X, y, _ = planted
    select = SelectFromModel(
        CGESClassifier(penalty="group", max_epochs=40, random_state=0), threshold=1e-5
    )
    last = CGESClassifier(alpha=0, max_epochs=10, random_state=0)
    pipeline = make_pipeline(StandardScaler(), select, last)
    grid = {"selectfrommodel__estimator__alpha": [0.0, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
    assert search.best_score_ > 0.9
    n_selected = [
        pipeline.set_params(selectfrommodel__estimator__alpha=alpha)
        .fit(X, y)[1]
        .get_support()
        .sum()
        for alpha in (0.0, 1.0)
    ]
    assert n_selected[0] == 23
    assert n_selected[1] <= 13


def test_recursive_feature_elimination(planted):
    X, y, wine = planted
    net = CGESClassifier(alpha=0.01, penalty="group", max_epochs=15, random_state=0)
    rfe = RFE(net, n_features_to_select=6, step=4).fit(X, y)
    assert rfe.support_.sum() == 6
    assert rfe.support_[~wine].sum() == 0
    assert rfe.score(X, y) > 0.9
    grid = GridSearchCV(RFE(net, step=8), {"n_features_to_select": [3, 10]}, cv=2)
    assert grid.fit(X, y).best_params_ == {"n_features_to_select": 10}
    assert RFECV(net, step=10, cv=2).fit(X, y).n_features_ >= 3
