"""Where heads attach, and what is heard there."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional

from sklearn_structreg.core import make_convnet, make_mlp
from sklearn_structreg.core.inspection import replace_layer
from sklearn_structreg.selfinformed.attachment import capture
from sklearn_structreg.selfinformed.heads import AugmentedNet
from sklearn_structreg.selfinformed.places import find_attachment_point


class Branches(nn.Module):
    """A net with named parts, a layer nobody calls, and a softmax at the end."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 5)
        self.stack = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 4))
        self.unused = nn.Linear(2, 2)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.stack(self.stem(x))).softmax(dim=1)


def hear(module, point, x):
    trunk = replace_layer(module, point.classifier, nn.Identity())
    with capture(trunk, point, 3) as captured:
        trunk(x)
    hidden = captured["hidden"]
    return captured.get(point.places[0], hidden), hidden


def test_auto_reads_what_the_first_fully_connected_layer_reads():
    torch.manual_seed(0)
    net, x = make_convnet((1, 8, 8), 10, (20, 30)), torch.randn(3, 1, 8, 8)
    point = find_attachment_point(net, x, 10, "auto")
    expected, hidden = net[:7](x), net[:11](x)
    assert isinstance(net[7], nn.Linear)
    assert not point.shares(point.places[0])
    features, heard = hear(net, point, x)
    assert torch.equal(features, expected)
    assert torch.equal(heard, hidden)
    assert (point.places[0].n_features, point.n_hidden) == (256, 30)


torch.manual_seed(0)  # of the networks below


class Squeezing(nn.Module):
    """Convolutions, each with squeeze-and-excitation, and a stack of linear layers."""

    def __init__(self, hidden):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
        self.squeeze, self.excite = nn.Linear(4, 2), nn.Linear(2, 4)
        self.skip = nn.Linear(4, 4)
        self.stack = make_mlp(4, 3, hidden)

    def forward(self, x):
        for conv in (self.stem, self.conv):
            x = conv(x).relu()
            scale = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
            x = x * scale[:, :, None, None]
        x = x.mean((2, 3))
        return self.stack(x + self.skip(x))


@pytest.mark.parametrize(
    ("net", "layer", "n_features"),
    [
        (Squeezing(()), "stack.0", 4),
        (Squeezing((20,)), "stack.0", 4),
        (make_mlp(36, 3, (7,)), "2", 7),  # never the samples
        (make_mlp(36, 3, (7, 5)), "2", 7),
        (nn.Sequential(nn.BatchNorm1d(36), *make_mlp(36, 3, (7, 5))), "3", 7),
        (nn.Linear(36, 3), "", 36),  # but where there is nothing else
    ],
    ids=["squeezing", "with a stack", "one layer", "two layers", "norm", "linear"],
)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_auto_reads_what_all_computation_passes_through(net, layer, n_features, scale):
    x = scale * torch.randn(2, 36, generator=torch.Generator().manual_seed(0))
    x = x.reshape(2, 1, 6, 6) if isinstance(net, Squeezing) else x
    point = find_attachment_point(net.eval(), x, 3, "auto")
    place = point.places[0]
    assert (place.layer, place.side, place.n_features) == (layer, "input", n_features)


def test_a_named_layer_gives_its_output_flattened_before_anything_changes_it():
    torch.manual_seed(0)
    net, x = make_convnet((1, 8, 8), 10), torch.randn(3, 1, 8, 8)
    expected = net[:2](x).flatten(1)
    features, _ = hear(net, find_attachment_point(net, x, 10, "1"), x)
    assert torch.equal(features, expected)
    branches, x = Branches(), torch.randn(4, 6)
    stem = branches.stem(x)  # the layer that comes next works in place
    features, _ = hear(branches, find_attachment_point(branches, x, 3, "stem"), x)
    assert torch.equal(features, stem)


def test_a_linear_model_shares_what_it_reads_with_the_heads():
    x = torch.randn(3, 6)
    for net in (make_mlp(6, 4, ()), nn.Linear(6, 4)):
        point = find_attachment_point(net, x, 4, "auto")
        assert point.shares(point.places[0])
        features, hidden = hear(net, point, x)
        assert torch.equal(features, x)
        assert torch.equal(hidden, x)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("nowhere", "has no layer named 'nowhere'; its layers are 'stem', "),
        ("out", "before the classifier layer"),
        ("unused", "before the classifier layer"),
        ("", "before the classifier layer"),
    ],
)
def test_a_layer_that_cannot_be_read_is_an_error(layer, message):
    with pytest.raises(ValueError, match=message):
        find_attachment_point(Branches(), torch.zeros(2, 6), 3, layer)


class Reused(nn.Module):
    """One ReLU for all layers, called once more after the classifier layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3)
        self.relu = nn.ReLU()

    def forward(self, x):
        logits = self.c(self.relu(self.b(self.relu(self.a(x)))))
        return logits + 0 * self.relu(logits)


def test_of_a_layer_that_runs_more_than_once_the_last_output_is_read():
    torch.manual_seed(0)
    net, x = Reused(), torch.randn(7, 6)
    expected = net.relu(net.b(net.relu(net.a(x))))
    point = find_attachment_point(net, x, 3, "relu")
    assert point.places[0].n_features == 4
    features, hidden = hear(net, point, x)
    assert torch.equal(features, expected)
    assert torch.equal(hidden, expected)


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
def test_a_softmax_or_logistic_function_may_come_after(end):
    point = find_attachment_point(
        make_mlp(6, 3).append(end), torch.randn(2, 6), 3, "auto"
    )
    assert point.classifier == "2"


class End(nn.Module):
    """A hidden layer, and parts that a forward ends in."""

    def __init__(self, end):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mid = nn.Linear(6, 5), nn.Linear(5, 5)
        self.out, self.other = nn.Linear(5, 3), nn.Linear(5, 3)
        self.listed = nn.ModuleList([self.stem, self.out])
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(5, 3))
        self.conv = nn.Conv1d(5, 3, 1)
        self.weight = nn.Parameter(torch.randn(3, 5))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.end = end

    def forward(self, x):
        return self.end(self, self.stem(x).relu())


def in_place(net, h):
    logits = net.out(h).view(-1, 3)
    logits[:, 0] += 0
    return logits


STEM, MID, OUT = ("stem", "output"), ("mid", "input"), ("out", "input")
ENDS = [  # the layer that classifies, the place that heads read by default
    ("view", lambda net, h: net.out(h).view(-1, 3), "out", OUT),
    ("in place", in_place, "out", OUT),
    ("keyword", lambda net, h: net.out(input=h), "out", OUT),
    ("list", lambda net, h: net.listed[1](h), "out", OUT),
    ("weight norm", lambda net, h: net.normed(h), "normed", ("normed", "input")),
    ("an aside", lambda net, h: (net.out(h), net.other(h))[0], "out", OUT),
    ("functional", lambda net, h: functional.linear(h, net.weight), None, STEM),
    ("cosine", lambda net, h: functional.normalize(h) @ net.weight.T, None, STEM),
    ("hidden", lambda net, h: net.mid(h).relu() @ net.weight.T, None, MID),
    ("two ends", lambda net, h: net.out(h) + net.other(h), None, STEM),
    (
        "parts",
        lambda n, h: torch.cat([n.out(h)[:, :1], n.other(h)[:, 1:]], 1),
        None,
        STEM,
    ),
    ("twice", lambda net, h: (net.out(h), net.out(net.mid(h).relu()))[1], None, OUT),
    ("scaled", lambda net, h: net.scale * net.out(h), None, OUT),
    ("relu", lambda net, h: net.out(h).relu(), None, OUT),
    ("tokens", lambda net, h: net.out(h[:, None].expand(-1, 4, -1)).mean(1), None, OUT),
    ("maps", lambda net, h: net.conv(h[:, :, None]).mean(2), None, ("conv", "input")),
    ("softmax", lambda net, h: (h @ net.weight.T).softmax(1), None, STEM),
    ("logarithm", lambda net, h: (h @ net.weight.T).log_softmax(1), None, STEM),
    ("sigmoid", lambda net, h: (h @ net.weight.T).sigmoid(), None, STEM),
]


@pytest.mark.parametrize(
    ("end", "classifier", "place"), [e[1:] for e in ENDS], ids=[e[0] for e in ENDS]
)
def test_heads_add_to_the_logits_of_any_end(end, classifier, place):
    old, x = End(end).eval(), torch.randn(7, 6)
    point = find_attachment_point(old, x, 3, "auto")
    assert (point.classifier, point.places[0].layer, point.places[0].side) == (
        classifier,
        *place,
    )
    net = AugmentedNet(old, point).eval()
    with torch.no_grad():
        logits, result = net(x), old(x)
    if end(old, old.stem(x).relu()).grad_fn.name().startswith("Sigmoid"):
        result = torch.logit(result)
    torch.testing.assert_close(
        logits.softmax(1), result.softmax(1) if point.link != "softmax" else result
    )
    net.add_heads([[0, 2], [1]], [(4,), (2,)], seed=0, fresh=False)
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.classifier.parameters())
    plain = net.eval().simplified()
    torch.testing.assert_close(plain(x), net(x))
    assert not torch.allclose(plain(x), logits)


def test_layers_that_run_twice_are_no_reason_to_read_the_samples():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.map, self.end = nn.Linear(6, 5), nn.Bilinear(5, 5, 3)

        def forward(self, x):
            return self.end(self.map(x), self.map(x))

    point = find_attachment_point(Twice(), torch.randn(2, 6), 3, "auto")
    assert (point.places[0].layer, point.places[0].side) == ("map", "output")


def test_a_matrix_of_the_networks_own_is_no_layer_below_the_first():
    class Positioned(nn.Module):
        def __init__(self):
            super().__init__()
            self.position, self.stack = nn.Parameter(torch.randn(1, 6)), make_mlp(6, 3)

        def forward(self, x):
            return self.stack(x + self.position)

    point = find_attachment_point(Positioned(), torch.randn(2, 6), 3, "auto")
    assert point.places[0].layer == "stack.2"


def test_codes_in_the_samples_are_not_made_noise():
    class Codes(nn.Module):
        def forward(self, x):
            return x.long()

    net = nn.Sequential(
        Codes(), nn.Embedding(9, 4), nn.Flatten(), *make_mlp(24, 3, (5,))
    )
    sample = torch.tensor([[0.0, 8, 1, 2, 3, 4], [8.0, 0, 5, 6, 7, 8]])
    assert find_attachment_point(net, sample, 3, "auto").places[0].layer == "3"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_module_hides_its_layers():
    with pytest.raises(ValueError, match="compiled by torch.jit"):
        find_attachment_point(
            torch.jit.script(make_mlp(6, 3)), torch.ones(2, 6), 3, "auto"
        )


def test_looking_leaves_the_network_as_it_was():
    net = Branches()
    net.train()
    find_attachment_point(net, torch.zeros(2, 6), 3, "auto")
    assert all(part.training for part in net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_threads_do_not_hear_each_other():
    net = make_mlp(2, 2, (3,))
    point = find_attachment_point(net, torch.zeros(1, 2), 2, None)
    trunk = replace_layer(net, point.classifier, nn.Identity())
    with capture(trunk, point, 3) as captured:
        trunk(torch.ones(1, 2))
        other = threading.Thread(target=trunk, args=(torch.zeros(1, 2),))
        other.start()
        other.join()
    assert captured[point.places[0]].sum() == 2
