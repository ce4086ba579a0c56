"""The penalty on every kind of layer: groups by hand, dead inputs, trainings."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_structreg.blockout import Blockout
from sklearn_structreg.cges import CGES, CGESClassifier, prox_cges
from sklearn_structreg.cges.layers import find_weights
from sklearn_structreg.core import StructuredClassifier

GROUP, EXCLUSIVE = 0.3, 0.2


def groups_of(*shape):
    """Number the input and the output that each weight of a matrix belongs to."""
    rows, columns = np.indices(shape)[:2]
    return columns, rows


def grouped(shape, n_groups):
    """Of a convolution (out, in / n_groups, ...): the groups of channels by hand."""
    outputs, within = np.indices(shape)[:2]
    return outputs // (shape[0] // n_groups) * shape[1] + within, outputs


def transposed(shape, n_groups):
    """Of a transposed convolution (in, out / n_groups, ...)."""
    inputs, within = np.indices(shape)[:2]
    return inputs, inputs // (shape[0] // n_groups) * shape[1] + within


def gates(shape, n_gates):
    """Of a recurrent layer: the rows of all gates belong to the same units."""
    rows, columns = np.indices(shape)
    return columns, rows % (shape[0] // n_gates)


# The layer; the shape of a sample, and the axis of its inputs; the number of the input
# and of the output that each weight belongs to.
KINDS = {
    "linear": (lambda: nn.Linear(5, 3), (2, 5), 1, [groups_of(3, 5)]),
    "conv": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 4, 4), 1, [grouped((4, 3, 3, 3), 1)]),
    "grouped": (
        lambda: nn.Conv1d(4, 6, 3, groups=2),
        (2, 4, 5),
        1,
        [grouped((6, 2, 3), 2)],
    ),
    "depthwise": (
        lambda: nn.Conv2d(4, 8, 3, groups=4),
        (2, 4, 4, 4),
        1,
        [grouped((8, 1, 3, 3), 4)],
    ),
    "separable": (
        lambda: nn.Conv2d(4, 4, 2, groups=4),
        (2, 4, 4, 4),
        1,
        [grouped((4, 1, 2, 2), 4)],
    ),
    "transposed": (
        lambda: nn.ConvTranspose2d(4, 3, 2),
        (2, 4, 3, 3),
        1,
        [transposed((4, 3, 2, 2), 1)],
    ),
    "grouped transposed": (
        lambda: nn.ConvTranspose1d(4, 6, 2, groups=2),
        (2, 4, 3),
        1,
        [transposed((4, 3, 2), 2)],
    ),
    "lstm": (
        lambda: nn.LSTM(5, 3, batch_first=True, proj_size=2),
        (2, 4, 5),
        2,
        [gates((12, 5), 4), gates((12, 2), 4), groups_of(2, 3)],
    ),
    "gru": (
        lambda: nn.GRU(5, 3, batch_first=True, bidirectional=True),
        (2, 4, 5),
        2,
        [gates((9, 5), 3), gates((9, 3), 3)] * 2,
    ),
    "rnn cell": (
        lambda: nn.RNNCell(5, 3),
        (2, 5),
        1,
        [groups_of(3, 5), groups_of(3, 3)],
    ),
    "self-attention": (
        lambda: nn.MultiheadAttention(6, 2, batch_first=True),
        (2, 4, 6),
        2,
        [groups_of(18, 6), groups_of(6, 6)],
    ),
    "cross-attention": (
        lambda: nn.MultiheadAttention(6, 2, batch_first=True, kdim=4, vdim=3),
        (2, 4, 6),
        2,
        [groups_of(6, 6), groups_of(6, 4), groups_of(6, 3), groups_of(6, 6)],
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


class Bare(nn.Module):
    """A network of a single layer, whatever its arguments."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, X):
        arguments = [X]
        if isinstance(self.layer, nn.MultiheadAttention):
            sizes = (self.layer.kdim, self.layer.vdim)
            arguments += [X[..., :size] for size in sizes]
        output = self.layer(*arguments)
        return output[0] if isinstance(output, tuple) else output


def make(kind):
    layer, shape, axis, numbers = KINDS[kind]
    torch.manual_seed(0)
    net = Bare(layer()).double()
    return net, torch.randn(shape, dtype=torch.float64), axis, numbers


def shrunk(values, group, exclusive):
    """Both operators on one group, in double precision, from their formulas."""
    values = values * max(0.0, 1.0 - group / np.linalg.norm(values))
    sizes = np.sort(np.abs(values))[::-1]
    sums, counts = np.cumsum(sizes), np.arange(1, len(sizes) + 1)
    tau = (exclusive * sums / (1.0 + exclusive * counts)).max()
    return np.sign(values) * np.maximum(np.abs(values) - tau, 0.0)


def members_of_groups(w, groups, inputs, outputs):
    """Yield the mask of each group; an input has one for each kernel position."""
    kernel = np.arange(w[0, 0].numel()).reshape(w.shape[2:])
    numbers = inputs * kernel.size + kernel if groups == "feature" else outputs
    for number in np.unique(numbers):
        yield torch.as_tensor(numbers == number)


@every_kind
@pytest.mark.parametrize("groups", ["feature", "filter"])
def test_each_group_is_shrunk_by_itself(kind, groups, path):
    net, sample, _, numbers = make(kind)
    before = copy.deepcopy(net)
    scale = [(GROUP, EXCLUSIVE)] * len(numbers)
    penalty = CGES(groups=groups, exclusivity=0.5, layer_scale=scale)
    penalty.attach(net, sample)
    penalty.after_step(net, torch.optim.SGD(net.parameters(), lr=2.0))
    for name, sides in zip(penalty.names, numbers, strict=True):
        w, now = before.get_parameter(name).detach(), net.get_parameter(name).detach()
        for members in members_of_groups(w, groups, *sides):
            expected = shrunk(w[members].numpy(), GROUP, EXCLUSIVE)
            np.testing.assert_allclose(now[members], expected, rtol=1e-12, atol=1e-15)


@every_kind
@pytest.mark.parametrize("groups", ["feature", "filter"])
def test_each_group_is_shrunk_by_itself_in_a_metric(kind, groups, path):
    net, sample, _, numbers = make(kind)
    net(sample).square().sum().backward()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    optimizer.step()
    before = copy.deepcopy(net)
    penalty = CGES(groups=groups, exclusivity=0.5, layer_scale=None)
    penalty.attach(net, sample)
    penalty.after_step(net, optimizer)
    for name, sides in zip(penalty.names, numbers, strict=True):
        w, now = before.get_parameter(name).detach(), net.get_parameter(name).detach()
        squares = optimizer.state[net.get_parameter(name)]["exp_avg_sq"]
        metric = ((squares / (1 - 0.999)).sqrt() + 1e-8) / 0.1
        for members in members_of_groups(w, groups, *sides):
            expected = prox_cges(w[members], 0.5, 0.5, 0, metric=metric[members])
            torch.testing.assert_close(now[members], expected)


@every_kind
def test_the_value_of_the_penalty_is_the_sum_over_the_groups(kind):
    net, sample, _, numbers = make(kind)
    penalty = CGES(groups="filter", exclusivity=0.5, layer_scale=None)
    penalty.attach(net, sample)
    value = 0.0
    for name, sides in zip(penalty.names, numbers, strict=True):
        w = net.get_parameter(name).detach()
        for members in members_of_groups(w, "filter", *sides):
            value += 0.5 * float(w[members].norm())
            value += 0.25 * float(w[members].abs().sum()) ** 2
    assert penalty.penalty_value(net) == pytest.approx(value)


@every_kind
def test_an_input_without_weights_changes_no_output(kind):
    net, sample, axis, numbers = make(kind)
    weights = [net.get_parameter(name) for name in find_weights(net, sample)]
    names = find_weights(net, sample)
    with torch.no_grad():
        for name, w, (inputs, _) in zip(names, weights, numbers, strict=True):
            if not any(part in name for part in ("_hh", "_hr", "out_proj")):
                w[torch.as_tensor(inputs == 1)] = 0.0
        before, other = net(sample), sample.clone()
        other.select(axis, 1).add_(1.0)
        assert torch.equal(net(other), before)
        other.select(axis, 0).add_(1.0)
        assert not torch.allclose(net(other), before)


# ---- trainings -----------------------------------------------------------------


class Rows(nn.Module):
    """Reads a picture row by row."""

    def __init__(self, reader):
        super().__init__()
        self.reader, self.top = reader, nn.LazyLinear(10)

    def forward(self, X):
        X = self.reader(X.reshape(-1, 8, 8))
        return self.top((X[0] if isinstance(X, tuple) else X).flatten(1))


def recurrent():
    return Rows(nn.LSTM(8, 24, batch_first=True))


def attention():
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    return Rows(nn.Sequential(nn.Linear(8, 16), layer))


def convolutional():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, groups=4),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 8, 2, groups=2),
        nn.Flatten(),
        nn.Linear(8 * 7 * 7, 10),
    )


@pytest.mark.parametrize(
    ("module", "alpha", "names"),
    [
        (recurrent, 1.0, ["reader.weight_ih_l0", "top.weight"]),
        (
            attention,
            0.3,
            ["reader.1.self_attn.in_proj_weight", "reader.1.linear1.weight"],
        ),
        (convolutional, 1.0, ["3.weight", "5.weight"]),
    ],
)
def test_training_leaves_empty_groups_and_the_accuracy(module, alpha, names, digits):
    X, y = digits
    torch.manual_seed(0)
    net = module()
    net(torch.zeros(2, 64))
    settings = {"optimizer": "adam", "learning_rate": 5e-3, "max_epochs": 20}
    plain, sparse = (
        CGESClassifier(net, alpha=a, penalty="group", random_state=0, **settings)
        for a in (0.0, alpha)
    )
    for model in (plain, sparse):
        model.fit(X[:600], y[:600])
    score = sparse.score(X[600:], y[600:])
    assert score > plain.score(X[600:], y[600:]) - 0.05
    penalty = sparse.regularizers_["cges"]
    assert penalty.left_out() == []
    assert set(names) <= set(penalty.names)
    for layer in penalty.layers_:
        w = layer.view(sparse.module_.get_parameter(layer.name).detach())
        norms = torch.linalg.vector_norm(w, dim=layer.group_dims)
        if layer.name in names:
            assert 0 < int((norms == 0).sum()) < norms.numel()


class Gated(nn.Module):
    """A linear layer, and a matrix that no penalty knows."""

    def __init__(self):
        super().__init__()
        self.first, self.matrix = nn.Linear(4, 3), nn.Parameter(torch.eye(3))

    def forward(self, X):
        return self.first(X) @ self.matrix


def test_the_size_report_names_what_is_left_out(blobs):
    with pytest.warns(UserWarning, match="layers are penalised, not matrix"):
        model = CGESClassifier(Gated(), alpha=0.1, max_epochs=3).fit(*blobs)
    report = model.size_report(blobs[0], n_repeats=0, unsupported="keep")
    assert report.left_out == ("matrix",)
    assert "Left out: matrix." in str(report)
    assert "Left out: matrix." in report._repr_html_()
    model.set_params(alpha=0.0).fit(*blobs)
    report = model.size_report(blobs[0], n_repeats=0, unsupported="keep")
    assert "Left out" not in str(report)


def test_frozen_weights_and_rates_of_groups_hold_for_gates_and_projections():
    net = nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0, batch_first=True)
    penalty = CGES(penalty="l1", layer_scale=[1.0] * 4)
    penalty.attach(net, torch.ones(1, 3, 4))
    attention = net.self_attn
    attention.out_proj.weight.requires_grad_(False)
    before = copy.deepcopy(net)
    groups = [
        {"params": [attention.in_proj_weight], "lr": 0.01},
        {"params": [attention.out_proj.weight, net.linear1.weight], "lr": 0.02},
    ]
    penalty.layers_ = [replace(layer, is_measured=True) for layer in penalty.layers_]
    penalty.after_step(net, torch.optim.SGD(groups))
    rates = {"self_attn.in_proj_weight": 0.01, "linear1.weight": 0.02}
    for name, w in before.named_parameters():
        lost = nn.functional.softshrink(w.detach(), rates.get(name, 0.0))
        assert torch.equal(net.get_parameter(name).detach(), lost), name


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("penalty_first", [False, True])
def test_layers_of_blockout_are_penalised(penalty_first, digits):
    X, y = digits
    regularizers = [Blockout(), CGES(1.0, penalty="l1")]
    model = StructuredClassifier(
        regularizers=regularizers[::-1] if penalty_first else regularizers,
        max_epochs=5,
        random_state=0,
    ).fit(X[:300], y[:300])
    weights = [layer.weight for layer in model.module_ if hasattr(layer, "weight")]
    assert len(weights) == 2
    assert all((w == 0).any() for w in weights)
    assert model.regularizers_["cges"].left_out_ == []


def test_pruning_reaches_gates_and_kernels(digits):
    X, y = digits
    torch.manual_seed(0)
    net = recurrent()
    net(torch.zeros(2, 64))
    settings = {"optimizer": "adam", "learning_rate": 5e-3, "max_epochs": 8}
    model = CGESClassifier(net, alpha=0, target_density=0.3, **settings)
    model.fit(X[:300], y[:300])
    assert model.sparsity_ == pytest.approx(0.7, abs=1e-3)
    assert (model.module_.reader.weight_hh_l0 == 0).any()
    with pytest.raises(ValueError, match="weight_ih_l0 is the first weight; use"):
        _ = model.feature_importances_
