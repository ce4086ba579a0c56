"""What the regularizer does to a network: which weights, how strongly, and when."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from sklearn_structreg import CGESClassifier
from sklearn_structreg.cges import (
    CGESProx,
    CGESRegularizer,
    count_parameters,
    penalised_weights,
    prox_cges,
    prox_exclusive_lasso,
    prox_group_lasso,
    prox_l1,
    prox_l2,
    weight_sparsity,
)
from sklearn_structreg.core import make_convnet, make_mlp

LR, ALPHA = 0.1, 0.5


def attached(net, sample, **params):
    regularizer = CGESRegularizer(ALPHA, **params)
    assert regularizer.attach(net, sample) is net
    return regularizer


# ---- which weights -------------------------------------------------------------


class OutOfOrder(nn.Module):
    """Registers its layers in another order than it runs them, and shares one."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 2)
        self.shared = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.first = nn.Linear(3, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.shared.weight
        self.norm = nn.BatchNorm1d(4)

    def forward(self, X):
        X = self.norm(self.shared(self.first(X)))
        return self.last(self.tied(self.shared(X)))


def test_weights_come_in_forward_order_once_and_only_where_used():
    net = OutOfOrder().train()
    state = copy.deepcopy(net.state_dict())
    names = penalised_weights(net, torch.ones(2, 3))
    assert names == ["first.weight", "shared.weight", "last.weight"]
    assert net.training
    assert net.norm.training
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in state.items())
    assert not any(layer._forward_pre_hooks for layer in net.modules())


def test_computed_weights_are_left_alone():
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)), nn.Linear(3, 2))
    assert penalised_weights(net, torch.ones(1, 3)) == ["1.weight"]
    with pytest.raises(ValueError, match="nothing to penalise"):
        CGESRegularizer().attach(nn.BatchNorm1d(3), torch.ones(2, 3))


@pytest.mark.parametrize(
    "params", [{"alpha": 0.1}, {"alpha": 0, "target_density": 0.2}]
)
def test_frozen_weights_are_left_alone(digits, params):
    X, y = digits
    net = make_mlp(64, 10, (20,))
    net[0].requires_grad_(False)
    assert penalised_weights(net, torch.zeros(1, 64)) == ["2.weight"]
    fitted = CGESClassifier(net, max_epochs=5, random_state=0, **params).fit(X, y)
    assert torch.equal(fitted.module_[0].weight, net[0].weight)
    assert (fitted.module_[2].weight == 0).any()


def test_convolutions_and_a_bare_layer():
    net = make_convnet((1, 8, 8), 3, (5,))
    names = penalised_weights(net, torch.ones(1, 1, 8, 8))
    assert names == ["0.weight", "3.weight", "7.weight", "9.weight"]
    assert penalised_weights(nn.Linear(3, 2), torch.ones(1, 3)) == ["weight"]


def test_counts():
    net = make_mlp(3, 2, (4,))
    net[2].bias.requires_grad_(False)
    with torch.no_grad():
        net[0].weight[:, 1] = 0
        net[2].weight.zero_()
    assert count_parameters(net) == (12 + 4 + 8, 8 + 4)
    total, per_weight = weight_sparsity(net, ["0.weight", "2.weight"])
    assert per_weight == {"0.weight": pytest.approx(1 / 3), "2.weight": 1.0}
    assert total == pytest.approx(12 / 20)
    assert weight_sparsity(net, []) == (0.0, {})


# ---- how strongly --------------------------------------------------------------


@pytest.mark.parametrize("groups", ["feature", "filter"])
@pytest.mark.parametrize("prox", ["exact", "paper"])
@pytest.mark.parametrize("penalty", ["cges", "group", "exclusive", "l1", "l2"])
@pytest.mark.parametrize("images", [False, True])
def test_each_layer_gets_its_operator_with_its_strength(penalty, prox, groups, images):
    shape = (2, 4, 4) if images else (6,)
    net = make_convnet(shape, 3, (5,)) if images else make_mlp(6, 3, (5, 4))
    net = net.double()
    sample = torch.ones(1, *shape, dtype=torch.float64)
    before = copy.deepcopy(net)
    # Constants of our own, other for each layer and term; the schedule by hand.
    n_layers = len(penalised_weights(net, sample))
    scale = [(0.1 + 0.02 * layer, 0.3 - 0.05 * layer) for layer in range(n_layers)]
    if penalty in ("l1", "l2"):
        scale = None
    regularizer = attached(
        net,
        sample,
        penalty=penalty,
        prox=prox,
        groups=groups,
        exclusivity=0.25,
        layer_scale=scale,
    )
    regularizer.after_step(net, LR)
    exact = prox == "exact"
    for layer, name in enumerate(penalised_weights(net, sample)):
        w = before.get_parameter(name).detach()
        dim = 0 if groups == "feature" else tuple(range(1, w.ndim))
        mu = 0.25 + 0.5 * layer / (n_layers - 1)
        a, b = scale[layer] if scale else (1.0, 1.0)
        step = LR * ALPHA
        expected = {
            "cges": lambda w=w, dim=dim, mu=mu, a=a, b=b, step=step: prox_cges(
                w, step * (1 - mu) * a, step * mu * b, dim, exact
            ),
            "group": lambda w=w, dim=dim, a=a, step=step: prox_group_lasso(
                w, step * a, dim
            ),
            "exclusive": lambda w=w, dim=dim, b=b, step=step: prox_exclusive_lasso(
                w, step * b, dim, exact
            ),
            "l1": lambda w=w, step=step: prox_l1(w, step),
            "l2": lambda w=w, step=step: prox_l2(w, step),
        }[penalty]()
        assert not torch.equal(w, expected)
        torch.testing.assert_close(
            net.get_parameter(name).detach(), expected, rtol=1e-12, atol=1e-15
        )
    for name, parameter in net.named_parameters():
        if "bias" in name:
            assert torch.equal(parameter, before.get_parameter(name))


def test_one_layer_gets_the_top_layers_share():
    net = nn.Linear(3, 2)
    layer = attached(net, torch.ones(1, 3), exclusivity=0.2, layer_scale=None)
    assert layer.layers_[0].group == pytest.approx(0.2)
    assert layer.layers_[0].exclusive == pytest.approx(0.8)


def test_layer_scale_of_the_wrong_length():
    with pytest.raises(ValueError, match="layer_scale has 3 entries, but .* 2 penal"):
        attached(make_mlp(3, 2), torch.ones(1, 3), layer_scale=[1, 2, 3])


@pytest.mark.parametrize(
    "scale",
    [
        *([(1, 2, 3), 1], [-1, 1], [1, (1, -1)]),
        *([1, (1, math.inf)], [math.nan, 1], ["much", "little"]),
    ],
)
def test_layer_scale_that_makes_no_sense(scale):
    with pytest.raises(ValueError, match="layer_scale holds"):
        attached(make_mlp(3, 2), torch.ones(1, 3), layer_scale=scale)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"penalty": "lasso"}, "penalty='lasso' must be one of"),
        ({"groups": "unit"}, "groups='unit' must be one of"),
        ({"prox": "approximate"}, "prox='approximate' must be one of"),
        ({"alpha": -1.0}, "alpha=-1.0 must be a finite number"),
        ({"alpha": math.nan}, "alpha=nan must be a finite number"),
        ({"alpha": "0.1"}, "alpha='0.1' must be a finite number"),
        ({"prox_every": 0}, "prox_every=0 must be an integer"),
        ({"layer_scale": "none"}, "layer_scale='none' must be 'auto', None, or a seq"),
        ({"layer_scale": 3}, "layer_scale=3 must be"),
    ],
)
def test_bad_parameters_without_an_estimator(params, message):
    """A skorch user's callback has nobody else to check them."""
    with pytest.raises(ValueError, match=message):
        CGESProx(**params).initialize()
    with pytest.raises(ValueError, match=message):
        CGESRegularizer(**params).attach(make_mlp(3, 2), torch.ones(1, 3))


def test_a_constant_per_layer_serves_both_terms():
    net = make_mlp(3, 2)
    single = attached(net, torch.ones(1, 3), layer_scale=[2.0, 3.0])
    pairs = attached(net, torch.ones(1, 3), layer_scale=[(2.0, 2.0), (3.0, 3.0)])
    assert single.layers_ == pairs.layers_


# ---- when ----------------------------------------------------------------------


def test_every_k_steps_with_the_summed_rate_and_at_the_end():
    net, sample = make_mlp(6, 3).double(), torch.ones(1, 6, dtype=torch.float64)
    one = copy.deepcopy(net)
    lazy = attached(net, sample, prox_every=3, penalty="l1")
    eager = attached(one, sample, penalty="l1")
    start = net[0].weight.detach().clone()
    rates = [0.01, 0.02, 0.005, 0.01]
    for n_steps, lr in enumerate(rates, start=1):
        lazy.after_step(net, lr)
        eager.after_step(one, lr)
        if n_steps < 3:
            assert torch.equal(net[0].weight, start)
        if n_steps == 3:  # soft thresholds add up
            torch.testing.assert_close(net[0].weight, one[0].weight)
    assert not torch.allclose(net[0].weight, one[0].weight, rtol=1e-6)
    lazy.after_training_epoch(net)
    torch.testing.assert_close(net[0].weight, one[0].weight)
    settled = net[0].weight.detach().clone()
    lazy.after_training_epoch(net)
    assert torch.equal(net[0].weight, settled)


def test_strength_zero_touches_nothing():
    net = make_mlp(6, 3)
    before = copy.deepcopy(net.state_dict())
    regularizer = CGESRegularizer(0.0)
    regularizer.attach(net, torch.ones(1, 6))
    regularizer.after_step(net, LR)
    regularizer.after_training_epoch(net)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())


def test_a_copied_module_is_the_one_that_is_changed():
    net = make_mlp(6, 3)
    regularizer = attached(net, torch.ones(1, 6))
    regularizer.after_step(net, LR)
    other = copy.deepcopy(net)
    settled = net[0].weight.detach().clone()
    regularizer.after_step(other, LR)
    assert torch.equal(net[0].weight, settled)
    assert not torch.equal(other[0].weight, settled)
