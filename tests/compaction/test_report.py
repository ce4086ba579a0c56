"""The size report, against counts by hand."""

import json
import time

import pytest
import torch
from compaction.networks import ResNet, randomize
from sklearn.base import clone
from torch import nn

from sklearn_structreg import (
    BlockoutRegressor,
    CGESClassifier,
    CGESClassifierCV,
    DropClusterClassifier,
    SelfInformedClassifier,
)
from sklearn_structreg.compaction import compact, size_report
from sklearn_structreg.core import SizeDisplay, count_multiply_adds


def convnet():
    """A ConvNet on images of (2, 8, 8), with zeros of both patterns."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),  # maps of 4 x 4
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    with torch.no_grad():
        network[0].weight[:, 1] = 0.0  # reads the second input channel
        network[4].weight[:, :16] = 0.0  # reads the first map
        network[4].weight[0, 16:20] = 0.0
        for layer in (network[0], network[4]):
            layer.bias.fill_(1.0)
    return network


def test_counts_by_hand():
    report = size_report(convnet(), torch.zeros(3, 2, 8, 8), n_repeats=0)
    assert report.n_parameters == (4 * 2 * 9 + 4) + (4 + 4) + (64 * 5 + 5)
    # a batch norm's shift is zero at first
    assert report.n_nonzero == (4 * 1 * 9 + 4) + 4 + (48 * 5 - 4 + 5)
    assert report.n_compact == (3 * 2 * 9 + 3) + (3 + 3) + (48 * 5 + 5)
    assert report.flops == 2 * (16 * 4 * 2 * 9 + 64 * 5)
    assert report.nonzero_flops == 2 * (16 * 4 * 9 + 48 * 5 - 4)
    assert report.compact_flops == 2 * (16 * 3 * 2 * 9 + 48 * 5)
    assert report.latency is report.compact_latency is None
    assert report.batch_size == 3
    convolution, norm, linear = report.layers
    assert (convolution.name, convolution.kind) == ("0", "Conv2d")
    assert (norm.name, norm.kind, norm.flops) == ("1", "BatchNorm2d", 0)
    assert (norm.n_parameters, norm.n_nonzero, norm.n_compact) == (8, 4, 6)
    assert convolution.nonzero_flops == 2 * 16 * 4 * 9
    assert linear.compact_flops == 2 * 48 * 5


def test_operations_by_brute_force():
    """Count the products of a convolution with neither factor zero, one by one."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv1d(4, 6, 3, stride=2, dilation=2, groups=2, bias=False)
    randomize(layer, generator, 0.5, 0.3, torch.float32)
    report = size_report(layer, torch.ones(1, 4, 11), n_repeats=0)
    n_positions = len(range(0, 11 - 2 * 2, 2))
    weight, n_products = layer.weight.detach().numpy(), 0
    for filter_ in weight:
        for _ in range(n_positions):
            n_products += sum(w != 0 for w in filter_.ravel())
    assert report.nonzero_flops == 2 * n_products
    assert report.flops == 2 * weight.size * n_positions


def test_the_layers_add_up_to_torch_s_own_count():
    network = randomize(ResNet(), torch.Generator().manual_seed(0), 0.5, 0.2)
    batch = torch.randn(4, 2, 8, 8, dtype=torch.float64)
    report = size_report(network, batch, n_repeats=0)
    assert sum(layer.flops for layer in report.layers) == report.flops
    assert report.flops == 2 * count_multiply_adds(network, batch)
    smaller = compact(network, batch)
    assert report.compact_flops == 2 * count_multiply_adds(smaller, batch)
    assert sum(x.compact_flops for x in report.layers) == report.compact_flops
    assert report.n_compact == sum(p.numel() for p in smaller.parameters())
    assert report.n_parameters == sum(p.numel() for p in network.parameters())


def test_linear_layers_along_the_last_axis_count_every_position():
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    report = size_report(network, torch.zeros(3, 7, 4), n_repeats=0)
    assert report.flops == report.nonzero_flops == 2 * 7 * (4 * 5 + 5 * 2)


def test_a_layer_used_twice_has_its_parameters_once():
    layer = nn.Linear(4, 4)
    network = nn.Sequential(layer, nn.ReLU(), layer)
    report = size_report(network, torch.zeros(3, 4), n_repeats=0)
    assert report.n_parameters == 20
    assert report.flops == 2 * 2 * 16
    assert report.nonzero_flops == report.flops


class Sleeper(nn.Linear):
    """Takes time in proportion to its width."""

    def forward(self, x):
        time.sleep(2e-3 * len(self.weight))
        return super().forward(x)


def test_latency():
    pair = Sleeper(4, 8), Sleeper(4, 2)
    report = size_report(pair[0], torch.zeros(3, 4), compacted=pair[1], n_repeats=3)
    assert 16e-3 <= report.latency < 1.0
    assert 4e-3 <= report.compact_latency < report.latency
    assert report.device == "cpu"
    assert report.n_threads == torch.get_num_threads()


def test_the_network_is_left_as_it_was():
    network = convnet().train()
    network[1].eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    size_report(network, torch.randn(3, 2, 8, 8), n_repeats=2)
    assert network.training
    assert not network[1].training
    assert not any(layer._forward_hooks for layer in network)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_text():
    report = size_report(convnet(), torch.zeros(3, 2, 8, 8), n_repeats=3)
    lines = str(report).splitlines()
    assert lines[0].split() == ["trained", "not", "zero", "compacted"]
    assert lines[1].split() == [
        *("parameters", "409", "285", "69.7", "%", "308", "75.3", "%"),
    ]
    assert lines[3].startswith("file")
    assert lines[4].startswith("latency")
    assert "per batch of 3 on cpu" in lines[5]
    assert [line.split()[:2] for line in lines[-3:]] == [
        ["0", "Conv2d"],
        ["1", "BatchNorm2d"],
        ["4", "Linear"],
    ]
    assert max(map(len, lines)) < 88
    assert "latency" not in str(size_report(convnet(), X, n_repeats=0))


X = torch.zeros(3, 2, 8, 8)


def test_html():
    network = nn.Sequential()
    network.add_module("<b>", nn.Linear(4, 2))
    text = size_report(network, torch.zeros(1, 4), n_repeats=0)._repr_html_()
    assert text.count("<table>") == text.count("</table>") == 2
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert ">10</td>" in text


def test_data_as_json():
    report = size_report(convnet(), X, n_repeats=1)
    data = json.loads(json.dumps(report.as_dict()))
    assert data["n_parameters"] == report.n_parameters
    assert data["layers"][0]["name"] == "0"
    assert data["latency"] == report.latency


def test_a_classifier_s_report(digits, tmp_path):
    images, y = digits
    model = CGESClassifier(
        alpha=0.01, penalty="group", image_shape=(1, 8, 8), max_epochs=3
    ).fit(images[:300], y[:300])
    report = model.size_report(images[:300], batch_size=20, n_repeats=2)
    assert report.batch_size == 20
    assert report.n_parameters == model.n_parameters_
    assert report.n_nonzero == model.n_nonzero_parameters_
    assert report.n_compact == sum(
        p.numel() for p in model.compact().module_.parameters()
    )
    assert 0 < report.latency < 10
    assert report.n_plain == report.n_parameters
    assert report.plain_flops == report.flops
    assert 4 * report.n_plain < report.plain_bytes < 4 * report.n_plain + 1000
    model.compact().export(tmp_path / "net.safetensors", outputs=["logits"])
    n_bytes = (tmp_path / "net.safetensors").stat().st_size
    assert abs(report.compact_bytes - n_bytes) < 1500  # of metadata
    zeros = report.flops - report.nonzero_flops
    by_hand = 0
    for name, positions in [("0", 64), ("3", 16), ("7", 1), ("9", 1)]:
        weight = model.module_.get_parameter(f"{name}.weight")
        by_hand += 2 * positions * int((weight == 0).sum())
    assert zeros == by_hand


PLAIN = 64 * 100 + 100 + 100 * 10 + 10
CASES = [
    (BlockoutRegressor(), 64 * 100 + 100 + 100 + 1, 1),
    (SelfInformedClassifier(n_clusters=3, cv=None), PLAIN, None),
    (CGESClassifierCV(alphas=[0.3], cv=2), PLAIN, 2),
    (DropClusterClassifier(), PLAIN, 1),
]


@pytest.mark.parametrize(("model", "n_plain", "times"), CASES)
def test_the_plain_network_is_without_the_method(digits, model, n_plain, times):
    X, y = digits[0][:300], digits[1][:300]
    model = clone(model).set_params(max_epochs=1, random_state=0).fit(X, y)
    report = model.size_report(X, n_repeats=1)
    assert report.n_plain == n_plain
    assert report.plain_flops == 2 * (n_plain - 100 - (n_plain - 6500) // 101)
    assert report.plain_latency > 0
    if times is None:
        assert report.n_parameters > n_plain
    else:
        assert report.n_parameters == times * n_plain
    head, parameters = str(report).splitlines()[:2]
    assert head.split() == ["plain", "trained", "not", "zero", "compacted"]
    assert parameters.split()[1:3] == [f"{n_plain:,}", f"{report.n_parameters:,}"]
    smaller = model.compact().size_report(X, n_repeats=0)
    assert smaller.n_parameters == report.n_compact


def test_display():
    pair = Sleeper(4, 8), Sleeper(4, 2)
    report = size_report(
        pair[0], torch.zeros(3, 4), compacted=pair[1], plain=Sleeper(4, 16), n_repeats=1
    )
    display = SizeDisplay(report).plot()
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == [
        *("parameters", "FLOPs", "file", "latency")
    ]
    plain, trained, compacted = display.ax_.containers
    assert [bar.get_width() for bar in plain] == [100] * 4
    assert [bar.get_width() for bar in trained][:2] == [50, 50]
    assert compacted[1].get_width() == pytest.approx(100 * 8 / 64)
    report = size_report(pair[0], torch.zeros(3, 4), compacted=pair[1], n_repeats=0)
    display = SizeDisplay(report).plot(ax=display.ax_.figure.subplots())
    assert [each.get_label() for each in display.ax_.containers] == [
        *("trained", "compacted")
    ]
    assert len(display.ax_.get_yticks()) == 3
