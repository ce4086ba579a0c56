"""The compacted network is a network like any other."""

import copy
import io
import pickle

import pytest
import torch
from compaction.networks import ConvNeXtBlock, ResNet, assert_same_outputs, randomize
from torch import nn
from torch.nn import functional

from sklearn_structreg.compaction import compact
from sklearn_structreg.core import make_convnet


def networks():
    generator = torch.Generator().manual_seed(3)
    for network in (ResNet(), ConvNeXtBlock(), make_convnet((2, 8, 8), 3)):
        yield randomize(network, generator, 0.3, 0.3, torch.float32)


BATCH = torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[0, 1, 2], ids=["ResNet", "ConvNeXt", "ConvNet"])
def pair(request):
    network = list(networks())[request.param]
    return network, compact(network, BATCH)


def test_copies_and_pickles(pair):
    _, smaller = pair
    for twin in (copy.deepcopy(smaller), pickle.loads(pickle.dumps(smaller))):
        with torch.no_grad():
            assert torch.equal(twin(BATCH), smaller(BATCH))


def test_state_dict_round_trip(pair):
    _, smaller = pair
    file = io.BytesIO()
    torch.save(smaller.state_dict(), file)
    file.seek(0)
    twin = copy.deepcopy(smaller)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    twin.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(twin(BATCH), smaller(BATCH))


def test_exports(pair):
    _, smaller = pair
    program = torch.export.export(smaller.eval(), (BATCH,))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for exported in (program, torch.export.load(file)):
        with torch.no_grad():
            torch.testing.assert_close(exported.module()(BATCH), smaller(BATCH))


def test_trains(pair):
    network, smaller = pair
    smaller.train()
    optimizer = torch.optim.SGD(smaller.parameters(), lr=0.01)
    before = copy.deepcopy(smaller.state_dict())
    loss = functional.cross_entropy(smaller(BATCH), torch.tensor([0, 1, 2, 0, 1]))
    loss.backward()
    optimizer.step()
    assert all(p.grad is not None for p in smaller.parameters())
    changed = [not torch.equal(before[k], v) for k, v in smaller.state_dict().items()]
    assert any(changed)
    assert all(p.grad is None for p in network.parameters())


def test_can_be_compacted_again_without_change(pair):
    _, smaller = pair
    again = compact(smaller, BATCH)
    for a, b in zip(smaller.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_no_memory_is_shared_with_the_original(pair):
    network, smaller = pair
    expected = smaller.eval()(BATCH).detach()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        assert torch.equal(smaller(BATCH), expected)


def test_modes_and_requires_grad_are_kept():
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 2))
    network.train()
    network[2].eval()
    network[0].requires_grad_(False)
    with torch.no_grad():
        network[3].weight[:, :3] = 0.0
    network(torch.zeros(2, 4)).sum().backward()
    smaller = compact(network, torch.zeros(2, 4))
    assert smaller.training
    assert smaller[0].training
    assert not smaller[2].training
    assert network.training
    assert not smaller[0].weight.requires_grad
    assert smaller[3].weight.requires_grad
    assert network[3].weight.grad is not None
    assert smaller[3].weight.grad is None


def test_a_module_reached_by_two_names_stays_one():
    relu, layer = nn.ReLU(), nn.Linear(6, 6)
    network = nn.Sequential(nn.Linear(4, 6), relu, layer, relu, layer, nn.Linear(6, 2))
    with torch.no_grad():
        layer.weight[:, 0] = 0.0
        network[5].weight[:, 0] = 0.0
    smaller = compact(network, torch.zeros(1, 4))
    assert smaller[2] is smaller[4]
    assert smaller[2].weight.shape == (5, 5)
    assert_same_outputs(network, smaller, torch.randn(3, 4))


def test_the_sample_is_left_alone():
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2))
    sample = torch.randn(3, 4)
    before = sample.clone()
    compact(network, sample)
    assert torch.equal(sample, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    generator = torch.Generator().manual_seed(0)
    network = randomize(make_convnet((1, 8, 8), 3), generator, 0.5, 0.3, torch.float32)
    network.to(dtype)
    batch = torch.randn(3, 1, 8, 8).to(dtype)
    smaller = compact(network, batch)
    assert smaller[0].weight.dtype == dtype
    assert smaller[0].out_channels < 32
    assert_same_outputs(network, smaller, batch, 20 * torch.finfo(dtype).eps)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(pair):
    network = copy.deepcopy(pair[0]).cuda()
    smaller = compact(network, BATCH.cuda())
    assert {p.device.type for p in smaller.parameters()} == {"cuda"}
    shapes = [p.shape for p in pair[1].parameters()]
    assert [p.shape for p in smaller.parameters()] == shapes
    assert_same_outputs(network, smaller, BATCH.cuda())


def test_a_single_layer_and_a_network_without_layers():
    for network in (nn.Linear(4, 2), nn.Identity(), nn.Sequential()):
        smaller = compact(network, torch.zeros(2, 4))
        assert type(smaller) is type(network)
        assert smaller is not network


class Several(nn.Module):
    """Returns a dict and a tuple."""

    def __init__(self):
        super().__init__()
        self.trunk, self.a = nn.Linear(4, 6), nn.Linear(6, 2)
        self.b, self.unused = nn.Linear(6, 3), nn.Linear(6, 9)

    def forward(self, x, *, scale=1.0):
        x = torch.relu(self.trunk(x)) * scale
        self.unused(x)
        return {"a": self.a(x), "b": (self.b(x), x.shape[0])}


def test_several_outputs():
    network = Several()
    with torch.no_grad():
        network.a.weight[:, :4] = 0.0
        network.b.weight[:, 2:] = 0.0
    network.b.weight.data[:, 0] = 0.0
    smaller = compact(network, torch.zeros(2, 4))
    assert smaller.trunk.out_features == 3
    assert smaller.unused.weight.shape == (1, 3)
    x = torch.randn(3, 4)
    expected, got = network(x), smaller(x)
    torch.testing.assert_close(got["a"], expected["a"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got["b"][0], expected["b"][0], rtol=1e-6, atol=1e-6)
