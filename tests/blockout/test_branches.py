"""Branches compute what the dense hardened net computes, and no more."""

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sklearn_structreg.blockout.branches import BranchedLinear, to_branches
from sklearn_structreg.blockout.hardening import mask_blocks
from sklearn_structreg.core import (
    count_multiply_adds,
    insert_layer,
    make_convnet,
    make_mlp,
)


@st.composite
def chains(draw):
    """Draw an MLP's node sets: dead nodes, full ones, clusters that are empty."""
    k = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(1, 12), min_size=2, max_size=4))
    density = draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
    memberships = [rng.random((size, k)) < density for size in sizes]
    for members in memberships:
        if draw(st.booleans()):
            members[:, draw(st.integers(0, k - 1))] = draw(st.booleans())
    return memberships


def mlp(memberships, dtype, between=nn.ReLU, bias=True):
    sizes = [len(members) for members in memberships]
    layers, names = [], []
    for d_in, d_out in pairwise(sizes):
        names.append(str(len(layers)))
        layers += [nn.Linear(d_in, d_out, bias=bias, dtype=dtype), between()]
    return nn.Sequential(*layers[:-1]), names


@settings(max_examples=150, deadline=None)
@given(chains(), st.booleans(), st.sampled_from([(), (3,), (2, 3)]))
def test_branches_equal_the_dense_net_with_zeros(memberships, bias, rows):
    torch.manual_seed(0)
    net, names = mlp(memberships, torch.float64, bias=bias)
    dense = mask_blocks(net, names, memberships)
    branches = to_branches(net, names, memberships)
    x = torch.randn(*rows, len(memberships[0]), dtype=torch.float64)
    torch.testing.assert_close(branches(x), dense(x), rtol=1e-12, atol=1e-12)
    merged = to_branches(dense, names, memberships, merge=True)
    torch.testing.assert_close(merged(x), dense(x), rtol=1e-12, atol=1e-12)
    branches, dense, merged = branches.float(), dense.float(), merged.float()
    for net in (branches, merged):
        torch.testing.assert_close(
            net(x.float()), dense(x.float()), rtol=1e-5, atol=1e-6
        )


@settings(max_examples=60, deadline=None)
@given(chains())
def test_multiply_adds_are_the_weights_inside_blocks(memberships):
    net, names = mlp(memberships, torch.float32)
    branches = to_branches(net, names, memberships)
    pairs = list(pairwise(memberships))
    needed = 0
    for j, (below, above) in enumerate(pairs):
        for s in range(len(below)):
            needed += sum(bool((below[s] & row).any()) for row in above)
        assert branches[2 * j].n_multiply_adds <= below.shape[0] * above.shape[0]
    assert sum(branches[2 * j].n_multiply_adds for j in range(len(pairs))) == needed
    assert count_multiply_adds(branches, torch.zeros(1, len(memberships[0]))) == needed


def test_merging_makes_fewer_branches_of_many_small_ones_and_spares_large_ones():
    rng = np.random.default_rng(0)
    many = [rng.random((n, 6)) < 0.4 for n in (200, 150, 60)]
    net, names = mlp(many, torch.float64)
    exact = to_branches(net, names, many)
    merged = to_branches(net, names, many, merge=True)
    for j, (below, above) in enumerate(pairwise(many)):
        one, two = exact[2 * j], merged[2 * j]
        assert 1 <= len(two.weights) < len(one.weights)
        assert one.n_multiply_adds < two.n_multiply_adds <= len(below) * len(above)
    x = torch.randn(5, 200, dtype=torch.float64)
    torch.testing.assert_close(merged(x), exact(x), rtol=1e-12, atol=1e-12)
    two = [np.eye(2, dtype=bool)[np.arange(n) % 2] for n in (900, 800, 100)]
    net, names = mlp(two, torch.float32)
    assert len(to_branches(net, names, two, merge=True)[0].weights) == 2


def test_disjoint_clusters_become_the_separate_nets_of_figure_2():
    torch.manual_seed(0)
    one, two = np.array([True, False]), np.array([False, True])
    memberships = [np.array([one, two] * n) for n in (3, 4, 2)]
    net, names = mlp(memberships, torch.float64, nn.Tanh)
    branches = to_branches(net, names, memberships)
    assert count_multiply_adds(branches.float(), torch.zeros(1, 6)) == (48 + 32) // 2
    branches.double()
    x = torch.randn(5, 6, dtype=torch.float64)
    for start in (0, 1):
        hidden = torch.tanh(
            x[:, start::2] @ net[0].weight[start::2, start::2].T + net[0].bias[start::2]
        )
        expected = hidden @ net[2].weight[start::2, start::2].T + net[2].bias[start::2]
        torch.testing.assert_close(branches(x)[:, start::2], expected)


def test_dead_hidden_nodes_are_not_computed_at_all():
    members = [np.ones((4, 1), bool), np.eye(6, 1, dtype=bool), np.ones((3, 1), bool)]
    net, names = mlp(members, torch.float32)
    branches = to_branches(net, names, members)
    assert branches[0].out_features == branches[2].in_features == 1
    assert branches[2].order.numel() == 0
    assert count_multiply_adds(branches, torch.zeros(1, 4)) == 4 + 3


def test_an_output_that_nothing_reaches_is_its_bias():
    members = [np.ones((4, 2), bool) & [True, False], np.array([[0, 1], [1, 0]], bool)]
    net, names = mlp(members, torch.float32)
    y = to_branches(net, names, members)(torch.randn(5, 4))
    torch.testing.assert_close(y[:, 0], net[0].bias[0].expand(5))
    assert y[:, 1].std() > 0


@pytest.mark.parametrize("between", [nn.BatchNorm1d(7), nn.PReLU(7)])
def test_layers_between_that_know_single_nodes_get_the_natural_order(between):
    rng = np.random.default_rng(0)
    memberships = [rng.random((n, 3)) < 0.3 for n in (6, 7, 4)]
    assert not memberships[1].any(axis=1).all()
    torch.manual_seed(0)
    nn.init.uniform_(between.weight)
    net, names = mlp(memberships, torch.float64, lambda: between)
    net.double()(torch.randn(20, 6, dtype=torch.float64))
    net.eval()
    branches = to_branches(net, names, memberships)
    x = torch.randn(9, 6, dtype=torch.float64)
    expected = mask_blocks(net, names, memberships)(x)
    torch.testing.assert_close(branches(x), expected, rtol=1e-12, atol=1e-12)
    assert branches[0].out_features == 7


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)) + 1)


def test_a_module_of_ones_own_and_a_convolutional_one():
    rng = np.random.default_rng(0)
    skip = Skip()
    memberships = [rng.random((n, 3)) < 0.4 for n in (5, 8, 3)]
    names, x = ["first", "second"], torch.randn(4, 5)
    expected = mask_blocks(skip, names, memberships)(x)
    torch.testing.assert_close(to_branches(skip, names, memberships)(x), expected)
    conv = make_convnet((1, 8, 8), 10, (30,))
    memberships = [rng.random((n, 3)) < 0.4 for n in (256, 30, 10)]
    names, x = ["7", "9"], torch.randn(4, 1, 8, 8)
    expected = mask_blocks(conv, names, memberships)(x)
    torch.testing.assert_close(to_branches(conv, names, memberships)(x), expected)
    lone = nn.Linear(5, 8)
    assert isinstance(
        to_branches(lone, [""], [memberships[2][:5], memberships[2][:8]]),
        BranchedLinear,
    )


@pytest.mark.parametrize("inserted", [nn.ReLU(), nn.BatchNorm1d(8)])
def test_inserted_layers_stay_and_keep_the_order_that_they_need(inserted):
    rng = np.random.default_rng(0)
    memberships = [rng.random((n, 3)) < 0.4 for n in (5, 8, 3)]
    assert not memberships[1].any(axis=1).all()
    net, names = mlp(memberships, torch.float64)
    insert_layer(net, "0", nn.BatchNorm1d(5), before=True)  # its order is its own
    insert_layer(net, "0", inserted)
    net.double()(torch.randn(30, 5, dtype=torch.float64))
    net.eval()
    branches = to_branches(net, names, memberships)
    x = torch.randn(9, 5, dtype=torch.float64)
    expected = mask_blocks(net, names, memberships)(x)
    torch.testing.assert_close(branches(x), expected, rtol=1e-12, atol=1e-12)
    known = isinstance(inserted, nn.BatchNorm1d)
    assert branches[0].out_features == (8 if known else memberships[1].any(1).sum())


def test_the_original_is_left_alone_and_pickles_give_the_same():
    rng = np.random.default_rng(0)
    memberships = [rng.random((n, 3)) < 0.4 for n in (5, 8, 3)]
    net, names = mlp(memberships, torch.float32)
    before = copy.deepcopy(net.state_dict())
    branches = to_branches(net, names, memberships)
    loaded = pickle.loads(pickle.dumps(branches))
    x = torch.randn(4, 5)
    assert torch.equal(loaded(x), branches(x))
    other = to_branches(make_mlp(5, 3, (8,)), names, memberships)
    other.load_state_dict(branches.state_dict())
    assert torch.equal(other(x), branches(x))
    branches(x).sum().backward()
    assert all(p.grad is not None for p in branches.parameters())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert net[0].weight.grad is None


def test_what_does_not_fit():
    net = make_mlp(5, 3, (8,))
    members = [np.ones((n, 2), bool) for n in (5, 8, 3)]
    with pytest.raises(ValueError, match="fold the network first"):
        to_branches(net, ["0", "1"], members)
    with pytest.raises(ValueError, match=r"node sets of \[5, 8, 3\] nodes"):
        to_branches(net, ["0", "2"], members[:2])
    with pytest.raises(ValueError, match=r"are of \[5, 8, 8\]"):
        mask_blocks(net, ["0", "2"], [*members[:2], members[1]])
    with pytest.raises(ValueError, match="the memberships are of 8 and 3 nodes"):
        BranchedLinear(torch.zeros(8, 5), None, members[1], members[2])
