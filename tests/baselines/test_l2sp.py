"""L2SP against its formulas, in one file of at most 60 lines."""

import inspect
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_structreg.baselines import L2SP, l2sp
from sklearn_structreg.core import StructuredClassifier, StructuredRegressor, make_mlp

IGNORE = "ignore::sklearn.exceptions.ConvergenceWarning"
FAST = {"max_epochs": 4, "random_state": 0, "hidden_layer_sizes": (16,)}


@pytest.fixture(scope="module")
def flat(digits):
    return digits[0][:300], digits[1][:300]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return make_mlp(3, 2, (4,))


def moved(net, by=0.5):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return net


def distance(net, start):
    pairs = zip(net.parameters(), start, strict=True)
    return sum(((w.detach() - v) ** 2).sum() for w, v in pairs)


def test_the_walk_through_is_at_most_60_lines():
    assert len(inspect.getsource(l2sp).splitlines()) <= 60


def test_the_penalty_and_its_gradient(net):
    start = [p.detach().clone() for p in net.parameters()]
    regularizer = L2SP(0.3)
    assert regularizer.attach(net, torch.zeros(1, 3)) is net
    assert regularizer.penalty(net) == 0
    moved(net)
    penalty = regularizer.penalty(net)
    torch.testing.assert_close(penalty, 0.15 * distance(net, start))
    penalty.backward()
    for w, v in zip(net.parameters(), start, strict=True):
        torch.testing.assert_close(w.grad, 0.3 * (w - v).detach())


def test_the_proximal_step_minimizes_at_each_groups_rate(net):
    regularizer = L2SP(0.3, how="proximal")
    start = [p.detach().clone() for p in net.parameters()]
    regularizer.attach(net, torch.zeros(1, 3))
    before = [p.detach().clone() for p in moved(net).parameters()]
    groups = [
        {"params": net[0].parameters(), "lr": 0.5},
        {"params": net[2].parameters(), "lr": 2.0},
    ]
    assert regularizer.penalty(net) is None
    regularizer.after_step(net, torch.optim.SGD(groups))
    rates = [0.5, 0.5, 2.0, 2.0]
    for w, v, u, rate in zip(net.parameters(), start, before, rates, strict=True):
        # The gradient of |w - u|^2 / 2 + rate alpha |w - v|^2 / 2 vanishes.
        torch.testing.assert_close(w - u, -rate * 0.3 * (w - v))


@pytest.mark.parametrize("how", ["penalty", "proximal"])
def test_frozen_weights_are_left_alone(net, how):
    regularizer = L2SP(0.3, how=how)
    regularizer.attach(net, torch.zeros(1, 3))
    moved(net)[0].requires_grad_(False)
    expected = net[0].weight.clone()
    regularizer.after_step(net, torch.optim.SGD(net.parameters(), lr=1.0))
    assert torch.equal(net[0].weight, expected)
    nn.Module.requires_grad_(net, False)
    assert regularizer.penalty(net) is None


@pytest.mark.parametrize("how", ["penalty", "proximal"])
def test_off_is_the_plain_net_bit_for_bit(flat, how):
    plain = StructuredClassifier(**FAST).fit(*flat)
    off = StructuredClassifier(regularizers=[L2SP(0, how=how)], **FAST).fit(*flat)
    for one, two in zip(
        plain.module_.parameters(), off.module_.parameters(), strict=True
    ):
        assert torch.equal(one, two)


@pytest.mark.parametrize("how", ["penalty", "proximal"])
@pytest.mark.filterwarnings(IGNORE)
def test_fine_tuning_stays_the_closer_the_stronger(flat, how):
    first = StructuredClassifier(**(FAST | {"max_epochs": 20})).fit(*flat)
    start = [p.detach().clone() for p in first.module_.parameters()]
    labels = np.roll(flat[1], 1)  # another task
    distances = []
    for alpha in (0, 0.1, 1.0):
        model = StructuredClassifier(
            first.module_, regularizers=[L2SP(alpha, how=how)], **FAST
        ).fit(flat[0], labels)
        distances.append(float(distance(model.module_, start)))
    assert distances[0] > distances[1] > distances[2] > 0


@pytest.mark.filterwarnings(IGNORE)
def test_a_resumed_training_keeps_the_initial_weights(flat):
    model = StructuredClassifier(regularizers=[L2SP(0.1)], warm_start=True, **FAST).fit(
        *flat
    )
    initial = model.regularizers_["l2sp"].initial_
    model = pickle.loads(pickle.dumps(model)).set_params(regularizers__l2sp__alpha=10.0)
    model.fit(*flat)
    for name, start in model.regularizers_["l2sp"].initial_.items():
        assert torch.equal(start, initial[name])
        assert (model.module_.get_parameter(name) - start).abs().max() < 0.1


def test_a_regressor_in_double_precision(flat):
    model = StructuredRegressor(regularizers=[L2SP(0.1)], dtype="float64", **FAST)
    assert np.isfinite(model.fit(*flat).predict(flat[0])).all()
