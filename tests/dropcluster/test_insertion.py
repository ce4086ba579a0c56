"""Layers put into other people's networks, and taken out again."""

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dropcluster.networks import ResNet
from torch import nn

from sklearn_structreg.dropcluster import (
    DropCluster2d,
    feature_maps,
    insert_layer,
    inserted_layers,
    remove_layers,
    update_clusters,
)

NAMES = ["conv1", "layer1.0.bn2", "layer1.1", "layer2.conv1", "layer1", ""]


class Double(nn.Module):
    """Multiply by two, and count how often."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return 2 * x


@pytest.fixture
def batch():
    return torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return ResNet().eval()


@pytest.mark.parametrize("name", NAMES)
def test_the_layer_acts_once_on_the_named_output_and_names_stay(net, batch, name):
    names, before, outputs = list(net.state_dict()), net(batch), {}
    part = net.get_submodule(name)
    part.register_forward_hook(
        lambda _, args, output: outputs.update(raw=output.clone())
    )
    layer = Double()
    insert_layer(net, name, layer)
    part.register_forward_hook(
        lambda _, args, output: outputs.update(new=output.clone())
    )
    changed = net(batch)
    assert layer.calls == 1
    if name != "layer1":  # the layer follows its last block, within it
        assert torch.equal(outputs["new"], 2 * outputs["raw"])
    assert not torch.equal(changed, before)
    assert list(net.state_dict()) == names
    assert list(inserted_layers(net).values()) == [layer]
    assert list(remove_layers(net).values()) == [layer]
    assert torch.equal(net(batch), before)
    assert list(net.state_dict()) == names
    assert not inserted_layers(net)


def test_before_a_layer_is_its_input(net, batch):
    expected = net(2 * batch)
    insert_layer(net, "", Double(), before=True)
    assert torch.equal(net(batch), expected)
    remove_layers(net)
    insert_layer(net, "conv1", Double(), before=True)
    assert torch.equal(net(batch), expected)


def test_a_sequential_keeps_its_length_and_its_layers():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x, layers = torch.randn(5, 3), list(net)
    expected = net(x)
    insert_layer(net, "", Double())
    insert_layer(net, "", Double(), before=True)
    assert list(net) == layers
    assert torch.equal(net(x / 2) / 2, expected)
    assert set(remove_layers(net)) == {"0", "2"}


def dropping(net, batch):
    batch = batch.clone()
    insert_layer(net, "conv1", DropCluster2d(6, drop_rate=0.3))
    with torch.no_grad():
        net.conv1.weight[3] = 0
    update_clusters(net, batch)
    assert inserted_layers(net)["conv1"].structured_channels.sum() == 7
    return net


def torch_save_trip(net):
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize(
    "trip",
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), torch_save_trip],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_copies_have_a_layer_of_their_own(net, batch, trip):
    dropping(net, batch)
    loaded = trip(net)
    assert torch.equal(loaded(batch), net(batch))
    for one in (net, loaded):
        one.train()
        torch.manual_seed(0)
        maps = one.conv1(batch)
        assert (maps[:, 3] == 0).all()
        assert (maps[:, :3] == 0).any()
    remove_layers(loaded)
    assert not (loaded.conv1(batch)[:, :3] == 0).any()
    assert (net.conv1(batch)[:, :3] == 0).any()


def test_a_loaded_hook_is_not_replaced_by_one_of_the_same_number(net, batch, tmp_path):
    # Hooks are numbered by process: without care the loaded one's number is free.
    dropping(net, batch)
    torch.save((net, batch, net(batch)), tmp_path / "net.pt")
    code = """
import sys, torch
net, batch, expected = torch.load(sys.argv[1], weights_only=False)
for _ in range(1000):
    net.conv1.register_forward_hook(lambda *_: None)
assert torch.equal(net(batch), expected)
torch.manual_seed(0)
assert (net.train().conv1(batch)[:, :3] == 0).any()
"""
    root = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {root!r})\n{code}"
    subprocess.run([sys.executable, "-c", code, tmp_path / "net.pt"], check=True)


def test_a_checkpoint_of_the_plain_network_loads(net, batch):
    plain = copy.deepcopy(net)
    dropping(net, batch)
    missing, unexpected = net.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {name.rsplit(".", 2)[1] for name in missing} == {"structured_dropout"}
    fresh = ResNet()
    insert_layer(fresh, "conv1", DropCluster2d(6))
    fresh.load_state_dict(net.state_dict())
    assert inserted_layers(fresh)["conv1"].is_active


@pytest.mark.parametrize("strict", [False, True])
def test_torch_export_sees_the_layer(net, batch, strict):
    dropping(net, batch)
    net.bn1.bias.data.fill_(1)
    rows = torch.export.Dim("rows", min=2)
    exported = torch.export.export(
        net, (batch,), dynamic_shapes=({0: rows},), strict=strict
    )
    torch.testing.assert_close(exported.module()(batch), net(batch))
    assert "conv1.structured_dropout.structured_channels" in exported.state_dict


def test_feature_maps_are_unmasked_and_in_forward_order(net, batch):
    dropping(net, batch)
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
    with pytest.raises(ValueError, match="no layer named 'conv9'; its layers are conv"):
        insert_layer(net, "conv9", Double())
    with pytest.raises(ValueError, match="no layer named 'conv9'"):
        feature_maps(net, batch, ["conv9"])
    with pytest.raises(ValueError, match="'fc', .*has no spatial extent"):
        feature_maps(net, batch, ["fc"])
    insert_layer(net, "conv1", Double())
    with pytest.raises(ValueError, match="has an inserted layer already"):
        insert_layer(net, "conv1", Double())
    insert_layer(net, "bn1", Double())
    with pytest.raises(ValueError, match="no inserted layer at 'relu'; those there"):
        remove_layers(net, ["conv1", "relu"])
    assert list(remove_layers(net, "conv1")) == ["conv1"]
    assert list(inserted_layers(net)) == ["bn1"]


def test_a_container_that_would_run_the_layer_as_its_own():
    class Dense(nn.ModuleDict):
        def forward(self, x):
            for layer in self.values():
                x = layer(x)
            return x

    net = nn.Sequential(nn.Linear(2, 2), Dense({"a": nn.Linear(2, 2)}))
    with pytest.raises(ValueError, match="'1' is a Dense that would take an inserted"):
        insert_layer(net, "1", Double())
