"""Activations start at the plain net's scale."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_structreg.blockout import BlockoutLinear, convert
from sklearn_structreg.blockout.conversion import blockout_layers
from sklearn_structreg.core import make_mlp


def sizes(net, x, n_draws):
    """Root mean square of what each linear layer puts out, over draws of masks."""
    squares = []
    layers = [m for m in net.modules() if isinstance(m, (nn.Linear, BlockoutLinear))]
    hooks = [
        layer.register_forward_hook(lambda *a: squares.append(a[2].square().mean()))
        for layer in layers
    ]
    with torch.no_grad():
        for _ in range(n_draws):
            net(x)
    for hook in hooks:
        hook.remove()
    return torch.stack(squares).reshape(n_draws, -1).mean(0).sqrt()


@pytest.mark.parametrize("k", [1, 2, 6, 16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1.0])
def test_activations_start_at_the_plain_scale(k, p):
    torch.manual_seed(0)
    x = torch.randn(16, 200)
    plain = make_mlp(200, 100, (300, 300))
    net = convert(copy.deepcopy(plain), x, n_clusters=k, init_probability=p)
    ratio = sizes(net, x, 400 if p < 0.5 else 100) / sizes(plain, x, 1)
    assert ((ratio > 0.9) & (ratio < 1.1)).all(), ratio


@pytest.mark.parametrize("k", [1, 6, 16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_batch_normalization_between_is_taken_into_account(k, p):
    torch.manual_seed(0)
    x = torch.randn(64, 200)
    plain = nn.Sequential(
        nn.Linear(200, 300),
        nn.BatchNorm1d(300),
        nn.ReLU(),
        nn.Linear(300, 300),
        nn.BatchNorm1d(300),
        nn.ReLU(),
        nn.Linear(300, 100),
    )
    net = convert(copy.deepcopy(plain), x, n_clusters=k, init_probability=p)
    ratio = sizes(net, x, 400 if p < 0.5 else 100) / sizes(plain, x, 1)
    assert ((ratio > 0.9) & (ratio < 1.1)).all(), ratio


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_a_soft_net_starts_as_the_plain_one(p):
    torch.manual_seed(0)
    x = torch.randn(16, 200)
    plain = make_mlp(200, 100, (300, 300))
    net = convert(copy.deepcopy(plain), x, assignment="soft", init_probability=p)
    ratio = sizes(net, x, 1) / sizes(plain, x, 1)
    assert ((ratio > 0.9) & (ratio < 1.1)).all(), ratio


def test_without_the_scales_it_would_not():
    torch.manual_seed(0)
    x = torch.randn(16, 200)
    plain = make_mlp(200, 100, (300, 300))
    net = convert(copy.deepcopy(plain), x, init_probability=0.5)
    for layer in blockout_layers(net):
        layer.scale = 1.0
    ratio = sizes(net, x, 100) / sizes(plain, x, 1)
    assert (ratio < 0.5).all(), ratio


def test_the_scale_at_probability_one_is_one():
    net = convert(make_mlp(8, 3), torch.zeros(1, 8), n_clusters=7, init_probability=1)
    assert [layer.scale for layer in blockout_layers(net)] == [1.0, 1.0]


def test_the_first_scale_is_the_mean_square_of_the_mask():
    """E[M^2] = p^4 + p^2 (1 - p^2) / k, M being a binomial share of k clusters."""
    for k, p in [(1, 0.5), (6, 0.5), (4, 0.2)]:
        layer = convert(
            nn.Linear(8, 3), torch.zeros(1, 8), n_clusters=k, init_probability=p
        )
        mean_square = p**4 + p**2 * (1 - p**2) / k
        np.testing.assert_allclose(layer.scale, mean_square**-0.5, rtol=1e-12)
