"""The penalty in a network: on which weights, how strongly, and when."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from sklearn_structreg.cges import (
    CGES,
    CGESClassifier,
    prox_cges,
    prox_exclusive_lasso,
    prox_group_lasso,
)
from sklearn_structreg.cges.layers import (
    count_parameters,
    find_weights,
    weight_sparsity,
)
from sklearn_structreg.cges.proximal import prox_l1, prox_l2
from sklearn_structreg.core import make_convnet, make_mlp

LR, ALPHA = 0.1, 0.5


def sgd(net, lr=LR):
    return torch.optim.SGD(net.parameters(), lr=lr)


def attached(net, sample, **params):
    regularizer = CGES(ALPHA, **{"layer_scale": None} | params)
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
    with pytest.warns(UserWarning, match="are penalised, not unused.weight."):
        names = attached(net, torch.ones(2, 3)).names
    assert names == ["first.weight", "shared.weight", "last.weight"]
    assert net.training
    assert net.norm.training
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in state.items())
    assert not any(layer._forward_pre_hooks for layer in net.modules())


class Several(nn.Module):
    """Holds kinds of layers that the penalty does not know."""

    def __init__(self):
        super().__init__()
        self.signs = nn.Embedding(2, 4)
        self.products = nn.Bilinear(4, 4, 4)
        self.matrix = nn.Parameter(torch.eye(4))
        self.computed = parametrizations.weight_norm(nn.Linear(4, 4))
        self.stacked = nn.utils.spectral_norm(nn.LSTMCell(4, 4), "weight_hh")
        self.idle = nn.Linear(4, 3)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.last = nn.Linear(4, 3)

    def forward(self, X):
        signs = self.signs((X > 0).long()).sum(1)
        X = self.products(X, signs) @ self.matrix + self.token[0]
        return self.last(self.computed(self.stacked(X)[0]))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_one_warning_and_the_report_name_what_is_not_penalised(blobs):
    names = [
        "matrix",
        "signs.weight",
        "products.weight",
        "computed.parametrizations.weight.original1",
        "stacked.weight_hh_orig",
        "idle.weight",
    ]
    with pytest.warns(UserWarning, match="layers are penalised") as caught:
        model = CGESClassifier(Several(), alpha=0.1, max_epochs=1).fit(*blobs)
    (warning,) = [each for each in caught if each.category is UserWarning]
    assert str(warning.message).endswith(f"not {', '.join(names[:5])}, ....")
    assert model.regularizers_["cges"].names == ["stacked.weight_ih", "last.weight"]
    assert model.regularizers_["cges"].left_out_ == names
    net = Several()
    net.requires_grad_(False)
    net.last.requires_grad_()
    net.computed.requires_grad_()
    with pytest.warns(UserWarning, match=r"not computed.parametrizations.weight.orig"):
        attached(net, torch.ones(2, 4))
    # Nobody misses a penalty that is off, nor one on a vector.
    CGESClassifier(Several(), alpha=0, max_epochs=1).fit(*blobs)
    with pytest.warns(UserWarning, match="layers are pruned, not matrix, signs"):
        CGESClassifier(
            Several(), alpha=0, target_density=0.5, pruning_start=0, max_epochs=2
        ).fit(*blobs)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_path_from_zero_warns_where_the_penalty_begins(blobs):
    model = CGESClassifier(Several(), alpha=0, max_epochs=1, warm_start=True)
    model.fit(*blobs)
    with pytest.warns(UserWarning, match="layers are penalised"):
        model.set_params(alpha=0.1).fit(*blobs)
    model.set_params(alpha=0.2).fit(*blobs)


class Doubled(nn.Module):
    """A layer of a class of our own, as Blockout's are."""

    has_linear_weight = True

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, 4))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, X):
        return nn.functional.linear(X, 2 * self.weight, self.bias)


def test_layers_of_other_classes_with_a_linear_weight_are_penalised(blobs):
    model = CGESClassifier(Doubled(), alpha=0.5, penalty="l1", max_epochs=30)
    model.fit(*blobs)
    assert model.regularizers_["cges"].names == ["weight"]
    assert 0 < model.sparsity_ == int((model.module_.weight == 0).sum()) / 12


def test_computed_weights_are_left_alone():
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)), nn.Linear(3, 2))
    assert find_weights(net, torch.ones(1, 3)) == ["1.weight"]
    with pytest.raises(ValueError, match="no weight to penalise or to prune"):
        CGES().attach(nn.BatchNorm1d(3), torch.ones(2, 3))


@pytest.mark.parametrize(
    "params", [{"alpha": 1.0}, {"alpha": 0, "target_density": 0.2}]
)
def test_frozen_weights_are_left_alone(digits, params):
    X, y = digits
    net = make_mlp(64, 10, (20,))
    net[0].requires_grad_(False)
    fitted = CGESClassifier(net, max_epochs=5, random_state=0, **params).fit(X, y)
    assert torch.equal(fitted.module_[0].weight, net[0].weight)
    zeros = fitted.module_[2].weight == 0
    assert zeros.any()
    assert fitted.sparsity_ == pytest.approx(float(zeros.float().mean()))
    if "target_density" in params:
        assert int(zeros.sum()) == 160


def test_only_weights_in_training_are_shrunk():
    """Frozen after attach, unfrozen again, or not in the optimizer at all."""
    net = make_mlp(6, 3, (5, 4))
    before = copy.deepcopy(net)
    regularizer = attached(net, torch.ones(1, 6))
    optimizer = torch.optim.SGD([*net[0].parameters(), *net[2].parameters()], lr=LR)

    def changed():
        return [
            not torch.equal(net[layer].weight, before[layer].weight)
            for layer in (0, 2, 4)
        ]

    net[0].requires_grad_(False)
    regularizer.after_step(net, optimizer)
    assert changed() == [False, True, False]
    net[0].requires_grad_()
    regularizer.after_step(net, optimizer)
    assert changed() == [True, True, False]
    optimizer.add_param_group({"params": list(net[4].parameters())})
    regularizer.after_step(net, optimizer)
    assert changed() == [True, True, True]


def test_convolutions_and_a_bare_layer():
    net = make_convnet((1, 8, 8), 3, (5,))
    names = find_weights(net, torch.ones(1, 1, 8, 8))
    assert names == ["0.weight", "3.weight", "7.weight", "9.weight"]
    assert find_weights(nn.Linear(3, 2), torch.ones(1, 3)) == ["weight"]


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
    n_layers = len(find_weights(net, sample))
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
    regularizer.after_step(net, sgd(net))
    exact = prox == "exact"
    for layer, name in enumerate(find_weights(net, sample)):
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


def test_a_constant_per_layer_serves_both_terms():
    net = make_mlp(3, 2)
    single = attached(net, torch.ones(1, 3), layer_scale=[2.0, 3.0])
    pairs = attached(net, torch.ones(1, 3), layer_scale=[(2.0, 2.0), (3.0, 3.0)])
    assert single.layers_ == pairs.layers_


# ---- when ----------------------------------------------------------------------


def test_each_step_takes_the_present_rate_of_the_weights_group():
    net, one = (make_mlp(6, 3).double() for _ in range(2))
    one.load_state_dict(net.state_dict())
    sample = torch.ones(1, 6, dtype=torch.float64)
    regularizer = attached(net, sample, penalty="l1")
    groups = [
        {"params": net[0].parameters(), "lr": 0.01},
        {"params": net[2].parameters(), "lr": 0.02},
    ]
    optimizer = torch.optim.SGD(groups)

    def expect(*rates):
        for layer, lr in zip((0, 2), rates, strict=True):
            expected = prox_l1(one[layer].weight.detach(), lr * ALPHA)
            torch.testing.assert_close(net[layer].weight.detach(), expected)
        one.load_state_dict(net.state_dict())

    regularizer.after_step(net, optimizer)
    expect(0.01, 0.02)
    optimizer.param_groups[1]["lr"] = 0.005  # as schedulers do
    regularizer.after_step(net, optimizer)
    expect(0.01, 0.005)
    optimizer.load_state_dict(optimizer.state_dict())  # makes new groups
    optimizer.param_groups[0]["lr"] = 0.03
    regularizer.after_step(net, optimizer)
    expect(0.03, 0.005)


def test_strength_zero_touches_nothing():
    net = make_mlp(6, 3)
    before = copy.deepcopy(net.state_dict())
    regularizer = CGES(0.0)
    regularizer.attach(net, torch.ones(1, 6))
    regularizer.after_step(net, sgd(net))
    regularizer.before_validation(net)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())


def test_a_copied_module_is_the_one_that_is_changed():
    net = make_mlp(6, 3)
    regularizer = attached(net, torch.ones(1, 6))
    regularizer.after_step(net, sgd(net))
    other = copy.deepcopy(net)
    settled = net[0].weight.detach().clone()
    regularizer.after_step(other, sgd(other))
    assert torch.equal(net[0].weight, settled)
    assert not torch.equal(other[0].weight, settled)


def test_a_pickle_holds_names_and_no_layers():
    net = make_mlp(6, 3)
    regularizer = attached(net, torch.ones(1, 6))
    before = pickle.dumps(regularizer)
    regularizer.after_step(net, sgd(net))
    assert pickle.dumps(regularizer) == before
    restored = pickle.loads(before)
    assert restored.layers_ == regularizer.layers_
    restored.after_step(net, sgd(net))


def test_a_strength_in_single_precision(blobs):
    models = [
        CGESClassifier(alpha=alpha, max_epochs=2, random_state=0).fit(*blobs)
        for alpha in (np.float32(0.25), 0.25)
    ]
    one, two = (nn.utils.parameters_to_vector(m.module_.parameters()) for m in models)
    assert torch.equal(one, two)
