"""The penalty before batch normalization: it falls on the product with its scale."""

import copy

import pytest
import torch
from torch import nn

from sklearn_structreg.cges import CGES, CGESClassifier, prox_cges
from sklearn_structreg.cges.proximal import prox_l1

LR = 0.1
LAYERS = {
    "linear": (nn.Linear(5, 4), nn.BatchNorm1d(4)),
    "conv": (nn.Conv1d(5, 4, 3), nn.BatchNorm1d(4, affine=False)),
    "transposed": (nn.ConvTranspose1d(5, 4, 3), nn.BatchNorm1d(4, momentum=None)),
    "grouped": (nn.ConvTranspose1d(4, 6, 3, groups=2), nn.BatchNorm1d(6)),
}
OUTPUTS = {"linear": 0, "conv": 0, "transposed": 1, "grouped": 1}


def broadcast(kind, scales, w):
    """Give every weight the scale of the channel that it writes into."""
    if kind == "grouped":  # two inputs, and three channels, to each group
        return scales.reshape(2, 3).repeat_interleave(2, 0)[:, :, None].expand_as(w)
    shape = [1] * w.ndim
    shape[OUTPUTS[kind]] = -1
    return scales.reshape(shape).expand_as(w)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("penalty", ["group", "l1"])
def test_the_product_is_shrunk(kind, optimizer, penalty, path):
    torch.manual_seed(0)
    net = nn.Sequential(*copy.deepcopy(LAYERS[kind])).double()
    layer, norm = net
    if norm.affine:
        norm.weight.data.uniform_(-2, 2)
    n_inputs = getattr(layer, "in_channels", 5)
    sample = torch.randn((6, n_inputs, 5)[: layer.weight.ndim]).double()
    regularizer = CGES(0.1, penalty=penalty, layer_scale=None)
    regularizer.attach(net, sample)

    variances = layer(sample).detach().transpose(0, 1).flatten(1).var(dim=1)
    gamma = norm.weight.detach().abs() if norm.affine else 1.0
    w = layer.weight
    scale = broadcast(kind, gamma / (variances + norm.eps).sqrt(), w)
    (net(sample) ** 3).sum().backward()
    optimizer = optimizer([w], lr=LR)
    optimizer.step()
    metric = torch.full_like(w, 1 / LR)
    if isinstance(optimizer, torch.optim.Adam):
        metric = (optimizer.state[w]["exp_avg_sq"] / (1 - 0.999)).sqrt() + 1e-8
        metric = metric / LR
    product, metric = w.detach() * scale, metric / scale**2
    expected = {
        "group": lambda: prox_cges(product, 0.1, 0.0, OUTPUTS[kind], metric=metric),
        "l1": lambda: prox_l1(product, 0.1, metric=metric),
    }[penalty]()
    assert expected.any()
    expected = expected / scale
    expected = expected * w.detach().norm() / expected.norm()
    assert not torch.allclose(expected, w)
    regularizer.after_step(net, optimizer)
    torch.testing.assert_close(w.detach(), expected)


def test_an_l2_penalty_stays_on_the_weights():
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    penalty = CGES(penalty="l2")
    penalty.attach(net, torch.ones(2, 4).double())
    before = net[0].weight.detach().clone()
    penalty.after_step(net, torch.optim.SGD(net.parameters(), lr=LR))
    torch.testing.assert_close(net[0].weight.detach(), before / (1 + LR))


def test_the_value_does_not_depend_on_the_scale_of_the_weights():
    torch.manual_seed(0)
    one = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, eps=1e-12)).double()
    two = copy.deepcopy(one)
    two[0].weight.data *= 100.0
    values = []
    X = torch.randn(8, 1, 6, 6).double()
    for net in (one, two):
        penalty = CGES(layer_scale=None)
        penalty.attach(net, X)
        net(X)
        values.append(penalty.penalty_value(net))
    assert values[0] == pytest.approx(values[1])


class Norms(nn.Module):
    """One norm right behind its layer; others behind something else, or shared."""

    def __init__(self):
        super().__init__()
        self.near, self.far, self.twice, self.other, self.bare = (
            nn.Linear(4, 4) for _ in range(5)
        )
        self.norm, self.behind, self.shared, self.still = (
            nn.BatchNorm1d(4, track_running_stats=i < 3) for i in range(4)
        )

    def forward(self, X):
        X = self.behind(self.far(self.norm(self.near(X))).relu())
        X = self.shared(self.twice(X)) + self.twice(X)
        return self.still(self.other(X)) + self.bare(X)


def test_only_a_norm_right_behind_a_layer_counts():
    penalty = CGES()
    penalty.attach(Norms(), torch.ones(2, 4))
    norms = {layer.name: layer.norm for layer in penalty.layers_}
    assert norms.pop("near.weight") == "norm"
    assert set(norms.values()) == {""}


def test_a_channel_that_is_switched_off_stays_finite():
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    net[1].weight.data[1] = 0.0
    penalty = CGES(layer_scale=None)
    penalty.attach(net, torch.ones(2, 4))
    net(torch.randn(8, 4))
    penalty.after_step(net, torch.optim.SGD(net.parameters(), lr=LR))
    assert net[0].weight.isfinite().all()


def test_the_penalty_bites_before_norms(digits):
    X, y = digits
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 10)
    )
    settings = {"optimizer": "adam", "learning_rate": 5e-3, "max_epochs": 20}
    model = CGESClassifier(net, alpha=1.0, penalty="group", **settings)
    model.set_params(random_state=0).fit(X[:600], y[:600])
    assert model.score(X[600:], y[600:]) > 0.85
    assert model.history_[-1, "layer_sparsity"]["0.weight"] > 0.45
