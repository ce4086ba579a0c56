"""The outputs of layers that are feature maps."""

import copy

import pytest
import torch
from dropcluster.networks import ResNet

from sklearn_structreg.core import insert_layer, remove_layers
from sklearn_structreg.core.insertion import inserted_layers
from sklearn_structreg.dropcluster import DropCluster2d, feature_maps
from sklearn_structreg.dropcluster.update import update_clusters


@pytest.fixture
def batch():
    return torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net(batch):
    """A network with a DropCluster layer that masks channel 3."""
    torch.manual_seed(0)
    net = ResNet().eval()
    insert_layer(net, "conv1", DropCluster2d(6, drop_rate=0.3, unstructured="auto"))
    with torch.no_grad():
        net.conv1.weight[3] = 0
    update_clusters(net, batch)
    (layer,) = inserted_layers(net).values()
    assert layer.structured_channels.sum() == 7
    return net


def test_feature_maps_are_unmasked_and_in_forward_order(net, batch):
    with torch.no_grad():
        net.conv1.weight[3] = 1
    plain = copy.deepcopy(net)
    remove_layers(plain)
    found = feature_maps(net, batch)
    assert next(iter(found)) == "conv1"
    assert list(found)[-2:] == ["layer2.downsample.1", "layer2"]
    assert "fc" not in found
    assert torch.equal(found["conv1"], plain.conv1(batch))
    assert (net.conv1(batch)[:, 3] == 0).all()
    # bn1's output is overwritten by the activation that follows.
    assert (found["bn1"] < 0).any()
    assert list(feature_maps(net, batch, ["layer1"])) == ["layer1"]
    net.alias = net.bn1
    both = feature_maps(net, batch, ["alias", "bn1"])
    assert both.keys() == {"alias", "bn1"}
    assert torch.equal(both["alias"], both["bn1"])
    assert list(feature_maps(net, batch, "alias")) == ["alias"]


def test_bad_names(net, batch):
    with pytest.raises(ValueError, match="no layer named 'conv9'"):
        feature_maps(net, batch, ["conv9"])
    with pytest.raises(ValueError, match="'fc', .*has no spatial extent"):
        feature_maps(net, batch, ["fc"])


def test_copies_and_checkpoints_keep_the_clusters(net, batch):
    loaded = copy.deepcopy(net)
    for one in (net, loaded):
        torch.manual_seed(0)
        assert (one.train().conv1(batch)[:, :3] == 0).any()
        assert (one.conv1(batch)[:, 3] == 0).all()
    fresh = ResNet()
    insert_layer(fresh, "conv1", DropCluster2d(6))
    fresh.load_state_dict(net.state_dict())
    assert inserted_layers(fresh)["conv1.inserted_layer"].is_active


@pytest.mark.parametrize("strict", [False, True])
def test_torch_export_sees_the_layer(net, batch, strict):
    net.bn1.bias.data.fill_(1)
    rows = torch.export.Dim("rows", min=2)
    exported = torch.export.export(
        net, (batch,), dynamic_shapes=({0: rows},), strict=strict
    )
    torch.testing.assert_close(exported.module()(batch), net(batch))
    assert "conv1.inserted_layer.structured_channels" in exported.state_dict
