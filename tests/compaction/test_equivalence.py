"""Whatever the architecture and the zeros, the smaller network computes the same."""

import copy

import hypothesis.strategies as st
import pytest
import torch
from compaction.networks import (
    BATCH_NORMS,
    CONVOLUTIONS,
    ConvNeXtBlock,
    DenseNet,
    Gated,
    Recurrent,
    ResNet,
    ShuffleNet,
    Transformer,
    assert_same_outputs,
    count,
    randomize,
)
from hypothesis import given, settings
from torch import nn

from sklearn_structreg.compaction import compact
from sklearn_structreg.core import make_convnet

ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.GELU, nn.Softplus, nn.PReLU]
DTYPES = st.sampled_from([torch.float64, torch.float32])
SIZES = {1: 12, 2: 7, 3: 6}
PROBABILITIES = st.sampled_from([0.0, 0.3, 0.7, 0.95, 1.0])
common = settings(max_examples=60, deadline=None)


@st.composite
def activations(draw, width):
    kind = draw(st.sampled_from(ACTIVATIONS))
    if kind is nn.PReLU:
        return kind(draw(st.sampled_from([1, width])))
    return kind()


@st.composite
def perceptrons(draw, n_inputs, n_outputs=3):
    layers = []
    for width in draw(st.lists(st.integers(1, 8), max_size=4)):
        layers.append(nn.Linear(n_inputs, width, bias=draw(st.booleans())))
        if draw(st.booleans()):
            layers.append(nn.BatchNorm1d(width, affine=draw(st.booleans())))
        layers.append(draw(activations(width)))
        if draw(st.booleans()):
            layers.append(nn.Dropout(0.5))
        if draw(st.integers(0, 5)) == 0:
            layers.append(nn.LayerNorm(width))
        n_inputs = width
    return [*layers, nn.Linear(n_inputs, n_outputs, bias=draw(st.booleans()))]


def width_of_maps(layers, dims):
    network = nn.Sequential(*layers).eval()
    return network(torch.zeros(2, 2, *[SIZES[dims]] * dims)).shape[-1]


@st.composite
def convolutional_nets(draw, dims):
    channels, size, layers = 2, SIZES[dims], []
    for width in draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)):
        kernel = draw(st.integers(1, min(3, size)))
        groups = draw(st.sampled_from([1, 1, channels]))
        layers.append(
            CONVOLUTIONS[dims](
                channels,
                width * groups,
                kernel,
                stride=draw(st.integers(1, 2)),
                padding=draw(st.sampled_from([0, 1])),
                padding_mode=draw(st.sampled_from(["zeros", "zeros", "replicate"])),
                bias=draw(st.booleans()),
                groups=groups,
            )
        )
        channels = width * groups
        if draw(st.booleans()):
            layers.append(BATCH_NORMS[dims](channels))
        elif draw(st.integers(0, 3)) == 0:
            norms = [nn.GroupNorm(draw(st.sampled_from([1, channels])), channels)]
            layers.append(nn.Sequential(*norms))
        layers.append(draw(activations(channels)))
        size = width_of_maps(layers, dims)
        if size >= 2 and draw(st.booleans()):
            average = draw(st.booleans())
            pool = getattr(nn, f"{'Avg' if average else 'Max'}Pool{dims}d")
            layers.append(pool(2, padding=draw(st.integers(0, 1))))
            size = width_of_maps(layers, dims)
        if draw(st.booleans()):
            layers.append(getattr(nn, f"Dropout{dims}d")())
    if draw(st.booleans()):
        layers.append(getattr(nn, f"AdaptiveAvgPool{dims}d")(1))
        size = 1
    body = nn.Sequential(*layers, nn.Flatten())
    head = draw(perceptrons(channels * size**dims))
    return nn.Sequential(body, *head)


def check(network, shape, seed, p_feature, p_filter, dtype):
    generator = torch.Generator().manual_seed(seed)
    randomize(network, generator, p_feature, p_filter, dtype)
    before = copy.deepcopy(network.state_dict())
    batch = torch.randn(6, *shape, generator=generator, dtype=dtype)
    smaller = compact(network, batch)
    assert type(smaller).__name__ == type(network).__name__
    assert (
        count(smaller)
        <= count(network)
        + sum(
            layer.bias is not None
            for layer in smaller.modules()
            if hasattr(layer, "bias")
        )
        * 64
    )  # layers without a bias may gain one
    assert_same_outputs(network, smaller, batch)
    assert before.keys() <= smaller.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


@common
@given(st.data(), st.integers(0, 2**32), PROBABILITIES, PROBABILITIES, DTYPES)
def test_perceptrons(data, seed, p_feature, p_filter, dtype):
    network = nn.Sequential(*data.draw(perceptrons(5)))
    check(network, (5,), seed, p_feature, p_filter, dtype)


@pytest.mark.parametrize("dims", [1, 2, 3])
@common
@given(st.data(), st.integers(0, 2**32), PROBABILITIES, PROBABILITIES, DTYPES)
def test_convolutional_nets(dims, data, seed, p_feature, p_filter, dtype):
    network = data.draw(convolutional_nets(dims))
    shape = (2, *[SIZES[dims]] * dims)
    check(network, shape, seed, p_feature, p_filter, dtype)


@pytest.mark.parametrize("make", [ResNet, DenseNet, Gated, ConvNeXtBlock])
@common
@given(st.integers(0, 2**32), PROBABILITIES, PROBABILITIES, DTYPES)
def test_graphs(make, seed, p_feature, p_filter, dtype):
    check(make(), (2, 8, 8), seed, p_feature, p_filter, dtype)


few = settings(max_examples=20, deadline=None)


@pytest.mark.parametrize("make", [ShuffleNet, Transformer])
@few
@given(st.integers(0, 2**32), PROBABILITIES, PROBABILITIES, DTYPES)
def test_families(make, seed, p_feature, p_filter, dtype):
    check(make(), (2, 8, 8), seed, p_feature, p_filter, dtype)


@few
@given(
    st.integers(0, 2**32),
    PROBABILITIES,
    st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]),
    st.fixed_dictionaries(
        {"num_layers": st.integers(1, 3), "bidirectional": st.booleans()}
    ),
    st.booleans(),
)
def test_recurrent_layers(seed, p, kind, params, last):
    check(Recurrent(kind, last=last, **params), (2, 8, 8), seed, p, p, torch.float64)


def test_outputs_that_nearly_cancel():
    """The error of the sums is then that of the network itself, and no larger."""
    check(DenseNet(), (2, 8, 8), 2029, 0.3, 0.6, torch.float32)
    other = randomize(DenseNet(), torch.Generator(), 0.3, 0.6, torch.float32)
    wrong, batch = copy.deepcopy(other), torch.randn(6, 2, 8, 8)
    with torch.no_grad():
        for parameter in wrong.parameters():
            parameter *= 1 + 1e-4
    with pytest.raises(AssertionError):
        assert_same_outputs(other, wrong, batch)


@pytest.mark.parametrize("shape", [(3, 16), (1, 8, 8), (2, 4, 6, 5)])
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), PROBABILITIES, PROBABILITIES, DTYPES)
def test_the_package_s_own_convnet(shape, seed, p_feature, p_filter, dtype):
    network = make_convnet(shape, 4, (10,), n_channels=(5, 6))
    check(network, shape, seed, p_feature, p_filter, dtype)


def test_other_image_sizes_give_the_same_outputs_too():
    """Nothing that is folded may depend on the size of the sample's images."""
    generator = torch.Generator().manual_seed(0)
    for seed in range(20):
        network = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.Sigmoid(),
            nn.AvgPool2d(2, padding=1, ceil_mode=True),
            nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular"),
            nn.Softplus(),
            nn.Conv2d(6, 6, 3),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 3),
        )
        randomize(network, generator.manual_seed(seed), 0.7, 0.6)
        smaller = compact(network, torch.randn(2, 2, 8, 8, dtype=torch.float64))
        for size in [(8, 8), (7, 12), (15, 15)]:
            batch = torch.randn(3, 2, *size, generator=generator, dtype=torch.float64)
            assert_same_outputs(network, smaller, batch)
