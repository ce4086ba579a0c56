"""Residual branches, and the layer that drops them."""

import pytest
import torch
from dropcluster.networks import ResNet
from torch import nn

from sklearn_structreg.baselines import DropBlock2d
from sklearn_structreg.baselines.stochastic_depth import (
    BranchDropout,
    residual_branches,
)
from sklearn_structreg.core import insert_layer


def test_branches_of_a_residual_network():
    names = ["layer1.0.bn2", "layer1.1.bn2", "layer2.bn2"]
    assert residual_branches(ResNet()) == names
    net = ResNet()  # a layer that depends on the data inside does not matter
    net.layer1[0].bn1 = nn.Sequential(net.layer1[0].bn1, DropBlock2d(2))
    assert residual_branches(net) == names


def test_no_branches_without_additions_or_where_tracing_fails():
    assert residual_branches(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == []

    class Dynamic(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x

    assert residual_branches(Dynamic()) == []


def test_a_dropped_branch_leaves_the_shortcut():
    torch.manual_seed(0)
    net = ResNet().train()
    x = torch.rand(3, 8, 6, 6)
    block = net.layer1[0]
    insert_layer(net, "layer1.0.bn2", BranchDropout(0.5))
    skipped = [torch.equal(block(x), x) for _ in range(50)]
    assert 10 < sum(skipped) < 40


def test_expected_gain_is_one_and_inference_is_the_identity():
    torch.manual_seed(0)
    layer, x = BranchDropout(0.3), torch.ones(2, 3)
    outs = torch.stack([layer(x) for _ in range(4000)])
    assert outs.flatten(1).std(1).max() == 0  # the whole mini-batch together
    values = outs[:, 0, 0]
    error = values.std() / len(values) ** 0.5
    assert abs(values.mean() - 1) < 4 * error
    assert layer.eval()(x) is x


def test_drop_rate_zero_draws_nothing():
    x, state = torch.ones(2), torch.get_rng_state()
    assert BranchDropout(0)(x) is x
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="drop_rate=1.5 must be"):
        BranchDropout(1.5)
