"""Heads in one product: what each would compute by itself."""

import copy
import gc

import pytest
import torch
from torch import nn

from sklearn_structreg.core import make_mlp
from sklearn_structreg.selfinformed import batched as room
from sklearn_structreg.selfinformed.batched import batched
from sklearn_structreg.selfinformed.conditional import ConditionalNet, PredictingNet
from sklearn_structreg.selfinformed.heads import AugmentedNet
from sklearn_structreg.selfinformed.places import find_attachment_point

ROUNDS = [
    ([[0, 3], [1, 2, 4], [5]], [(3,), (4,), (1,)]),
    ([[5, 4, 3, 2], [0, 1]], [(6, 2), (3, 5)]),
    ([[1, 4, 5], [0], [2, 3]], [(), (), ()]),
]


@pytest.fixture
def net():
    torch.manual_seed(0)
    base = make_mlp(8, 6, (7,))
    point = find_attachment_point(base, torch.randn(2, 8), 6, "auto")
    net = AugmentedNet(base, point)
    for seed, (groups, sizes) in enumerate(ROUNDS):
        net.add_heads(groups, sizes, seed=seed)
    return net.eval()


@pytest.mark.parametrize("n_rows", [1, 2, 40])
def test_one_product_is_every_head_by_itself(net, n_rows):
    X = torch.randn(n_rows, 8)
    with torch.inference_mode():
        torch.testing.assert_close(PredictingNet(net)(X), net(X))


@pytest.mark.parametrize(
    ("sorting", "calling"),
    [(1e18, 0), (0, 0), (0, 1e18)],
    ids=["all", "each", "sorted"],
)
@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("multilabel", [False, True])
def test_on_demand_is_every_wanted_head_by_itself(
    net, top_k, multilabel, sorting, calling, monkeypatch
):
    monkeypatch.setattr(room, "SORTING", sorting)
    monkeypatch.setattr(room, "CALLING", calling)
    X, gate = torch.randn(40, 8), nn.Linear(7, 6)
    with torch.inference_mode():
        expected = ConditionalNet(net, gate, top_k, multilabel, counted=True)(X)
        for rows in (X, X[:1]):
            got = ConditionalNet(net, gate, top_k, multilabel)(rows)
            torch.testing.assert_close(got, expected[: len(rows)])


def test_copies_follow_the_weights_and_go_with_the_heads(net):
    X, heads = torch.randn(5, 8), net.rounds[1]
    assert batched(heads) is batched(heads)
    n_kept = len(room._packed)
    with torch.no_grad():
        heads.heads[1].hidden[2].bias.add_(1)
        torch.testing.assert_close(PredictingNet(net)(X), net(X))
        net.double()
        torch.testing.assert_close(PredictingNet(net)(X.double()), net(X.double()))
    assert batched(copy.deepcopy(heads)) is not batched(heads)
    del heads
    gc.collect()
    assert len(room._packed) <= n_kept + 2


def test_copies_of_weights_that_count_no_changes_follow_them(net):
    X = torch.randn(5, 8)
    with torch.inference_mode():
        made = copy.deepcopy(net)
    torch.testing.assert_close(PredictingNet(made)(X), net(X))
    with torch.inference_mode():
        made.rounds[1].heads[1].hidden[2].bias.add_(1)
    torch.testing.assert_close(PredictingNet(made)(X), made(X))


@pytest.mark.parametrize("end", [(nn.Tanh(),), (nn.ReLU(), nn.Linear(3, 3), nn.ReLU())])
def test_heads_that_are_not_alike_are_run_by_themselves(net, end):
    head = net.rounds[0].heads[0]
    head.hidden = nn.Sequential(head.hidden[0], *end)
    assert batched(net.rounds[0]) is None
    X = torch.randn(5, 8)
    torch.testing.assert_close(PredictingNet(net)(X), net(X))


def test_the_simplified_network_is_exported(net):
    X = torch.randn(5, 8)
    exported = torch.export.export(net.simplified(), (X,)).module()
    torch.testing.assert_close(exported(X), net(X))
