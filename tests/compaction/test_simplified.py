"""Layers that say by `simplified()` which plain layer has the same outputs."""

import pytest
import torch
from compaction.networks import assert_same_outputs
from torch import nn
from torch.nn import functional

from sklearn_structreg.compaction import compact, size_report
from sklearn_structreg.compaction.counting import count_multiply_adds

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Masked(nn.Module):
    """A linear layer with a mask and a parameter that prediction does not need."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_outputs, n_inputs))
        self.bias = nn.Parameter(torch.randn(n_outputs))
        self.logits = nn.Parameter(torch.zeros(n_outputs, n_inputs))
        self.register_buffer("mask", torch.ones(n_outputs, n_inputs))

    def forward(self, x):
        return functional.linear(x, self.weight * self.mask, self.bias)

    def simplified(self):
        layer = nn.Linear(4, 4).to(self.weight.dtype)
        layer.weight = nn.Parameter((self.weight * self.mask).detach())
        layer.bias = self.bias
        layer.out_features, layer.in_features = self.weight.shape
        return layer


class DropUnits(nn.Module):
    """Acts in training only, with a branch that torch.fx cannot follow."""

    def forward(self, x):
        return x if x.sum() > 0 or not self.training else 0 * x

    def simplified(self):
        return nn.Identity()


class Wrapped(nn.Module):
    """Holds layers that have to be simplified themselves."""

    def __init__(self, *layers, change=0.0):
        super().__init__()
        self.layers, self.change = nn.Sequential(*layers), change

    def forward(self, x):
        return self.layers(x)

    def simplified(self):
        with torch.no_grad():
            self.layers[0].bias += self.change
        return self.layers


def network(**settings):
    torch.manual_seed(0)
    middle = Wrapped(nn.Linear(6, 5), DropUnits(), nn.ReLU(), **settings)
    net = nn.Sequential(Masked(4, 6), nn.ReLU(), DropUnits(), middle, Masked(5, 2))
    net[0].mask[2:4] = 0.0
    net[4].mask[:, 0] = 0.0
    return net.double()


def test_plain_layers_take_their_places_and_are_cut():
    net = network().train()
    net[2].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    smaller = compact(net, X)
    assert [type(part) for part in smaller] == [
        *(nn.Linear, nn.ReLU, nn.Identity, nn.Sequential, nn.Linear),
    ]
    assert (smaller[0].out_features, smaller[3][0].out_features) == (4, 4)
    assert [part.training for part in smaller] == [True, True, False, True, True]
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert isinstance(net[3], Wrapped)
    assert_same_outputs(net, smaller, X)


def test_the_whole_network_may_be_such_a_layer():
    layer = Masked(4, 3).double()
    layer.mask[1] = 0.0
    smaller = compact(layer, X)
    assert type(smaller) is nn.Linear
    assert_same_outputs(layer, smaller, X)


def test_a_layer_with_two_names_stays_one():
    shared = Masked(4, 4).double()
    smaller = compact(nn.Sequential(shared, nn.ReLU(), shared), X)
    assert smaller[0] is smaller[2]


def call_extra(layer, args, output):
    return layer.extra(output)


def unhook(network):
    """Put the extra layer behind the one that calls it."""
    layer = network[0]
    extra, hooks = layer.extra, layer._forward_hooks
    del layer.extra
    hooks.clear()
    network[0] = nn.Sequential(layer, extra)
    return network


def test_a_hook_that_calls_a_layer_can_replace_it_by_a_plain_one():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    net[0].extra = nn.Tanh()
    net[0].register_forward_hook(call_extra)
    with pytest.raises(ValueError, match="has hooks"):
        compact(net, X)
    call_extra.simplified = unhook
    try:
        smaller = compact(net, X)
    finally:
        del call_extra.simplified
    assert type(smaller[0][1]) is nn.Tanh
    assert_same_outputs(net, smaller, X)


def test_a_simplified_layer_with_other_outputs_is_noticed():
    with pytest.raises(ValueError, match="its smaller copy has other outputs"):
        compact(network(change=1.0), X)


def test_the_report_counts_the_network_at_prediction():
    net = network()
    report = size_report(net, X, n_repeats=0)
    assert report.n_parameters == (4 * 6 + 6) + (6 * 5 + 5) + (5 * 2 + 2)
    assert report.flops == 2 * (4 * 6 + 6 * 5 + 5 * 2)
    assert report.flops == 2 * count_multiply_adds(net, X)
    assert report.n_nonzero == report.n_parameters - 2 * 4 - 2
