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

from sklearn_structreg.core.insertion import (
    InsertionPoint,
    as_maps,
    find_insertion_point,
    insert_layer,
    inserted_layers,
    remove_layers,
    simplify_inserted,
    transfer_layers,
)

NAMES = ["conv1", "layer1.0.bn2", "layer1.1", "layer2.conv1", "layer1", ""]


class Affine(nn.Module):
    """Multiply and add, and count how often."""

    def __init__(self, factor=2.0, term=0.0):
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor))
        self.term = term
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.factor * x + self.term


class Half(nn.Module):
    """Zero the first half of the channels in training."""

    def forward(self, x):
        return torch.cat([0 * x[:, :4], x[:, 4:]], 1) if self.training else x


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
    layer = Affine()
    insert_layer(net, name, layer)
    part.register_forward_hook(
        lambda _, args, output: outputs.update(new=output.clone())
    )
    changed = net(batch)
    assert layer.calls == 1
    if name != "layer1":  # the layer follows its last block, within it
        assert torch.equal(outputs["new"], 2 * outputs["raw"])
    assert not torch.equal(changed, before)
    assert [n for n in net.state_dict() if "factor" not in n] == names
    assert list(inserted_layers(net).values()) == [layer]
    assert list(remove_layers(net).values()) == [layer]
    assert torch.equal(net(batch), before)
    assert list(net.state_dict()) == names
    assert not inserted_layers(net)
    assert "forward" not in vars(net.get_submodule(name))


def test_before_a_layer_is_its_input(net, batch):
    expected = net(2 * batch)
    insert_layer(net, "", Affine(), before=True)
    assert torch.equal(net(batch), expected)
    remove_layers(net)
    insert_layer(net, "conv1", Affine(), before=True)
    assert torch.equal(net(batch), expected)


def test_before_a_layer_that_is_called_by_keyword():
    class Scaled(nn.Module):
        def forward(self, x, scale=1.0):
            return x * scale

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.scaled = nn.Linear(3, 2), Scaled()

        def forward(self, x):
            return self.scaled(scale=3.0, x=self.fc(input=x))

    net, x = Net(), torch.randn(5, 3)
    expected = 3 * net.fc(2 * x)
    insert_layer(net, "fc", Affine(), before=True)
    torch.testing.assert_close(net(x), expected)
    insert_layer(net, "scaled", Affine(10.0), before=True)
    torch.testing.assert_close(net(x), 10 * expected)


def test_several_layers_at_one_place_act_in_order(net, batch):
    expected = net.conv1(batch)
    layers = [Affine(3.0), Affine(1.0, 5.0), Affine(2.0)]
    for layer in layers:
        insert_layer(net, "conv1", layer)
    insert_layer(net, "conv1", Affine(), before=True)
    torch.testing.assert_close(net.conv1(batch), 2 * (3 * 2 * expected + 5))
    names = [f"conv1.inserted_layer{end}" for end in ("", "_2", "_3", "_4")]
    assert list(inserted_layers(net)) == names
    assert remove_layers(net, [layers[1]]) == {names[1]: layers[1]}
    torch.testing.assert_close(net.conv1(batch), 12 * expected)
    assert insert_layer(net, "conv1", layers[1]) == names[1]  # comes last now
    torch.testing.assert_close(net.conv1(batch), 12 * expected + 5)
    remove_layers(net)
    torch.testing.assert_close(net.conv1(batch), expected)


def test_layers_move_to_a_replacement(net, batch):
    insert_layer(net, "fc", Affine(term=1.0))
    insert_layer(net, "fc", Affine(3.0), before=True)
    insert_layer(net, "fc", Affine(5.0))
    expected, old = net(batch), net.fc
    net.fc = copy.deepcopy(remove_all(old))
    transfer_layers(old, net.fc)
    assert not list(old.children())
    assert torch.equal(net(batch), expected)


def remove_all(layer):
    """Return a copy of a layer without what is inserted there."""
    plain = copy.deepcopy(layer)
    remove_layers(plain)
    return plain


def test_a_sequential_keeps_its_length_and_its_layers():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x, layers = torch.randn(5, 3), list(net)
    expected = net(x)
    insert_layer(net, "", Affine())
    insert_layer(net, "", Affine(), before=True)
    assert list(net) == layers
    assert torch.equal(net(x / 2) / 2, expected)
    assert set(remove_layers(net)) == {"0.inserted_layer", "2.inserted_layer"}


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
    insert_layer(net, "conv1", Half())
    insert_layer(net, "bn1", Affine())
    loaded = trip(net)
    assert torch.equal(loaded(batch), net(batch))
    for one in (net, loaded):
        assert (one.train().conv1(batch)[:, :4] == 0).all()
        assert (one.eval().conv1(batch)[:, :4] != 0).any()
    with torch.no_grad():
        loaded.conv1.weight *= 2  # of the copy, which calls its own weights
        torch.testing.assert_close(loaded.conv1(batch), 2 * net.conv1(batch))
    loaded.train()
    remove_layers(loaded)
    assert (loaded.conv1(batch)[:, :4] != 0).any()
    assert (net.train().conv1(batch)[:, :4] == 0).all()
    names = ["conv1.inserted_layer", "bn1.inserted_layer"]
    assert list(inserted_layers(net)) == names


def test_a_loaded_hook_is_not_replaced_by_one_of_the_same_number(net, batch, tmp_path):
    # Hooks are numbered by process: without care the loaded one's number is free.
    insert_layer(net, "conv1", nn.Dropout2d(0.5))
    torch.save((net, batch, net(batch)), tmp_path / "net.pt")
    code = """
import sys, torch
net, batch, expected = torch.load(sys.argv[1], weights_only=False)
for _ in range(1000):
    net.conv1.register_forward_hook(lambda *_: None)
    net.conv1.register_forward_pre_hook(lambda *_: None)
assert torch.equal(net(batch), expected)
torch.manual_seed(0)
assert (net.train().conv1(batch) == 0).any()
"""
    root = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {root!r})\n{code}"
    subprocess.run([sys.executable, "-c", code, tmp_path / "net.pt"], check=True)


def test_a_checkpoint_of_the_plain_network_loads(net):
    plain = copy.deepcopy(net)
    insert_layer(net, "conv1", Affine())
    missing, unexpected = net.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert missing == ["conv1.inserted_layer.factor"]


@pytest.mark.parametrize("strict", [False, True])
def test_torch_export_sees_the_layer(net, batch, strict):
    insert_layer(net, "conv1", nn.BatchNorm2d(8))
    insert_layer(net, "bn1", nn.Tanh(), before=True)
    net(batch)
    rows = torch.export.Dim("rows", min=2)
    exported = torch.export.export(
        net, (batch,), dynamic_shapes=({0: rows},), strict=strict
    )
    torch.testing.assert_close(exported.module()(batch), net(batch))
    assert "conv1.inserted_layer.running_mean" in exported.state_dict


@pytest.mark.parametrize("when", ["before", "compiled", "run"])
def test_torch_compile_takes_notice(when):
    torch._dynamo.reset()
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    net, x = copy.deepcopy(plain), torch.randn(5, 3)
    expected = plain(x).detach()
    # Another network of the same classes, compiled without the layer.
    other = torch.compile(plain, backend="eager")
    torch.testing.assert_close(other(x), expected)
    if when == "before":
        insert_layer(net, "2", Affine())
    compiled = torch.compile(net, backend="eager")
    if when == "run":
        torch.testing.assert_close(compiled(x), expected)
    if when != "before":
        insert_layer(net, "2", Affine())
    torch.testing.assert_close(compiled(x), 2 * expected)
    insert_layer(net, "2", Affine(3.0))
    torch.testing.assert_close(compiled(x), 6 * expected)
    remove_layers(compiled)
    torch.testing.assert_close(compiled(x), expected)
    insert_layer(compiled, "", Affine())
    insert_layer(compiled, "_orig_mod.0", Affine(0.0), before=True)
    torch.testing.assert_close(compiled(x), net(x))
    torch.testing.assert_close(net(x), 2 * plain(0 * x))
    torch.testing.assert_close(other(x), expected)


def test_inserted_layers_become_plain_ones(net, batch):
    class Shift(nn.Module):
        def forward(self, x):
            return x + 1

        def simplified(self):
            return nn.Threshold(-1e9, 0)  # the identity, but not by its class

    class Drop(nn.Module):
        def forward(self, x):
            return 0 * x if self.training else x

        def simplified(self):
            return nn.Identity()

    insert_layer(net, "conv1", Drop())
    insert_layer(net, "bn1", nn.Dropout2d(0.5))
    insert_layer(net, "fc", Shift(), before=True)
    insert_layer(net, "fc", Affine())
    insert_layer(net, "", Drop())
    simple = simplify_inserted(copy.deepcopy(net))
    assert not inserted_layers(simple)
    assert [type(part) for part in simple.fc] == [nn.Threshold, nn.Linear, Affine]
    assert type(simple.conv1) is nn.Conv2d
    remove_layers(net)
    torch.testing.assert_close(simple(batch), 2 * net(batch))


def test_nested_places_become_plain(net, batch):
    for name in ("", "layer1.1", "layer1.1.bn2"):
        insert_layer(net, name, Affine(term=0.1))
    insert_layer(net, "", Affine(0.5), before=True)
    expected = net(batch)
    simple = simplify_inserted(net)
    assert type(simple) is nn.Sequential
    torch.testing.assert_close(simple(batch), expected)


def test_insertion_points(net, batch):
    point = find_insertion_point(net, "auto", batch)
    assert point == InsertionPoint("conv1", False, (8, 8, 8))
    assert point.n_dims == 2
    flat = find_insertion_point(nn.Linear(3, 2), "auto", batch[:, 0, 0, :3])
    assert flat == InsertionPoint("", True, (1, 3))
    assert flat.n_dims == 1
    assert find_insertion_point(net, "input", {"x": batch}).shape == (1, 8, 8)
    assert find_insertion_point(net, "fc", batch, min_pixels=0).shape == (10,)
    with pytest.raises(ValueError, match=r"'fc', \(4, 10\), has no spatial extent"):
        find_insertion_point(net, "fc", batch)
    with pytest.raises(ValueError, match="'layer2.relu' runs 2 times"):
        find_insertion_point(net, "layer2.relu", batch)
    with pytest.raises(ValueError, match="no layer named 'conv9'"):
        find_insertion_point(net, "conv9", batch)
    with pytest.raises(ValueError, match="'0' is not a tensor but a tuple"):
        find_insertion_point(nn.Sequential(nn.LSTM(8, 2)), "0", batch[:, 0])


def test_maps_of_another_kind():
    assert as_maps(torch.zeros(2, 5), 1).shape == (2, 1, 5)
    with pytest.raises(ValueError, match=r"\(2, 5\) came to a layer for .*height"):
        as_maps(torch.zeros(2, 5), 2)


def test_a_container_that_would_run_the_layer_as_its_own():
    class Dense(nn.ModuleDict):
        def forward(self, x):
            for layer in self.values():
                x = layer(x)
            return x

    net = nn.Sequential(nn.Linear(2, 2), Dense({"a": nn.Linear(2, 2)}))
    with pytest.raises(ValueError, match="'1' is a Dense that would take an inserted"):
        insert_layer(net, "1", Affine())
