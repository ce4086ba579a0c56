"""One draw of each node set in a forward pass, whoever reads it and however often."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sklearn_structreg.blockout import BlockoutLinear, NodeSet, draws

SIZES = {"x": 6, "h": 8, "y": 4}


class Heads(nn.Module):
    """Two layers read the hidden nodes, two the inputs: all branches meet."""

    def __init__(self, k=3, **settings):
        super().__init__()
        x, h, y = (NodeSet(size, k) for size in SIZES.values())
        self.trunk = BlockoutLinear(x, h, **settings)
        self.one = BlockoutLinear(h, y, **settings)
        self.two = BlockoutLinear(h, y, **settings)
        self.skip = BlockoutLinear(x, y, **settings)
        self.drop = nn.Dropout(0.3)

    def parts(self):
        return [
            lambda x: self.drop(self.trunk(x).relu()),
            lambda h: self.drop(self.one(h)) + self.drop(self.two(h)).tanh(),
            lambda x: self.drop(self.skip(x)),
        ]

    def forward(self, x, through=lambda part, *args: part(*args)):
        bottom, top, skip = self.parts()
        return through(top, through(bottom, x)) + through(skip, x)


class Autoencoder(nn.Sequential):
    """Inputs and outputs are the same nodes."""

    def __init__(self, **settings):
        x, h = (NodeSet(SIZES[name], 3) for name in "xh")
        super().__init__(
            BlockoutLinear(x, h, **settings),
            nn.ReLU(),
            BlockoutLinear(h, x, **settings),
        )


@pytest.fixture
def drawn(monkeypatch):
    """The sizes of all node sets that are drawn."""
    sizes = []

    def spy(probabilities, shape=()):
        sizes.append(len(probabilities))
        return draw_memberships(probabilities, shape)

    draw_memberships = draws.draw_memberships
    monkeypatch.setattr(draws, "draw_memberships", spy)
    return sizes


@pytest.mark.parametrize("mask_per", ["batch", "sample"])
@pytest.mark.parametrize("kind", [Heads, Autoencoder])
def test_every_node_set_is_drawn_once_in_a_forward(kind, mask_per, drawn):
    net = kind(mask_per=mask_per)
    for _ in range(3):
        drawn.clear()
        net(torch.randn(5, 6)).sum().backward()
        assert sorted(drawn) == ([4, 6, 8] if kind is Heads else [6, 8])


def test_readers_of_a_node_set_use_the_same_draw():
    """A hidden node outside the only cluster receives nothing and sends nothing."""
    torch.manual_seed(0)
    seen = set()
    net = Heads(k=1)
    for layer in (net.trunk, net.one, net.two):
        layer.bias = None
    for _ in range(30):
        received = net.trunk(torch.eye(6)).any(0)
        one, two = (layer(torch.eye(8)).any(1) for layer in (net.one, net.two))
        assert torch.equal(one, two)
        if one.any() and received.any():
            assert torch.equal(one, received)
            seen.add(tuple(one.tolist()))
    assert len(seen) > 5


def gradients(net, x, through=None, n_steps=2):
    """Outputs and gradients of some steps, random numbers included."""
    torch.manual_seed(1)
    net.zero_grad()
    results = []
    for _ in range(n_steps):
        leaf = x.clone().requires_grad_()
        y = net(leaf) if through is None else net(leaf, through)
        y.square().sum().backward()
        results += [y.detach(), leaf.grad]
    return [*results, *(p.grad.clone() for p in net.parameters()), torch.rand(3)]


def in_parts(reentrant):
    def through(part, *args):
        return checkpoint(part, *args, use_reentrant=reentrant)

    return through


@pytest.mark.parametrize("mask_per", ["batch", "sample"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_no_gradient(mask_per, reentrant, path):
    """Neither by parts nor of the whole, with dropout between."""
    torch.manual_seed(0)
    net, x = Heads(mask_per=mask_per).double(), torch.randn(5, 6, dtype=torch.double)
    expected = gradients(net, x)
    for through in (
        in_parts(reentrant),
        lambda part, *args: (
            in_parts(reentrant)(part, *args) if part.__code__ is TOP else part(*args)
        ),
    ):
        for one, two in zip(gradients(net, x, through), expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return checkpoint(self.net, x, use_reentrant=reentrant)

    for one, two in zip(gradients(Whole(), x), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


TOP = Heads().parts()[1].__code__


def test_a_checkpointed_whole_may_run_several_times_before_the_backward():
    torch.manual_seed(0)
    net, x = Heads().double(), torch.randn(5, 6, dtype=torch.double)

    def total(run):
        torch.manual_seed(1)
        net.zero_grad()
        (run(net, x).square().sum() + run(net, 2 * x).square().sum()).backward()
        return [p.grad.clone() for p in net.parameters()]

    plain = total(lambda net, x: net(x))
    again = total(lambda net, x: checkpoint(net, x, use_reentrant=False))
    for one, two in zip(plain, again, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_a_layer_alone_draws_anew_in_every_forward(drawn):
    torch.manual_seed(0)
    layer = BlockoutLinear(NodeSet(4), NodeSet(3))
    x = torch.randn(2, 4)
    assert len({tuple(layer(x).flatten().tolist()) for _ in range(10)}) > 5
    assert drawn == [4, 3] * 10
    same = BlockoutLinear(nodes := NodeSet(4, 2), nodes)
    drawn.clear()
    same(x)
    assert drawn == [4]


def test_a_seed_gives_the_same_draws_again():
    net, x = Heads(), torch.randn(5, 6)
    for _ in range(3):
        torch.manual_seed(3)
        first = net(x)
        torch.manual_seed(3)
        assert torch.equal(net(x), first)


def test_copies_and_pickles_take_no_draws_along(drawn):
    net = Heads()
    net(torch.randn(5, 6)).sum().backward()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        drawn.clear()
        one, two = twin.one.inputs, twin.trunk.outputs
        assert one is two
        twin(torch.randn(5, 6))
        assert sorted(drawn) == [4, 6, 8]
        drawn.clear()
        twin.skip(torch.randn(5, 6))  # a new pass of the copy, not of the original
        assert sorted(drawn) == [4, 6]


@pytest.mark.parametrize(
    "settings", [{"init_probability": 1}, {"assignment": "soft"}, {}]
)
def test_random_numbers_are_drawn_only_where_they_are_needed(settings):
    nodes = NodeSet(4, **settings), NodeSet(3, **settings)
    layer, x = BlockoutLinear(*nodes, scale=2.0), torch.randn(2, 4)
    if not settings:
        layer.eval()
    state = torch.get_rng_state()
    layer(x)
    assert torch.equal(torch.get_rng_state(), state)


def test_torch_compile_keeps_one_draw_for_all_readers():
    torch.manual_seed(0)
    net = Autoencoder()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    outputs = set()
    for _ in range(5):
        y = compiled(torch.ones(2, 6))
        y.sum().backward()
        outputs.add(tuple(y[0].tolist()))
    assert len(outputs) == 5
