import numpy as np
import pytest
import torch

from sklearn_structreg.blockout import harden_network
from sklearn_structreg.blockout.hardening import mask_blocks
from sklearn_structreg.core import make_mlp

P = [
    np.array([[0.9, 0.1], [0.2, 0.7], [0.3, 0.4]]),
    np.array([[0.8, 0.8], [0.6, 0.1], [0.1, 0.2], [0.4, 0.5]]),
    np.array([[0.1, 0.2], [0.9, 0.0]]),
]


def test_report_and_weights_by_hand():
    net = make_mlp(3, 2, (4,))
    report = harden_network(net, ["0", "2"], P)
    # Inputs are in {0}, {1}, none; hidden nodes in both, {0}, none, {1}; outputs in
    # {1}, the better one of two below the threshold, and {0}.
    first = [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]]
    second = [[1, 0, 0, 1], [1, 1, 0, 0]]
    for layer, kept in ((0, first), (2, second)):
        expected = net[layer].weight.detach() * torch.tensor(kept)
        assert torch.equal(report.module[layer].weight, expected)
        torch.testing.assert_close(report.module[layer].bias, net[layer].bias)
    assert report.nonzero_shares == (4 / 12, 4 / 8)
    assert report.multiply_adds == (20, 8)
    assert report.n_dead == (1, 1, 0)
    assert report.score is None
    assert "multiply-adds of the chain: 20 dense, 8 as branches" in str(report)
    x = torch.randn(6, 3)
    torch.testing.assert_close(report.branches(x), report.module(x))


def test_a_low_threshold_keeps_every_weight():
    net = make_mlp(3, 2, (4,))
    report = harden_network(net, ["0", "2"], P, threshold=1e-9)
    assert torch.equal(report.module[0].weight, net[0].weight)
    assert report.nonzero_shares[0] == 1.0


def test_bad_input():
    net = make_mlp(3, 2, (4,))
    with pytest.raises(ValueError, match=r"threshold=2 must lie in"):
        harden_network(net, ["0", "2"], P, threshold=2)
    with pytest.raises(ValueError, match="give C_0 to C_m"):
        harden_network(net, ["0", "2"], P[:2])
    with pytest.raises(ValueError, match="same number k"):
        harden_network(net, ["0", "2"], [P[0], P[1][:, :1], P[2]])


def test_names_and_memberships_that_do_not_fit():
    net = make_mlp(6, 3, (4,))
    P = [np.ones((size, 2)) for size in (6, 4, 3)]
    for names, message in (
        (["0", "9"], "has no layer named '9'"),
        ([], "names is empty"),
        (["0", "1"], "'1' is a ReLU"),
        (["0"], "node sets of"),
    ):
        with pytest.raises(ValueError, match=message):
            harden_network(net, names, P)
    members = [np.ones((6, 2), bool), np.ones((4, 3), bool), np.ones((3, 2), bool)]
    with pytest.raises(ValueError, match="the same number of clusters"):
        mask_blocks(net, ["0", "2"], members)
