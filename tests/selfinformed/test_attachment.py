"""Where heads attach, and what is heard there."""

import threading

import pytest
import torch
from torch import nn

from sklearn_structreg.core import make_convnet, make_mlp
from sklearn_structreg.core.inspection import replace_layer
from sklearn_structreg.selfinformed.attachment import capture, find_attachment_point


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
    with capture(trunk, point) as captured:
        trunk(x)
    return captured["features"], captured["hidden"]


def test_auto_reads_what_the_first_fully_connected_layer_reads():
    torch.manual_seed(0)
    net, x = make_convnet((1, 8, 8), 10, (20, 30)), torch.randn(3, 1, 8, 8)
    point = find_attachment_point(net, x, 10, "auto")
    expected, hidden = net[:7](x), net[:11](x)
    assert isinstance(net[7], nn.Linear)
    assert not point.shared
    features, heard = hear(net, point, x)
    assert torch.equal(features, expected)
    assert torch.equal(heard, hidden)
    assert (point.n_features, point.n_hidden) == (256, 30)


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
    assert (point.layer, point.side, point.n_features) == (layer, "input", n_features)


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
        assert point.shared
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


def test_a_network_without_a_classifier_layer_is_an_error():
    net = nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten())
    with pytest.raises(ValueError, match="no fully-connected layer"):
        find_attachment_point(net, torch.zeros(2, 1, 8, 8), 3, "auto")


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
    assert point.n_features == 4
    features, hidden = hear(net, point, x)
    assert torch.equal(features, expected)
    assert torch.equal(hidden, expected)


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
def test_a_softmax_or_logistic_function_may_come_after(end):
    point = find_attachment_point(
        make_mlp(6, 3).append(end), torch.randn(2, 6), 3, "auto"
    )
    assert point.classifier == "2"


@pytest.mark.parametrize(
    "end", [[nn.ReLU()], [nn.Unflatten(1, (3, 1)), nn.Conv1d(3, 3, 1), nn.Flatten()]]
)
def test_outputs_that_are_not_the_classifier_layers_are_an_error(end):
    torch.manual_seed(0)
    net = make_mlp(6, 3).extend(end)
    with pytest.raises(ValueError, match="they are not the logits"):
        find_attachment_point(net, torch.randn(8, 6), 3, "auto")


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
    with capture(trunk, point) as captured:
        trunk(torch.ones(1, 2))
        other = threading.Thread(target=trunk, args=(torch.zeros(1, 2),))
        other.start()
        other.join()
    assert captured["features"].sum() == 2
