"""Networks for deployment: masked channels gone, outputs the same."""

import numpy as np
import pytest
import torch
from dropcluster.networks import ResNet
from torch import nn

from sklearn_structreg import DropClusterClassifier
from sklearn_structreg.compaction import compact
from sklearn_structreg.core import insert_layer
from sklearn_structreg.core.insertion import inserted_layers
from sklearn_structreg.dropcluster import DropCluster2d, fold_masks
from sklearn_structreg.dropcluster.update import update_clusters

FAST = {"max_epochs": 4, "random_state": 0, "unstructured": "hopkins"}


@pytest.fixture(scope="module")
def images(digits):
    return digits[0][:300].reshape(-1, 1, 8, 8), digits[1][:300]


def logits(model, X):
    return model.decision_function(X)


def of_network(network, X):
    with torch.no_grad():
        return network(torch.tensor(X, dtype=torch.float32)).double().numpy()


@pytest.mark.parametrize("module", ["auto", ResNet])
def test_masked_channels_are_removed_and_outputs_stay(images, module):
    model = DropClusterClassifier(module, **FAST).fit(*images)
    n_structured = int(model.structured_channels_.sum())
    assert 0 < n_structured < len(model.structured_channels_)
    small = model.compact().simplified_module()
    first = next(part for part in small.modules() if isinstance(part, nn.Conv2d))
    assert not inserted_layers(small)
    assert not small.training
    if module == "auto":  # in ResNet the shortcut ties the channels of a group
        assert first.out_channels == n_structured
    np.testing.assert_allclose(
        of_network(small, images[0]), logits(model, images[0]), rtol=1e-4, atol=1e-5
    )
    sizes = [sum(p.numel() for p in m.parameters()) for m in (small, model.module_)]
    assert sizes[0] < sizes[1] or module is ResNet
    assert inserted_layers(model.module_)  # the model itself is as it was


@pytest.mark.parametrize(
    "name", ["conv1", "bn1", "relu", "layer1.0", "layer1", "layer2.conv1"]
)
def test_masks_fold_after_any_layer(images, name):
    torch.manual_seed(0)
    net = ResNet().eval()
    batch = torch.tensor(images[0][:64], dtype=torch.float32)
    insert_layer(net, name, DropCluster2d(4))
    update_clusters(net, batch)
    (layer,) = inserted_layers(net).values()
    structured = torch.arange(len(layer.structured_channels)) % 3 > 0
    layer.set_clusters(layer.cluster_labels, structured)
    folded = fold_masks(net)
    assert not inserted_layers(folded)
    with torch.no_grad():
        torch.testing.assert_close(folded(batch), net(batch))
    assert len(inserted_layers(net)) == 1
    if name in ("conv1", "bn1", "layer2.conv1"):
        assert list(folded.state_dict()) == list(ResNet().state_dict())


def test_masks_fold_before_a_layer(images):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval()
    batch = torch.randn(8, 3, 8, 8)
    batch[:, 1] = 1
    insert_layer(net, "", DropCluster2d(4, unstructured="auto"), before=True)
    update_clusters(net, batch)
    folded = fold_masks(net)
    with torch.no_grad():
        torch.testing.assert_close(folded(batch), net(batch))
        changed = batch.clone()
        changed[:, 1] = 5
        torch.testing.assert_close(folded(changed), net(batch))


def test_weights_that_others_share_are_left_alone():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(self.one(x))

    torch.manual_seed(0)
    net, batch = Twice().eval(), torch.randn(4, 3, 4, 4)
    layer = DropCluster2d()
    labels = torch.zeros(3, 4, 4, dtype=torch.int64)
    layer.set_clusters(labels, torch.tensor([True, False, True]))
    insert_layer(net, "one", layer)
    with torch.no_grad():
        torch.testing.assert_close(fold_masks(net)(batch), net(batch))


def test_masks_have_the_networks_precision(images):
    model = DropClusterClassifier(
        dtype="float64", layer="1", hopkins_threshold=0.55, **FAST
    ).fit(*images)
    assert not model.structured_channels_.all()
    with torch.no_grad():
        found = model.compact().simplified_module()(torch.tensor(images[0]))
    np.testing.assert_allclose(found, logits(model, images[0]), atol=1e-10)


def test_layers_of_the_networks_own_go_too(images):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.Sequential(DropCluster2d(4), nn.ReLU()),
        DropCluster2d(4),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    batch = torch.tensor(images[0][:64], dtype=torch.float32)
    net[1][0].update_clusters(net[0](batch))
    net[1][0].set_clusters(net[1][0].cluster_labels, torch.arange(8) % 4 > 0)
    folded = fold_masks(net.eval())
    kinds = [type(part).__name__ for part in folded.modules()]
    assert "DropCluster2d" not in kinds
    small = compact(folded, batch[:4])
    assert small[0].out_channels == 6
    for network in (folded, small, compact(net, batch[:4])):
        with torch.no_grad():
            torch.testing.assert_close(network(batch), net(batch))
    assert isinstance(net[1][0], DropCluster2d)
    assert isinstance(fold_masks(net[1][0]), nn.Conv2d)  # a network of one layer


@pytest.mark.parametrize("first", [nn.Tanh(), nn.Dropout(0.5)])
def test_masks_behind_another_inserted_layer(images, first):
    torch.manual_seed(0)
    net = ResNet().eval()
    batch = torch.tensor(images[0][:64], dtype=torch.float32)
    layer = DropCluster2d(4)
    for each in (first, layer, nn.ELU()):
        insert_layer(net, "bn1", each)
    update_clusters(net, batch)
    layer.set_clusters(layer.cluster_labels, torch.arange(8) % 3 > 0)
    folded = fold_masks(net)
    assert not inserted_layers(folded)
    with torch.no_grad():
        torch.testing.assert_close(folded(batch), net(batch))


def test_flat_features(digits):
    X, y = digits[0][:100], digits[1][:100]
    model = DropClusterClassifier(max_epochs=2, random_state=0).fit(X, y)
    small = model.compact().simplified_module()
    np.testing.assert_allclose(of_network(small, X), logits(model, X), atol=1e-5)
