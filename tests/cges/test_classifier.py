"""CGES estimators: sparsity where asked for, and the plain net where not."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Lasso
from sklearn.preprocessing import StandardScaler, scale
from skorch import NeuralNetClassifier
from skorch.callbacks import Freezer
from torch import nn

from sklearn_structreg.cges import CGES, CGESClassifier, CGESRegressor
from sklearn_structreg.core import (
    RegularizerCallback,
    StructuredClassifier,
    StructuredRegressor,
    make_mlp,
)

FAST = {"max_epochs": 3, "random_state": 0}


def weights(estimator):
    return torch.cat([p.detach().flatten() for p in estimator.module_.parameters()])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("penalty", ["cges", "group", "exclusive", "l1", "l2"])
@pytest.mark.parametrize("shape", [None, (1, 8, 8)])
def test_strength_zero_is_the_plain_net_bit_for_bit(digits, penalty, shape):
    X, y = digits[0][:500], digits[1][:500]
    plain = StructuredClassifier(image_shape=shape, **FAST).fit(X, y)
    off = CGESClassifier(alpha=0, penalty=penalty, image_shape=shape, **FAST).fit(X, y)
    assert torch.equal(weights(plain), weights(off))
    on = CGESClassifier(alpha=0.1, penalty=penalty, image_shape=shape, **FAST)
    assert not torch.equal(weights(on.fit(X, y)), weights(plain))


def test_a_regressor_of_strength_zero_is_the_plain_net_bit_for_bit(digits):
    X, y = digits[0][:300], digits[1][:300]
    plain = StructuredRegressor(learning_rate=0.01, **FAST).fit(X, y)
    off = CGESRegressor(alpha=0, learning_rate=0.01, **FAST).fit(X, y)
    assert torch.equal(weights(plain), weights(off))


@pytest.mark.parametrize("prox", ["exact", "paper"])
@pytest.mark.parametrize("penalty", ["cges", "exclusive", "l1"])
def test_stronger_is_sparser_and_still_accurate(digits, penalty, prox):
    X, y = StandardScaler().fit_transform(digits[0]), digits[1]
    sparsity, n_nonzero = [], []
    for alpha in (0, 0.3, 3):
        model = CGESClassifier(
            alpha=alpha,
            penalty=penalty,
            prox=prox,
            max_epochs=15,
            random_state=0,
        ).fit(X, y)
        assert model.score(X, y) > 0.9
        sparsity.append(model.sparsity_)
        n_nonzero.append(model.n_nonzero_parameters_)
    assert sparsity[0] < 0.001 < sparsity[1] < sparsity[2] < 1
    assert model.n_parameters_ == 64 * 100 + 100 + 100 * 10 + 10
    assert n_nonzero[0] > n_nonzero[1] > n_nonzero[2]


def test_the_group_penalty_empties_whole_groups(digits):
    X, y = StandardScaler().fit_transform(digits[0]), digits[1]
    for groups, dim in [("feature", 0), ("filter", 1)]:
        model = CGESClassifier(
            alpha=0.3, penalty="group", groups=groups, max_epochs=30, random_state=0
        ).fit(X, y)
        zero = model.module_[0].weight == 0
        empty = zero.all(dim)
        assert 0 < empty.float().mean() < 1
        assert torch.equal(zero, empty.unsqueeze(dim).expand_as(zero))


def test_reports_agree_with_the_weights_and_the_history(digits):
    X, y = digits
    model = CGESClassifier(max_epochs=20, random_state=0).fit(X, y)
    first, last = model.module_[0].weight, model.module_[2].weight
    zeros = [int((w == 0).sum()) for w in (first, last)]
    assert (
        model.sparsity_
        == pytest.approx(sum(zeros) / 7400)
        == pytest.approx(model.history_[-1, "sparsity"])
    )
    assert model.history_[-1, "layer_sparsity"] == {
        "0.weight": pytest.approx(zeros[0] / 6400),
        "2.weight": pytest.approx(zeros[1] / 1000),
    }
    assert model.n_nonzero_parameters_ == 7510 - sum(zeros)
    assert len(model.history_[:, "layer_sparsity"]) == 20


def test_the_table_of_epochs_shows_sparsity_as_one_column(digits, capsys):
    CGESClassifier(verbose=1, **FAST).fit(*digits)
    header = capsys.readouterr().out.splitlines()[0].split()
    assert header == ["epoch", "sparsity", "train_loss", "dur"]


def solved(X, y, alpha, group, exclusive):
    """Minimize the penalised logistic loss with a solver that knows no prox.

    L-BFGS-B gets positive and negative parts of the weights, so that all but the group
    norms is smooth; no group is zero at the solutions here.
    """

    def objective(split):
        parts = torch.tensor(split, requires_grad=True)
        W, bias = (parts[:12] - parts[12:24]).reshape(3, 4), parts[24:]
        logits = torch.from_numpy(X) @ W.T + bias
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(y))
        sizes = (parts[:12] + parts[12:24]).reshape(3, 4).sum(0)
        norms = (W.square().sum(0) + 1e-30).sqrt()
        penalty = group * norms.sum() + exclusive / 2 * sizes.square().sum()
        value = loss + alpha * penalty
        value.backward()
        return value.item(), parts.grad.numpy()

    solution = minimize(
        objective,
        np.r_[np.linspace(0.4, 0.6, 24), np.zeros(3)],
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * 24 + [(None, None)] * 3,
        options={"maxiter": 20_000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 50},
    )
    W = (solution.x[:12] - solution.x[12:24]).reshape(3, 4)
    assert (np.linalg.norm(W, axis=0) > 0.1).all()
    return W


@pytest.mark.parametrize("penalty", ["group", "exclusive", "cges"])
def test_training_solves_the_penalised_problem(penalty):
    """A linear model has one minimum, and full batches without momentum reach it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    y = (X @ rng.normal(size=(4, 3))).argmax(1)
    mu = {"group": 0.0, "exclusive": 1.0, "cges": 0.6}[penalty]

    def trained(learning_rate, max_epochs):
        model = CGESClassifier(
            hidden_layer_sizes=(),
            alpha=0.05,
            penalty=penalty,
            exclusivity=1 - mu,
            layer_scale=None,
            ramp=0,
            refit=0,
            standardize=False,
            dtype="float64",
            batch_size=None,
            momentum=0.0,
            learning_rate=learning_rate,
            max_epochs=max_epochs,
            random_state=0,
        ).fit(X, y)
        return model.module_[0].weight.detach().numpy()

    expected = solved(X, y, 0.05, 1 - mu, mu)
    found, tolerance = trained(0.5, 1000), 2e-5
    if penalty == "cges":
        # One operator follows the other, as in Algorithm 1, which moves the fixed point
        # in proportion to the learning rate (here by 4e-3). Extrapolating to rate zero
        # leaves the second order, some hundred times less.
        assert 1e-3 < np.abs(found - expected).max() < 1e-2
        found = np.where(found == 0, 0, 2 * trained(0.25, 2000) - found)
        tolerance = 1e-4
    np.testing.assert_allclose(found, expected, atol=tolerance)
    if penalty != "group":
        assert (found == 0).any()
        np.testing.assert_array_equal(found == 0, np.abs(expected) < 1e-7)


def test_a_linear_regressor_is_the_lasso():
    X, y = load_diabetes(return_X_y=True, scaled=False)
    alpha = 3.0
    model = CGESRegressor(
        hidden_layer_sizes=(),
        alpha=2 * alpha / y.std(),  # its target has variance one, its loss no half
        penalty="l1",
        layer_scale=None,
        ramp=0,
        refit=0,
        dtype="float64",
        batch_size=None,
        optimizer="sgd",
        momentum=0.0,
        learning_rate=0.1,
        max_epochs=1500,
        random_state=0,
    ).fit(X, y)
    scaled = scale(X)
    lasso = Lasso(alpha, tol=1e-12).fit(scaled, y)
    found = model.module_[0].weight.detach().numpy()[0] * y.std()
    np.testing.assert_allclose(found, lasso.coef_, atol=1e-4)
    np.testing.assert_array_equal(found == 0, lasso.coef_ == 0)
    np.testing.assert_allclose(model.predict(X), lasso.predict(scaled), atol=1e-3)
    assert model.sparsity_ == np.mean(lasso.coef_ == 0) > 0
    np.testing.assert_allclose(model.feature_importances_ * y.std(), abs(found))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_weights_beyond_recovery_still_predict(blobs):
    model = CGESClassifier(alpha=1e6, penalty="group", max_epochs=2).fit(*blobs)
    assert model.sparsity_ == 1
    np.testing.assert_allclose(model.predict_proba(blobs[0]).std(axis=0), 0, atol=1e-12)


# ---- while a network trains on -------------------------------------------------


def test_a_new_strength_takes_effect_in_a_warm_start(digits):
    X, y = digits
    model = CGESClassifier(alpha=0, warm_start=True, **FAST).fit(X, y)
    assert model.sparsity_ == 0
    start = model.module_
    model.set_params(alpha=0.1, penalty="group", layer_scale=[0.1, 0.2]).fit(X, y)
    assert [layer.group for layer in model.regularizers_["cges"].layers_] == [0.1, 0.2]
    other = CGESClassifier(
        start, alpha=0.1, penalty="group", layer_scale=[0.1, 0.2], **FAST
    ).fit(X, y)
    assert model.sparsity_ == pytest.approx(other.sparsity_, abs=0.05)
    model.set_params(alpha=0).fit(X, y)
    assert model.sparsity_ < 0.05


def test_a_new_strength_takes_effect_in_partial_fit(digits):
    X, y = digits
    model = CGESClassifier(alpha=0, random_state=0)
    for _ in range(3):
        model.partial_fit(X, y, classes=range(10))
    assert model.sparsity_ == 0
    plain = CGESClassifier(alpha=0, **FAST).fit(X, y)
    assert torch.equal(weights(model), weights(plain))
    model.set_params(alpha=1e3).partial_fit(X, y)
    assert model.sparsity_ == 1
    assert model.n_iter_ == 4


# ---- in a skorch net -----------------------------------------------------------


def skorch_net(module, regularizer, *callbacks, **settings):
    defaults = {"lr": 0.1, "max_epochs": 2, "train_split": None, "verbose": 0}
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        callbacks=[("cges", RegularizerCallback(regularizer)), *callbacks],
        **defaults | settings,
    )


def test_a_skorch_net_trains_as_the_estimator_does(digits):
    X, y = digits[0].astype(np.float32), digits[1]
    start = make_mlp(64, 10)
    settings = {"batch_size": None, "momentum": 0.0, "max_epochs": 5}
    ours = CGESClassifier(start, alpha=0.05, **settings).fit(X, y)
    theirs = skorch_net(start, CGES(0.05), lr=0.05, batch_size=-1, max_epochs=5)
    theirs.fit(X, y)
    for one, two in zip(
        ours.module_.parameters(), theirs.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    for row in range(5):
        assert theirs.history[row, "sparsity"] == pytest.approx(
            ours.history_[row, "sparsity"], abs=2e-3
        )


def test_the_callback_follows_skorch_life(digits, capsys):
    X, y = digits[0].astype(np.float32), digits[1]
    net = skorch_net(make_mlp(64, 10), CGES(0.5, penalty="l1"), verbose=1)
    net.set_params(callbacks__cges__regularizer=CGES(0.2, penalty="l1"))
    net = clone(net).fit(X, y)
    assert net.history[-1, "sparsity"] > 0
    assert "layer_sparsity" not in capsys.readouterr().out
    assert not net.optimizer_._optimizer_step_post_hooks
    assert dict(net.callbacks_)["cges"].regularizer_.alpha == 0.2
    net.partial_fit(X, y)
    assert len(net.history[:, "sparsity"]) == 4


def test_each_weight_is_shrunk_by_the_rate_of_its_own_group(digits):
    """A slowly trained trunk used to vanish at the rate of the head."""
    X, y = digits[0].astype(np.float32), digits[1]
    torch.manual_seed(0)
    start = make_mlp(64, 10)
    rates = {"optimizer__param_groups": [("0.*", {"lr": 1e-4}), ("2.*", {"lr": 0.1})]}
    net = skorch_net(start, CGES(3.0), lr=0.1, max_epochs=20, **rates).fit(X, y)
    trunk, head = net.module_[0].weight, net.module_[2].weight
    assert (trunk == 0).float().mean() < 0.05
    assert torch.dist(trunk, start[0].weight) < 0.2 * start[0].weight.norm()
    assert (head == 0).float().mean() > 0.1


@pytest.mark.parametrize("first", [True, False])
def test_what_a_freezer_freezes_stays(digits, first):
    """Weights that were trainable when the penalty was attached used to be erased."""
    X, y = digits[0].astype(np.float32), digits[1]
    start = make_mlp(64, 10)
    net = skorch_net(start, CGES(1.0), ("freezer", Freezer("0.*")), max_epochs=5)
    if first:
        net.callbacks = net.callbacks[::-1]
    net.fit(X, y)
    assert torch.equal(net.module_[0].weight, start[0].weight)
    assert (net.module_[2].weight == 0).any()


@pytest.mark.parametrize(
    "name", ["sparsity_", "n_parameters_", "n_nonzero_parameters_"]
)
def test_what_is_counted_needs_a_fit(name):
    assert not hasattr(CGESClassifier(), name)
    with pytest.raises(NotFittedError):
        getattr(CGESClassifier(), name)
