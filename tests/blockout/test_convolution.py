"""Convolutions with channels as nodes, several heads, and the layers left out."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.blockout import (
    Blockout,
    BlockoutConv2d,
    BlockoutLinear,
    NodeSet,
    convert,
    draws,
    fold,
)
from sklearn_structreg.blockout.conversion import blockout_layers, node_sets
from sklearn_structreg.core import StructuredClassifier, count_multiply_adds

HOW = {"stride": (2, 1), "padding": 1, "dilation": (1, 2)}


@pytest.mark.parametrize("mask_per", ["batch", "sample"])
def test_a_channel_is_masked_with_all_its_pixels(mask_per, monkeypatch):
    drawn = []

    def spy(*arguments):
        drawn.append(draw_memberships(*arguments))
        return drawn[-1]

    draw_memberships = draws.draw_memberships
    monkeypatch.setattr(draws, "draw_memberships", spy)
    torch.manual_seed(0)
    sets = [NodeSet(n, 3, gradient="straight_through").double() for n in (4, 5)]
    layer = BlockoutConv2d(*sets, 3, mask_per=mask_per, scale=1.7, **HOW).double()
    x = torch.randn(6, 4, 9, 8, dtype=torch.float64)
    y = layer(x)
    c_in, c_out = (c.expand(6, *c.shape[-2:]).clone().requires_grad_() for c in drawn)
    rows = []
    for i in range(6):
        mask = 1.7 * c_out[i] @ c_in[i].T / 3
        weight = layer.weight * mask[..., None, None]
        rows.append(nn.functional.conv2d(x[i : i + 1], weight, layer.bias, **HOW))
    expected = torch.cat(rows)
    torch.testing.assert_close(y, expected)
    slope = torch.randn_like(y)
    y.backward(slope)
    for nodes, c in zip(sets, (c_in, c_out), strict=True):
        (gradient,) = torch.autograd.grad(expected, c, slope, retain_graph=True)
        torch.testing.assert_close(nodes.logits.grad, gradient.sum(0) / 4)
    plain = layer.eval().simplified()
    assert type(plain) is nn.Conv2d
    torch.testing.assert_close(plain(x), layer(x))


class Heads(nn.Module):
    """Convolutions, a trunk, two heads, and a layer whose nodes are mixed."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 8, 3)
        self.depthwise = nn.Conv2d(8, 8, 1, groups=8)
        self.mixed, self.trunk = nn.Linear(8, 9), nn.Linear(9, 12)
        self.one, self.two = nn.Linear(12, 4), nn.Linear(12, 6)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.norm(self.first(x)).relu(), 2)
        x = self.depthwise(self.second(x).relu()).mean((2, 3))
        x = self.trunk(nn.functional.layer_norm(self.mixed(x), (9,))).relu()
        return torch.cat([self.one(x), self.two(x)], 1)


def test_all_layers_that_follow_each_other_share_their_nodes():
    torch.manual_seed(0)
    x = torch.randn(7, 1, 8, 8)
    net = convert(Heads(), x, layers="all", n_clusters=3)
    assert net.first.outputs is net.second.inputs
    assert net.second.outputs is net.mixed.inputs  # past a layer that is left alone
    assert net.mixed.outputs is not net.trunk.inputs
    assert net.one.inputs is net.trunk.outputs
    assert net.two.inputs is net.trunk.outputs
    assert type(net.depthwise) is nn.Conv2d
    assert [len(nodes.logits) for nodes in node_sets(net)] == [1, 6, 8, 9, 9, 12, 4, 6]
    twin = pickle.loads(pickle.dumps(net))
    twin.load_state_dict(net.state_dict())
    for nodes in node_sets(net):
        nn.init.normal_(nodes.logits)
    twin.load_state_dict(net.state_dict())
    torch.testing.assert_close(fold(net)(x), net.eval()(x))
    assert torch.equal(twin.eval()(x), net(x))


def test_a_price_counts_the_pixels():
    blockout = Blockout(2, layers=["first", "second"], block_penalty=1.0)
    net = blockout.attach(Heads(), torch.zeros(1, 1, 8, 8))
    shares = []
    for layer, n_positions in ((net.first, 64), (net.second, 4)):
        assert layer.n_positions == n_positions
        pairs = layer.outputs.probabilities @ layer.inputs.probabilities.T
        shares.append((layer.weight.numel() * n_positions, pairs.mean() * 1.0))
    expected = sum(n * share for n, share in shares) / sum(n for n, _ in shares)
    torch.testing.assert_close(blockout.penalty(net), expected)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_both_heads_are_converted_and_hardened(digits):
    """The head that is not the last one was left dense without a word."""
    X, y = digits[0][:400].reshape(-1, 1, 8, 8), digits[1][:400]
    model = BlockoutClassifier(Heads(), max_epochs=4, random_state=0)
    with pytest.warns(
        UserWarning, match="not mixed.weight; name the layers to convert"
    ):
        model.fit(X, y)
    assert model.regularizers_["blockout"].left_out_ == ["mixed.weight"]
    assert model.size_report(X).left_out == ("mixed.weight",)
    net = model.module_
    kinds = [type(part) for part in (net.trunk, net.one, net.two)]
    assert kinds == [BlockoutLinear] * 3
    hardened = model.harden(X, y, threshold=0.8)
    assert hardened.names == ("trunk", "one", "two")
    assert hardened.joins == ((0, 1), (1, 2), (1, 3))
    dense, sparse = hardened.multiply_adds
    assert 0 < sparse < dense == 9 * 12 + 12 * 4 + 12 * 6
    x = torch.tensor(X).float()
    for branches in (hardened.branches, hardened.merged_branches()):
        torch.testing.assert_close(branches.eval()(x), hardened.module.eval()(x))
    share = (hardened.module.one.weight != 0).float().mean()
    assert hardened.nonzero_shares[1] == pytest.approx(float(share))


def test_a_convolutional_net_trains_hardens_and_gets_smaller(digits):
    X, y = digits[0][:600], digits[1][:600]
    model = BlockoutClassifier(
        layers="all",
        block_penalty=0.1,
        image_shape=(1, 8, 8),
        max_epochs=30,
        random_state=0,
    ).fit(X, y)
    kinds = {type(layer) for layer in blockout_layers(model.module_)}
    assert kinds == {BlockoutConv2d, BlockoutLinear}
    assert model.regularizers_["blockout"].left_out_ == []
    assert model.score(X, y) > 0.9
    assert np.ptp(np.concatenate(model.cluster_probabilities_)) > 0.3
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        loaded.decision_function(X), model.decision_function(X)
    )
    hardened = model.harden(X, y, threshold=0.3)
    assert hardened.multiply_adds[0] == count_multiply_adds(
        hardened.module, torch.zeros(1, 1, 8, 8)
    )
    assert hardened.multiply_adds[1] < 0.8 * hardened.multiply_adds[0]
    assert hardened.hardened_score > hardened.score - 0.05
    compacted = model.compact().module_
    rows = torch.tensor(X).float().reshape(-1, 1, 8, 8)
    outputs = compacted.eval()(rows).detach().numpy()
    np.testing.assert_allclose(outputs, model.decision_function(X), atol=1e-4)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_recurrent_weights_are_named_where_all_layers_are_asked_for(digits):
    class Recurrent(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x.reshape(-1, 8, 8))[0][:, -1])

    net = Recurrent(nn.GRU(8, 10, batch_first=True), nn.Linear(10, 10))
    asked = Blockout(3, layers="all")
    model = StructuredClassifier(net, regularizers=[asked], max_epochs=1)
    with pytest.warns(UserWarning, match=r"not 0\.weight_ih_l0, 0\.weight_hh_l0;"):
        model.fit(digits[0][:100], digits[1][:100])
