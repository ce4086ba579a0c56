"""The strength at which everything vanishes: exact, or a bound that holds."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_wine
from sklearn.linear_model import Lasso, MultiTaskLasso
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.svm import l1_min_c
from torch import nn
from torch.nn import functional

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
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    "settings",
    [
        {"penalty": "l1"},
        {"penalty": "group", "layer_scale": "auto"},
        {"penalty": "group", "groups": "filter"},
        {"penalty": "cges", "exclusivity": 0.4},
        {"penalty": "cges", "layer_scale": [(0.3, 2.0)]},
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
        refit=0,
        dtype="float64",
        random_state=0,
    )
    largest = alpha_max(model, X, y)
    assert model.set_params(alpha=1.05 * largest).fit(X, y).sparsity_ == 1
    assert model.set_params(alpha=0.95 * largest).fit(X, y).sparsity_ < 1


# ---- deeper networks -----------------------------------------------------------

NETS = {
    "mlp": ((6,), lambda: [nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)]),
    "deep": (
        (6,),
        lambda: [
            *(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 4), nn.LeakyReLU()),
            nn.Linear(4, 3),
        ],
    ),
    "conv": (
        (2, 4, 4),
        lambda: [
            *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3, 3)),
        ],
    ),
}


def penalty_of(module, model):
    """Write the penalty out, without its exclusive term, in the paper's constants."""
    weights = [p for p in module.parameters() if p.ndim > 1]
    total = 0.0
    for layer, w in enumerate(weights):
        share = 1.0
        if model.penalty == "cges":
            m, top = model.exclusivity, len(weights) - 1
            share = 1 - (m + (1 - 2 * m) * layer / top)
        if model.penalty == "l1":
            total += w.abs().sum()
        elif model.groups == "feature":
            total += share * w.square().sum(0).sqrt().sum()
        else:
            total += share * w.flatten(1).norm(dim=1).sum()
    return total


@settings(max_examples=60, deadline=None)
@given(
    net=st.sampled_from(sorted(NETS)),
    penalty=st.sampled_from(["l1", "group", "cges"]),
    groups=st.sampled_from(["feature", "filter"]),
    seed=st.integers(0, 2**31),
    size=st.floats(-3, 3),
    raw=st.booleans(),
)
def test_no_weights_beat_zero_at_the_bound(net, penalty, groups, seed, size, raw):
    """The inequality that makes it a bound, at weights that try to break it."""
    shape, layers = NETS[net]
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 30)
    y[:3] = 0, 1, 2
    X = rng.normal(size=(30, *shape)) + rng.normal(size=(3, *shape))[y]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(*layers()).double()
    model = CGESClassifier(
        module,
        penalty=penalty,
        groups=groups,
        momentum=0.0,
        layer_scale=None,
        standardize=raw,
    )
    alpha = alpha_max(model, X, y)
    inputs, labels = torch.from_numpy(standardized(X) if raw else X), torch.tensor(y)
    shares = np.bincount(y) / len(y)
    zero = -shares @ np.log(shares)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(math.exp(size))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(30):
        loss = functional.cross_entropy(module(inputs), labels)
        objective = loss + alpha * penalty_of(module, model)
        assert objective.item() >= zero - 1e-9
        # Go where the loss is low for the size of the weights.
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


NETS_AND_LINEAR = {
    **NETS,
    "linear": ((6,), lambda: [nn.Linear(6, 3)]),
    "linear conv": (
        (2, 4, 4),
        lambda: [nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
    ),
}


@pytest.mark.parametrize("net", sorted(NETS_AND_LINEAR))
@pytest.mark.parametrize("penalty", ["l1", "group"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [CGESClassifier, CGESRegressor])
def test_raw_samples_have_the_strength_of_standardized_ones(
    net, penalty, weighted, kind
):
    shape, layers = NETS_AND_LINEAR[net]
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3 if kind is CGESClassifier else rng.normal(size=(30, 3))
    weight = rng.integers(0, 4, 30).astype(float) if weighted else None
    scales = 10.0 ** rng.uniform(-4, 4, size=(shape[0], *[1] * (len(shape) - 1)))
    X = (rng.normal(size=(30, *shape)) + 1e3 * rng.normal(size=scales.shape)) * scales
    raw = kind(nn.Sequential(*layers()), penalty=penalty, standardize=True)
    scaled = clone(raw).set_params(standardize=False)
    assert alpha_max(raw, X, y, weight) == pytest.approx(
        alpha_max(scaled, standardized(X, weight), y, weight), rel=1e-6
    )


@pytest.mark.parametrize("net", ["mlp", "deep", "conv"])
@pytest.mark.parametrize("seed", range(4))
def test_no_weights_beat_zero_at_the_bound_of_several_labels(net, seed):
    shape, layers = NETS[net]
    rng = np.random.default_rng(seed)
    y = (rng.random((30, 3)) < [0.2, 0.5, 0.7]).astype(int)
    X = rng.normal(size=(30, *shape))
    X[:, 0] += 3 * y.sum(1).reshape(-1, *[1] * (X.ndim - 2))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(*layers()).double()
    model = CGESClassifier(module, penalty="group", momentum=0.0, layer_scale=None)
    alpha = alpha_max(model, X, y)
    inputs, labels = torch.from_numpy(X), torch.from_numpy(y).double()
    shares = y.mean(0)
    zero = -(shares @ np.log(shares) + (1 - shares) @ np.log(1 - shares))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    losses = []
    for _ in range(60):
        loss = functional.binary_cross_entropy_with_logits(module(inputs), labels) * 3
        losses.append(loss.item())
        assert losses[-1] + alpha * penalty_of(module, model).item() >= zero - 1e-9
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < zero  # the weights do fit something


def test_labels_that_constants_predict(wine):
    X, y = wine
    always = np.c_[np.ones(len(y)), np.zeros(len(y))]
    for hidden in ((), (5,)):
        model = CGESClassifier(hidden_layer_sizes=hidden, penalty="group")
        assert alpha_max(model, X, always) == 0
        assert alpha_max(model, np.ones_like(X), y) < 1e-12
        with pytest.raises(ValueError, match="Constants predict y as well"):
            alpha_path(model, X, always)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_beyond_the_bound_a_trained_network_falls_to_zero(wine):
    X, y = wine
    model = CGESClassifier(
        penalty="group", alpha=0, max_epochs=20, random_state=0, warm_start=True
    ).fit(X, y)
    assert model.score(X, y) > 0.95
    model.set_params(alpha=alpha_max(model, X, y)).fit(X, y)
    assert model.sparsity_ == 1


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


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.BatchNorm1d(13), "BatchNorm1d"),
        (nn.GELU(), "GELU"),
        (nn.Sequential(nn.Identity(), nn.Softplus()), "Softplus"),
    ],
)
def test_layers_without_a_bound_are_named(wine, layer, name):
    net = nn.Sequential(nn.Linear(13, 13), layer, nn.Linear(13, 3))
    with pytest.raises(ValueError, match=f"no bound for a network with {name} .*'1"):
        alpha_max(CGESClassifier(net), *wine)
    module = nn.Sequential(nn.Linear(13, 13), nn.ReLU(), nn.Linear(13, 3))
    assert 0 < alpha_max(CGESClassifier(nn.Sequential(module)), *wine) < math.inf


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(13, 3)

    def forward(self, X):
        return self.layer(X) + X[:, :3]


FROZEN = nn.Linear(13, 4).requires_grad_(False)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        # Without a last bias zero weights do not fit the shares of the classes.
        (
            [nn.Linear(13, 4), nn.ReLU(), nn.Linear(4, 3, bias=False)],
            r"Linear \(layer '2'\) without a bias at its end",
        ),
        ([nn.Linear(13, 4), nn.Linear(4, 3), nn.Tanh()], r"Tanh .*'2'\) at its end"),
        ([FROZEN, nn.Linear(4, 3)], r"Linear \(layer '0'\) whose weight is not penal"),
        ([], "Residual; give"),
    ],
)
def test_networks_without_a_bound(wine, net, reason):
    module = nn.Sequential(*net) if net else Residual()
    with pytest.raises(ValueError, match=f"no bound for a network with {reason}"):
        alpha_max(CGESClassifier(module), *wine)


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


@pytest.mark.parametrize("net", ["mlp", "deep", "conv"])
@pytest.mark.parametrize("penalty", ["l1", "group", "cges"])
@pytest.mark.parametrize("seed", range(3))
def test_no_weights_beat_zero_at_the_bound_of_numbers(net, penalty, seed):
    shape, layers = NETS[net]
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(30, *shape))
    flat = X.reshape(30, -1)
    Y = scale(
        flat @ rng.normal(size=(flat.shape[1], 3)) + 0.1 * rng.normal(size=(30, 3))
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(*layers()).double()
    model = CGESRegressor(module, penalty=penalty, momentum=0.0, layer_scale=None)
    alpha = alpha_max(model, X, Y)
    inputs, targets = torch.from_numpy(X), torch.from_numpy(Y)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    losses = []
    for _ in range(60):
        loss = functional.mse_loss(module(inputs), targets)
        losses.append(loss.item())
        assert losses[-1] + alpha * penalty_of(module, model).item() >= 1 - 1e-9
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 1  # the weights do fit something


def test_another_criterion_has_no_bound(diabetes):
    model = CGESRegressor(criterion=nn.L1Loss)
    with pytest.raises(ValueError, match="no bound for criterion=.*L1Loss"):
        alpha_max(model, *diabetes)
