"""The strength at which everything vanishes: exact, or a bound that holds."""

import math

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_wine
from sklearn.linear_model import Lasso, MultiTaskLasso
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.svm import l1_min_c
from torch import nn

from sklearn_structreg.cges import (
    CGESClassifier,
    CGESRegressor,
    alpha_max,
    alpha_path,
)

LINEAR = {
    "hidden_layer_sizes": (),
    "batch_size": None,
    "layer_scale": None,
    "ramp": 0,
    "refit": 0,
}


@pytest.fixture(scope="module")
def wine():
    """Raw samples: the network standardizes them."""
    return load_wine(return_X_y=True)


def standardized(X, weight=None):
    """Standardize by weighted mean and scale: features, or channels of images."""
    axes = (0, *range(2, X.ndim))
    weight = np.ones(len(X)) if weight is None else weight
    weight = np.broadcast_to(weight.reshape(-1, *[1] * (X.ndim - 1)), X.shape)
    mean = np.average(X, axis=axes, weights=weight, keepdims=True)
    variance = np.average((X - mean) ** 2, axis=axes, weights=weight, keepdims=True)
    return (X - mean) / np.sqrt(variance)


def solved(X, y, weight, alpha, shrink, n_steps=3000):
    """Minimize weighted logistic loss + penalty by FISTA in float64 from far away.

    `shrink(W, step)` is the penalty's operator; W has shape (n_classes, n_features).
    An indicator y has a logistic unit for each label.
    """
    weight = weight / weight.sum()
    onehot = np.eye(y.max() + 1)[y] if y.ndim == 1 else y
    design = np.c_[X, np.ones(len(X))]
    step = 1 / (0.5 * np.linalg.norm(design.T * weight @ design, 2))
    size = onehot.shape[1], design.shape[1]
    W = point = np.random.default_rng(0).normal(size=size)
    t = 1.0
    for _ in range(n_steps):
        z = design @ point.T
        p = softmax(z, axis=1) if y.ndim == 1 else expit(z)
        new = point - step * ((p - onehot) * weight[:, None]).T @ design
        new[:, :-1] = shrink(new[:, :-1], step * alpha)
        t, last = (1 + math.sqrt(1 + 4 * t * t)) / 2, t
        point = new + (last - 1) / t * (new - W)
        W = new
    return W[:, :-1]


def soft(W, threshold):
    return np.sign(W) * np.maximum(np.abs(W) - threshold, 0)


def shrink_axis(axis):
    def shrink(W, threshold):
        norms = np.linalg.norm(W, axis=axis, keepdims=True)
        return W * np.maximum(1 - threshold / np.maximum(norms, 1e-300), 0)

    return shrink


@pytest.mark.parametrize(
    ("settings", "shrink"),
    [
        ({"penalty": "l1"}, soft),
        ({"penalty": "group"}, shrink_axis(0)),
        ({"penalty": "group", "groups": "filter"}, shrink_axis(1)),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_for_a_linear_model_it_is_where_a_solver_leaves_zero(
    wine, settings, shrink, weighted, several, raw
):
    X, y = wine
    X = X if raw else scale(X)
    if several:
        y = np.c_[y == 0, y >= 1, X[:, 3] > np.median(X[:, 3])].astype(int)
    rng = np.random.default_rng(1)
    weight = rng.integers(0, 4, len(y)).astype(float) if weighted else np.ones(len(y))
    model = CGESClassifier(momentum=0.0, standardize=raw, **LINEAR, **settings)
    largest = alpha_max(model, X, y, weight)
    X = standardized(X, weight) if raw else X
    assert (solved(X, y, weight, 1.001 * largest, shrink) == 0).all()
    assert (solved(X, y, weight, 0.999 * largest, shrink) != 0).any()


def test_of_two_equal_classes_it_is_scikit_learns_l1_min_c(wine):
    X, y = wine
    rows = np.r_[np.flatnonzero(y == 0)[:48], np.flatnonzero(y == 1)[:48]]
    X, y = X[rows], y[rows]
    largest = alpha_max(CGESClassifier(penalty="l1", momentum=0.0, **LINEAR), X, y)
    X = scale(X)
    # Its one vector of weights is the difference of our two, which share the penalty.
    assert 1 / (96 * largest) == pytest.approx(l1_min_c(X, y, loss="log"), rel=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("momentum", "settings"),
    [
        (0.0, {"penalty": "l1"}),
        (0.9, {"penalty": "group", "layer_scale": "auto"}),
        (0.0, {"penalty": "group", "groups": "filter"}),
        (0.0, {"penalty": "cges", "exclusivity": 0.4}),
        (0.9, {"penalty": "cges", "layer_scale": [(0.3, 2.0)]}),
    ],
)
def test_training_empties_a_linear_model_just_above_and_not_below(
    wine, momentum, settings
):
    X, y = wine
    model = CGESClassifier(
        **LINEAR | {"momentum": momentum, "random_state": 0} | settings,
    ).set_params(learning_rate=0.5 * (1 - momentum), max_epochs=600, dtype="float64")
    largest = alpha_max(model, X, y)
    before = {k: v for k, v in model.get_params().items() if k != "alpha"}
    assert model.set_params(alpha=1.02 * largest).fit(X, y).sparsity_ == 1
    assert model.set_params(alpha=0.98 * largest).fit(X, y).sparsity_ < 1
    assert {k: v for k, v in model.get_params().items() if k != "alpha"} == before


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_linear_convolution_with_pooling(digits):
    X, y = digits[0][:300], digits[1][:300]

    def net(input_shape, n_outputs):
        pool = nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(nn.Conv2d(1, n_outputs, 3), pool, nn.Flatten())

    model = CGESClassifier(
        net,
        image_shape=(1, 8, 8),
        penalty="group",
        momentum=0.0,
        batch_size=None,
        learning_rate=5.0,
        max_epochs=300,
        layer_scale=None,
        ramp=0,
        refit=0,
        dtype="float64",
        random_state=0,
    )
    largest = alpha_max(model, X, y)
    assert model.set_params(alpha=1.05 * largest).fit(X, y).sparsity_ == 1
    assert model.set_params(alpha=0.95 * largest).fit(X, y).sparsity_ < 1


# ---- deeper networks -----------------------------------------------------------


def convnet(input_shape, n_outputs):
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(72, n_outputs)),
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "params",
    [
        {"penalty": "l1"},
        {"penalty": "group", "hidden_layer_sizes": (50, 50)},
        {"penalty": "cges"},
        {"penalty": "group", "module": convnet, "image_shape": (1, 8, 8)},
    ],
)
def test_it_is_near_the_strength_that_empties_a_whole_fit(digits, optimizer, params):
    """Within a factor of three of it, for networks that no bound is known for."""
    X, y = digits[0][:300], digits[1][:300]
    model = CGESClassifier(optimizer=optimizer, max_epochs=30, random_state=0, **params)
    largest = alpha_max(model, X, y)
    for factor, is_empty in ((3.0, True), (1 / 3, False)):
        model.set_params(alpha=factor * largest).fit(X, y)
        emptied = 1.0 in model.history_[-1, "layer_sparsity"].values()
        assert emptied == is_empty, (factor, largest, model.sparsity_)


def test_labels_that_constants_predict(wine):
    X, y = wine
    always = np.c_[np.ones(len(y)), np.zeros(len(y))]
    for hidden in ((), (5,)):
        model = CGESClassifier(hidden_layer_sizes=hidden, penalty="group")
        assert alpha_max(model, X, always) == 0
        with pytest.raises(ValueError, match="Constants predict y as well"):
            alpha_path(model, X, always)


def test_what_has_no_largest_strength_says_so(wine):
    X, y = wine
    for params in (
        {"penalty": "exclusive"},
        {"penalty": "l2"},
        {"penalty": "cges", "exclusivity": 0.0},
        {"penalty": "cges", "exclusivity": 1.0},
    ):
        assert alpha_max(CGESClassifier(**params), X, y) == math.inf
        with pytest.raises(ValueError, match="No strength .* takes all weights away"):
            alpha_path(CGESClassifier(**params), X, y)


def test_a_pipeline_is_told_what_to_do(wine):
    pipeline = make_pipeline(StandardScaler(), CGESClassifier())
    for function in (alpha_max, alpha_path):
        with pytest.raises(TypeError, match="got Pipeline. Of a pipeline give the"):
            function(pipeline, *wine)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_path_is_a_grid_for_a_search(wine):
    X, y = wine
    model = CGESClassifier(penalty="group", max_epochs=15, random_state=0)
    grid = alpha_path(model, X, y, n_alphas=5, eps=1e-4)
    assert grid.shape == (5,)
    assert grid[0] == alpha_max(model, X, y)
    np.testing.assert_allclose(np.diff(np.log(grid)), np.log(1e-4) / 4)
    search = GridSearchCV(clone(model), {"alpha": grid}, cv=3).fit(X, y)
    assert search.best_score_ > 0.9
    assert search.best_params_["alpha"] < grid[0]
    assert not hasattr(model, "net_")


def test_bad_parameters_are_the_estimators_own_errors(wine):
    with pytest.raises(ValueError, match="'penalty' parameter of CGESClassifier"):
        alpha_max(CGESClassifier(penalty="l0"), *wine)


# ---- numbers -------------------------------------------------------------------


@pytest.fixture(scope="module")
def diabetes():
    return load_diabetes(return_X_y=True, scaled=False)


@pytest.mark.parametrize("weighted", [False, True])
def test_of_a_linear_regressor_it_is_the_lassos(diabetes, weighted):
    X, y = diabetes
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 4, len(y)).astype(float) if weighted else np.ones(len(y))
    model = CGESRegressor(penalty="l1", momentum=0.0, **LINEAR)
    largest = alpha_max(model, X, y, weight)
    X = standardized(X, weight)
    mean = np.average(y, weights=weight)
    deviation = math.sqrt(np.average((y - mean) ** 2, weights=weight))
    # The lasso halves the squared error, and its target here has another scale.
    lasso = largest * deviation / 2
    assert not Lasso(1.0001 * lasso, tol=1e-10).fit(X, y, weight).coef_.any()
    assert Lasso(0.9999 * lasso, tol=1e-10).fit(X, y, weight).coef_.any()


def test_of_several_targets_it_is_the_multi_task_lassos(diabetes):
    X, y = scale(diabetes[0]), diabetes[1]
    Y = scale(np.c_[y, X[:, 2] - X[:, 3], X[:, 0] * X[:, 1]])
    model = CGESRegressor(penalty="group", momentum=0.0, **LINEAR)
    largest = alpha_max(model, X, Y)
    # The multi-task lasso halves the sum over targets of which ours is the mean.
    lasso = largest * 3 / 2
    assert not MultiTaskLasso(1.0001 * lasso, tol=1e-10).fit(X, Y).coef_.any()
    assert MultiTaskLasso(0.9999 * lasso, tol=1e-10).fit(X, Y).coef_.any()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("bias", [True, False])
def test_training_empties_a_linear_regressor_just_above_and_not_below(diabetes, bias):
    X, y = diabetes
    model = CGESRegressor(
        nn.Linear(10, 1, bias=bias),
        standardize=True,
        penalty="group",
        batch_size=None,
        optimizer="sgd",
        momentum=0.5,
    ).set_params(learning_rate=0.05, max_epochs=600, dtype="float64", random_state=0)
    largest = alpha_max(model, X, y)
    assert model.set_params(alpha=1.02 * largest).fit(X, y).sparsity_ == 1
    assert model.set_params(alpha=0.98 * largest).fit(X, y).sparsity_ < 1


def test_another_criterion(diabetes):
    model = CGESRegressor(criterion=nn.L1Loss, max_epochs=10, random_state=0)
    assert 0 < alpha_max(model, *diabetes) < math.inf
