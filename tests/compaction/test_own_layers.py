"""Compaction understands every layer of the package, alone and inserted."""

import pytest
import torch
from compaction.networks import assert_same_outputs
from torch import nn

from sklearn_structreg import CGESClassifier, SelfInformedClassifier
from sklearn_structreg.baselines import (
    DropBlock,
    DropBlock1d,
    DropBlock2d,
    DropBlock3d,
    Dropout,
    SpatialDropout,
)
from sklearn_structreg.baselines.stochastic_depth import BranchDropout
from sklearn_structreg.blockout import Blockout, convert
from sklearn_structreg.compaction import compact
from sklearn_structreg.core import insert_layer, make_mlp
from sklearn_structreg.dropcluster import (
    DropCluster,
    DropCluster1d,
    DropCluster2d,
    DropCluster3d,
)

generator = torch.Generator().manual_seed(0)
IMAGES = torch.rand(6, 1, 8, 8, generator=generator, dtype=torch.float64)


def convnet(*layers):
    torch.manual_seed(0)
    head = nn.Flatten(), nn.Linear(6 * 64, 3)
    net = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), *layers, nn.ReLU(), *head)
    with torch.no_grad():
        net[-1].weight[:, 64:128] = 0.0
    return net.double()


def with_mask():
    """A layer that masks some channels in prediction, too."""
    layer = DropCluster2d(4, 0.2, unstructured="auto")
    maps = torch.rand(20, 6, 8, 8, generator=generator)
    maps[:, 4] = 0.5
    layer.update_clusters(maps)
    return layer


@pytest.mark.parametrize("make", [with_mask, lambda: DropBlock2d(2, 0.2)])
@pytest.mark.parametrize("inserted", [False, True])
def test_layers_of_feature_maps(make, inserted):
    net = convnet() if inserted else convnet(make().double())
    if inserted:
        insert_layer(net, "0", make().double())
    smaller = compact(net, IMAGES)
    assert_same_outputs(net, smaller, IMAGES)
    masked = make is with_mask
    convolution = next(x for x in smaller.modules() if isinstance(x, nn.Conv2d))
    assert convolution.out_channels == 5 - masked
    ours = [x for x in smaller.modules() if hasattr(x, "simplified")]
    assert ours == []


def test_blockout_s_layers():
    torch.manual_seed(0)
    X = torch.randn(6, 4, dtype=torch.float64)
    net = convert(make_mlp(4, 3, (8, 8)), X.float(), n_clusters=3).double()
    with torch.no_grad():
        net[4].weight[:, :5] = 0.0
    smaller = compact(net, X)
    assert_same_outputs(net, smaller, X)
    assert [type(x) for x in smaller[::2]] == [nn.Linear] * 3
    assert smaller[2].out_features == 3


REGULARIZERS = [
    *(Blockout(3), DropCluster(0.2, start_epoch=0), Dropout(0.2)),
    *(SpatialDropout(0.2), DropBlock(0.2)),
]


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=lambda r: type(r).__name__)
def test_a_sparse_network_with_another_regularizer(digits, regularizer):
    X, y = digits[0][:300], digits[1][:300]
    model = CGESClassifier(
        alpha=0.02,
        image_shape=(1, 8, 8),
        regularizers=[regularizer],
        max_epochs=3,
        random_state=0,
    ).fit(X, y)
    images = torch.tensor(X.reshape(-1, 1, 8, 8), dtype=torch.float32)
    for smaller in (
        model.compact().simplified_module(),
        compact(model.module_, images),
    ):
        assert_same_outputs(model.module_, smaller, images)
        assert not any(part._forward_hooks for part in smaller.modules())
    assert model.size_report(X, n_repeats=0).n_compact > 0


def test_cges_on_a_network_that_holds_our_layers(digits):
    X, y = digits[0][:300], digits[1][:300]

    def network(input_shape, n_outputs):
        ours = DropCluster2d(4, 0.2), DropBlock2d(2, 0.2)
        net = convnet(*ours).float()
        net[-1] = nn.Linear(6 * 64, n_outputs)
        return net

    model = CGESClassifier(
        network, penalty="group", image_shape=(1, 8, 8), max_epochs=2, random_state=0
    ).fit(X, y)
    assert sum(hasattr(x, "simplified") for x in model.module_.modules()) >= 2
    with torch.no_grad():
        model.module_[-1].weight[:, :64] = 0.0
    images = torch.tensor(X.reshape(-1, 1, 8, 8), dtype=torch.float32)
    for smaller in (
        model.compact().simplified_module(),
        compact(model.module_, images),
    ):
        assert_same_outputs(model.module_, smaller, images)
        assert not any(hasattr(x, "simplified") for x in smaller.modules())
        convolutions = [x for x in smaller.modules() if isinstance(x, nn.Conv2d)]
        assert convolutions[0].out_channels <= 5


def test_every_training_layer_of_the_package_can_be_simplified():
    """Layers that act in training only, or otherwise than a plain one in prediction."""
    layers = [
        *(kind(2, 0.2) for kind in (DropBlock1d, DropBlock2d, DropBlock3d)),
        *(kind(2, 0.2) for kind in (DropCluster1d, DropCluster2d, DropCluster3d)),
        BranchDropout(0.2),
    ]
    for layer in layers:
        n_dims = int(type(layer).__name__[-2]) if hasattr(layer, "n_dims") else 2
        net = nn.Sequential(getattr(nn, f"Conv{n_dims}d")(1, 3, 3), layer)
        batch = torch.randn(2, 1, *[5] * n_dims)
        assert_same_outputs(net, compact(net, batch), batch)


def test_specialist_heads(digits):
    X, y = digits
    model = SelfInformedClassifier(
        n_clusters=3, head_layer_sizes=(8,), max_epochs=2, random_state=0
    ).fit(X, y)
    batch = torch.tensor(X[:50], dtype=torch.float32)
    assert_same_outputs(model.module_, compact(model.module_, batch), batch)
