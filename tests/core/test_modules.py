"""The networks: defaults from the data's shape, and the user's own."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_structreg.core import StructuredClassifier, make_convnet, make_mlp
from sklearn_structreg.core.inspection import run_once
from sklearn_structreg.core.modules import build_module

# Fits of one or two epochs, for other purposes than to learn.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("hidden", [(), (5,), (7, 3), 5, np.int64(5)])
def test_mlp_has_the_layers_asked_for(hidden):
    net = make_mlp(4, 2, hidden)
    widths = [layer.out_features for layer in net if isinstance(layer, nn.Linear)]
    assert widths == [*np.ravel(hidden), 2]
    assert net(torch.zeros(3, 4)).shape == (3, 2)


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (3, 1, 1), (1, 3, 9), (1, 2, 5, 4)])
def test_convnet_takes_maps_of_any_size(shape):
    net = make_convnet(shape, 4, (6,))
    assert net(torch.zeros(2, *shape)).shape == (2, 4)


class Net(nn.Module):
    def __init__(self, input_shape, n_outputs, width=3):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(*input_shape, width), nn.BatchNorm1d(width), nn.ReLU()
        )
        self.head = nn.Linear(width, n_outputs)

    def forward(self, X):
        return self.head(self.body(X))


class Fixed(nn.Linear):
    def __init__(self):
        super().__init__(4, 3)


def test_class_instance_and_factory(blobs):
    X, y = blobs
    for module, params in [
        (Net, None),
        (Net, {"width": 5}),
        (Net((4,), 3), None),
        (Fixed, None),
        (lambda shape, n_outputs: nn.Linear(*shape, n_outputs), None),
        (lambda shape, n, width: make_mlp(*shape, n, (width,)), {"width": 7}),
    ]:
        model = StructuredClassifier(
            module, module_params=params, max_epochs=40, random_state=0
        )
        assert model.fit(X, y).score(X, y) > 0.9
    assert model.module_[0].out_features == 7


def test_batch_normalization_survives_a_last_batch_of_one(blobs):
    X, y = blobs
    model = StructuredClassifier(Net, batch_size=89, max_epochs=2).fit(X, y)
    assert model.n_iter_ == 2


def test_an_instance_keeps_its_weights(blobs):
    net = nn.Linear(4, 3)
    model = StructuredClassifier(net, learning_rate=1e-12, max_epochs=1).fit(*blobs)
    torch.testing.assert_close(model.module_.weight, net.weight)


def test_lazy_layers_get_their_shapes(blobs):
    net = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))
    model = StructuredClassifier(net, max_epochs=30, random_state=0).fit(*blobs)
    assert model.module_[0].in_features == 4
    assert model.score(*blobs) > 0.9


def test_frozen_parameters_stay(blobs):
    net = make_mlp(4, 3)
    net[0].weight.requires_grad_(False)
    model = StructuredClassifier(net, max_epochs=3).fit(*blobs)
    assert torch.equal(model.module_[0].weight, net[0].weight)


def test_trying_a_module_leaves_no_trace():
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    net[1].eval()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    run_once(net, torch.ones(2, 4))
    assert [part.training for part in net] == [True, False, True]
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in state.items())


def test_defaults_follow_the_shape():
    assert isinstance(build_module("auto", None, (6,), 2, ())[0], nn.Linear)
    assert isinstance(build_module("auto", None, (1, 6, 6), 2, ())[0], nn.Conv2d)
