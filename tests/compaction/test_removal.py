"""What goes and what stays, counted by hand."""

import itertools

import pytest
import torch
from compaction.networks import ResNet, assert_same_outputs, randomize
from torch import nn
from torch.nn import functional

from sklearn_structreg.compaction import compact


def dense(network, seed=0):
    """Draw parameters without any zeros."""
    return randomize(network, torch.Generator().manual_seed(seed), 0.0, 0.0)


def batch(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def compare(network, *shape):
    x = batch(*shape)
    smaller = compact(network, x)
    assert_same_outputs(network, smaller, x)
    return smaller


def shapes(network):
    return [tuple(p.shape) for n, p in network.named_parameters() if "weight" in n]


@torch.no_grad()
def zero(layer, features=(), filters=()):
    layer.weight[:, list(features)] = 0.0
    layer.weight[list(filters)] = 0.0


# ---- the two patterns ----------------------------------------------------------


def test_a_dense_network_stays_as_it_is():
    network = dense(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)))
    smaller = compare(network, 3, 4)
    for a, b in zip(network.parameters(), smaller.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_unit_that_nobody_reads_goes_with_its_bias():
    network = dense(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)))
    zero(network[2], features=[1, 3])
    smaller = compare(network, 3, 4)
    assert torch.equal(smaller[0].weight, network[0].weight[[0, 2, 4]])
    assert torch.equal(smaller[0].bias, network[0].bias[[0, 2, 4]])
    assert torch.equal(smaller[2].weight, network[2].weight[:, [0, 2, 4]])
    assert torch.equal(smaller[2].bias, network[2].bias)


def test_a_constant_unit_is_folded_into_the_bias():
    network = dense(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)))
    zero(network[0], filters=[2])
    smaller = compare(network, 3, 4)
    by_hand = network[2].bias + network[2].weight[:, 2] * torch.tanh(network[0].bias[2])
    torch.testing.assert_close(smaller[2].bias, by_hand, rtol=1e-14, atol=0)
    assert shapes(smaller) == [(4, 4), (2, 4)]


def test_a_layer_without_a_bias_gains_one_only_where_it_is_needed():
    layers = nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3, bias=False), nn.Linear(3, 2)
    network = dense(nn.Sequential(*layers))
    zero(network[0], filters=[2])
    with torch.no_grad():
        network[0].bias[2] = -1.0
    assert compare(network, 3, 4)[2].bias is None
    with torch.no_grad():
        network[0].bias[2] = 1.0
    smaller = compare(network, 3, 4)
    torch.testing.assert_close(smaller[2].bias, network[2].weight[:, 2])
    assert smaller[2].bias.requires_grad


def test_both_patterns_run_on_through_all_layers():
    layers = []
    for _ in range(4):
        layers += [nn.Linear(3, 3), nn.ReLU()]
    network = dense(nn.Sequential(*layers, nn.Linear(3, 1)))
    with torch.no_grad():  # unit 0 reads only unit 0, and nobody reads the last one
        for layer in (network[2], network[4], network[6]):
            layer.weight[1:, 0] = 0.0
        network[8].weight[:, 0] = 0.0
    smaller = compare(network, 5, 3)
    assert shapes(smaller) == [(2, 3), (2, 2), (2, 2), (2, 2), (1, 2)]
    network = dense(nn.Sequential(*layers, nn.Linear(3, 1)))
    zero(network[0], filters=[0])
    with torch.no_grad():  # unit 0 is constant all the way up
        for layer in (network[2], network[4], network[6]):
            layer.weight[0, 1:] = 0.0
    smaller = compare(network, 5, 3)
    assert shapes(smaller) == [(2, 3), (2, 2), (2, 2), (2, 2), (1, 2)]


@pytest.mark.parametrize(("n_unread", "n_kept"), [(1, 4), (2, 2), (3, 1)])
def test_outputs_stay_and_the_first_layer_skips_inputs_if_half_are_unread(
    n_unread, n_kept
):
    network = dense(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))
    zero(network[0], features=range(n_unread))
    zero(network[2], filters=[2])
    smaller = compare(network, 3, 4)
    assert shapes(smaller) == [(5, n_kept), (3, 5)]
    assert shapes(compact(smaller, batch(3, 4))) == shapes(smaller)
    if n_unread == 2:  # again, when another column goes unread
        zero(smaller[0], features=[0])
        assert shapes(compare(smaller, 3, 4)) == [(5, 1), (3, 5)]
        assert compact(smaller, batch(3, 4))[0].columns.tolist() == [3]


def test_each_reader_of_the_inputs_skips_its_own():
    class TwoReaders(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 3), nn.Linear(6, 3)
            self.last = nn.Linear(3, 2)

        def forward(self, x):
            return self.last(self.one(x).relu() + self.two(x).tanh())

    network = dense(TwoReaders())
    zero(network.one, features=[0, 1, 2, 3])
    zero(network.two, features=[2, 3, 5])
    smaller = compare(network, 7, 5, 6)  # an axis of positions, too
    assert smaller.one.columns.tolist() == [4, 5]
    assert smaller.two.columns.tolist() == [0, 1, 4]


def test_a_reader_that_also_reads_another_layer_reads_all():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Linear(4, 4)

        def forward(self, x):
            return self.shared(self.shared(x))

    network = dense(Twice())
    zero(network.shared, features=[0, 1, 2])
    assert shapes(compare(network, 3, 4)) == [(4, 4)]


# ---- convolutions --------------------------------------------------------------


def test_before_a_flatten_all_pixels_of_a_channel_must_be_ignored():
    network = dense(
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    )
    zero(network[3], features=[*range(16), *range(32, 47)])
    smaller = compare(network, 3, 1, 6, 6)
    assert shapes(smaller) == [(2, 1, 3, 3), (2, 32)]
    assert torch.equal(smaller[3].weight, network[3].weight[:, 16:])


def test_all_taps_of_a_kernel_must_be_zero():
    network = dense(nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Conv1d(3, 2, 3)))
    with torch.no_grad():
        network[2].weight[:, 0] = 0.0
        network[2].weight[:, 1, :2] = 0.0
    assert shapes(compare(network, 3, 1, 9)) == [(2, 1, 3), (2, 2, 3)]


@pytest.mark.parametrize(
    ("settings", "folded"),
    [
        ({"padding": 0}, True),
        ({"padding": "valid"}, True),
        ({"padding": 1}, False),
        ({"padding": "same"}, False),
        ({"padding": 1, "padding_mode": "reflect"}, True),
        ({"padding": 1, "padding_mode": "circular"}, True),
        ({"padding": 0, "stride": 2, "dilation": 2}, True),
    ],
)
def test_constants_are_folded_unless_a_convolution_pads_with_zeros(settings, folded):
    layers = nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 2, 3, **settings)
    network = dense(nn.Sequential(*layers))
    zero(network[0], filters=[0])
    smaller = compare(network, 3, 1, 9, 9)
    assert smaller[0].out_channels == 4 - folded


def test_a_constant_of_zero_goes_even_before_a_padded_convolution():
    layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)
    network = dense(nn.Sequential(*layers))
    zero(network[0], filters=[0, 1])
    with torch.no_grad():
        network[0].bias[:2] = torch.tensor([-1.0, 1.0])
    assert compare(network, 3, 1, 9, 9)[0].out_channels == 3


@pytest.mark.parametrize(
    ("pool", "folded"),
    [
        (nn.AvgPool2d(2), True),
        (nn.AvgPool2d(3, padding=1), False),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), True),
        (nn.AvgPool2d(2, divisor_override=3), False),
        (nn.AvgPool2d(2, ceil_mode=True), True),
        (nn.MaxPool2d(3, padding=1), True),
        (nn.AdaptiveMaxPool2d(3), True),
        (nn.ZeroPad2d(1), False),
        (nn.ReflectionPad2d(1), True),
    ],
)
def test_constants_through_pooling(pool, folded):
    layers = nn.Conv2d(1, 4, 3), nn.Sigmoid(), pool, nn.Conv2d(4, 2, 2)
    network = dense(nn.Sequential(*layers))
    zero(network[0], filters=[0])
    smaller = compare(network, 3, 1, 9, 9)
    assert smaller[0].out_channels == 4 - folded


def test_batch_norm_is_cut_with_its_statistics():
    layers = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)
    network = dense(nn.Sequential(*layers))
    zero(network[3], features=[0, 4])
    smaller = compare(network, 3, 4)
    for name in ("weight", "bias", "running_mean", "running_var"):
        expected = getattr(network[1], name)[1:4]
        assert torch.equal(getattr(smaller[1], name), expected)
    assert smaller[1].num_features == 3


def test_a_batch_norm_s_zero_scale_makes_a_constant():
    layers = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)
    network = dense(nn.Sequential(*layers))
    with torch.no_grad():
        network[1].weight[2] = 0.0
    smaller = compare(network, 3, 4)
    assert shapes(smaller) == [(4, 4), (4,), (2, 4)]


def test_group_norm_loses_whole_groups_only():
    layers = nn.Conv1d(1, 6, 3), nn.GroupNorm(3, 6), nn.ReLU(), nn.Conv1d(6, 2, 3)
    network = dense(nn.Sequential(*layers))
    zero(network[3], features=[0, 2, 3])
    smaller = compare(network, 3, 1, 9)
    assert (smaller[1].num_groups, smaller[1].num_channels) == (2, 4)
    assert smaller[0].out_channels == 4


def test_layer_norm_over_the_channels_keeps_them():
    layers = nn.Linear(4, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 2)
    network = dense(nn.Sequential(*layers))
    zero(network[3], features=[0, 2, 3])
    assert shapes(compare(network, 3, 4)) == [(5, 4), (5,), (2, 2)]


def test_layer_norm_over_positions_does_not():
    layers = nn.Conv1d(1, 5, 3), nn.LayerNorm(7), nn.ReLU(), nn.Conv1d(5, 2, 3)
    network = dense(nn.Sequential(*layers))
    zero(network[3], features=[0, 2, 3])
    assert shapes(compare(network, 3, 1, 9)) == [(2, 1, 3), (7,), (2, 2, 3)]


def test_depthwise_and_grouped_convolutions_lose_whole_groups():
    layers = nn.Conv1d(1, 6, 3), nn.Conv1d(6, 12, 3, groups=6), nn.Conv1d(12, 2, 1)
    network = dense(nn.Sequential(*layers))
    zero(network[2], features=[0, 1, 3, 10])
    smaller = compare(network, 3, 1, 9)
    assert (smaller[1].groups, smaller[1].out_channels) == (5, 10)
    layers = nn.Conv1d(1, 6, 3), nn.Conv1d(6, 6, 3, groups=3), nn.Conv1d(6, 2, 1)
    network = dense(nn.Sequential(*layers))
    zero(network[2], features=[0, 2, 3])
    smaller = compare(network, 3, 1, 9)
    assert (smaller[1].groups, smaller[0].out_channels) == (2, 4)


def test_of_the_last_group_that_is_left_single_channels_go():
    layers = nn.Conv1d(1, 6, 1), nn.Conv1d(6, 6, 3, groups=2), nn.Conv1d(6, 2, 1)
    network = dense(nn.Sequential(*layers))
    zero(network[2], features=[0, 1, 2, 4])
    zero(network[1], features=[1])
    smaller = compare(network, 3, 1, 9)
    assert shapes(smaller) == [(2, 1, 1), (2, 2, 3), (2, 2, 1)]


# ---- nothing left --------------------------------------------------------------


@pytest.mark.parametrize("kill", [0, 2, 4])
def test_a_layer_of_which_nothing_is_needed_keeps_a_placeholder(kill):
    layers = nn.Linear(4, 5), nn.ELU(), nn.Linear(5, 6), nn.ELU(), nn.Linear(6, 2)
    network = dense(nn.Sequential(*layers))
    with torch.no_grad():
        network[kill].weight.zero_()
    smaller = compare(network, 3, 4)
    assert shapes(smaller) == [(1, 1), (1, 1), (2, 1)]


def test_a_convolutional_net_of_zeros_is_a_constant():
    layers = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
    network = dense(nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 3)))
    with torch.no_grad():
        network[0].weight.zero_()
    smaller = compare(network, 5, 2, 4, 4)
    assert shapes(smaller) == [(1, 2, 3, 3), (1,), (3, 16)]


# ---- residual networks ---------------------------------------------------------


@pytest.mark.parametrize("ignores", [*itertools.product([False, True], repeat=3)])
def test_a_shared_channel_goes_only_when_every_reader_ignores_it(ignores):
    network = dense(ResNet((6, 6, 6), n_outputs=3))
    readers = network.blocks[0].conv1, network.blocks[1].conv1, network.head
    for reader, ignored in zip(readers, ignores, strict=True):
        zero(reader, features=[2] if ignored else [])
    smaller = compare(network, 3, 2, 8, 8)
    assert smaller.stem.out_channels == 6 - all(ignores)
    assert smaller.blocks[1].conv2.out_channels == 6 - all(ignores)
    assert smaller.head.in_features == 6 - all(ignores)
    assert smaller.blocks[0].conv1.out_channels == 6


def test_inner_channels_of_a_residual_block_go_by_themselves():
    network = dense(ResNet((6, 6, 8)))
    zero(network.blocks[0].conv2, features=[0, 5])
    zero(network.blocks[1].conv2, features=[1])
    smaller = compare(network, 3, 2, 8, 8)
    assert smaller.blocks[0].conv1.out_channels == 4
    assert smaller.blocks[0].norm1.num_features == 4
    assert smaller.blocks[1].conv1.out_channels == 7
    assert smaller.stem.out_channels == 6


def test_channels_that_only_keep_each_other_go():
    """Channel 0 of the stream feeds a block that writes to channel 0 alone."""
    network = dense(ResNet((4, 4), n_outputs=3))
    with torch.no_grad():
        network.blocks[0].conv1.weight[1:, 0] = 0.0
        network.blocks[0].conv2.weight[1:, 0] = 0.0
        network.head.weight[:, 0] = 0.0
    smaller = compare(network, 3, 2, 8, 8)
    assert smaller.stem.out_channels == 3
    assert smaller.blocks[0].conv1.out_channels == 3


class Twice(nn.Module):
    """A layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.shared = nn.Linear(5, 5)
        self.last = nn.Linear(5, 2)

    def forward(self, x):
        x = functional.relu(self.first(x))
        return self.last(functional.relu(self.shared(torch.sigmoid(self.shared(x)))))


def test_a_layer_used_twice_is_cut_for_both_uses():
    network = dense(Twice())
    zero(network.shared, features=[1])
    assert shapes(compare(network, 3, 4)) == [(5, 4), (5, 5), (2, 5)]
    zero(network.last, features=[1])
    assert shapes(compare(network, 3, 4)) == [(4, 4), (4, 4), (2, 4)]


def test_a_layer_used_twice_folds_only_what_is_the_same_in_both_uses():
    network = dense(Twice())
    zero(network.first, filters=[0])  # constant in the first use alone
    zero(network.shared, filters=[3])  # constant, but another one each time
    assert shapes(compare(network, 3, 4)) == [(5, 4), (5, 5), (2, 5)]


# ---- nothing more could go -----------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_no_further_unit_can_go(seed):
    """Brute force: no unit left is ignored by its readers, and none is constant."""
    generator = torch.Generator().manual_seed(seed)
    layers = nn.Linear(5, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.Tanh()
    network = randomize(nn.Sequential(*layers, nn.Linear(6, 3)), generator, 0.4, 0.2)
    with torch.no_grad():
        for layer in (network[0], network[2], network[4]):
            layer.weight *= torch.rand(layer.weight.shape, generator=generator) < 0.4
    smaller = compare(network, 3, 5)
    x = batch(64, 5)
    with torch.no_grad():
        outputs = smaller(x)
        for i in (1, 3):
            hidden = smaller[: i + 1](x)
            if hidden.shape[1] == 1:
                continue  # may be a placeholder
            for unit in range(hidden.shape[1]):
                mean = hidden.clone()
                mean[:, unit] = hidden[:, unit].mean()
                assert (smaller[i + 1 :](mean) - outputs).abs().max() > 1e-9
