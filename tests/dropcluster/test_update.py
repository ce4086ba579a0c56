"""Clusters on schedule, in a skorch net of the user's own."""

import pickle

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from sklearn_structreg.core import RegularizerCallback, insert_layer
from sklearn_structreg.dropcluster import DropCluster, DropCluster2d, rena
from sklearn_structreg.dropcluster.update import update_clusters


class Spy(Callback):
    """Note in which epochs the clusters changed."""

    def on_epoch_end(self, net, **kwargs):
        labels = net.module_[1].cluster_labels
        self.seen = [*getattr(self, "seen", []), labels]


def make_module(**params):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        DropCluster2d(5, drop_rate=0.2, **params),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(216, 10),
    )


def make_net(module, *callbacks, **params):
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        lr=0.1,
        train_split=None,
        verbose=0,
        iterator_train__shuffle=True,
        callbacks=list(callbacks),
        **params,
    )


def update(start_epoch, update_every):
    """Update the layers of the module itself."""
    return RegularizerCallback(
        DropCluster(layer=None, start_epoch=start_epoch, update_every=update_every)
    )


@pytest.fixture(scope="module")
def images(digits):
    X, y = digits
    return X[:300].reshape(-1, 1, 8, 8).astype("float32"), y[:300]


def test_clusters_come_on_schedule(images):
    spy = Spy()
    net = make_net(make_module(), update(2, 3), spy, max_epochs=9)
    torch.manual_seed(0)
    net.fit(*images)
    active = [labels.numel() > 0 for labels in spy.seen]
    assert active == [False] * 2 + [True] * 7
    new = [not torch.equal(a, b) for a, b in zip(spy.seen, spy.seen[1:], strict=False)]
    assert new == [False, True, False, False, True, False, False, True]


def test_until_there_are_clusters_the_callback_changes_nothing(images):
    weights = []
    for callbacks in ([], [update(3, 1)]):
        net = make_net(make_module(), *callbacks, max_epochs=3)
        torch.manual_seed(0)
        weights.append(net.fit(*images).module_[5].weight)
    assert torch.equal(*weights)


def test_clustering_leaves_everything_but_the_clusters_alone(images):
    module = make_module().train()
    X = torch.from_numpy(images[0])
    state, rng = pickle.dumps(module.state_dict()), torch.get_rng_state()
    update_clusters(module, X)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(part.training for part in module.modules())
    after = module.state_dict()
    for name, value in pickle.loads(state).items():
        assert name.startswith("1.") or torch.equal(value, after[name])


def test_clusters_are_those_of_the_unmasked_activations(images):
    X = torch.from_numpy(images[0])
    module = make_module(unstructured="auto")
    with torch.no_grad():
        module[0].weight[1], module[0].bias[1] = 0, 1
        maps = module[0](X)
    update_clusters(module, X)
    assert torch.equal(module[1].cluster_labels, rena(maps, 5).labels)
    assert module[1].structured_channels.tolist() == [True, False] + [True] * 4
    # Again, with a mask in place: channel 1 comes alive, and is found to be.
    nn.init.normal_(module[0].weight)
    update_clusters(module, X)
    assert module[1].structured_channels.all()


def test_several_layers_at_once(images):
    X = torch.from_numpy(images[0])
    module = make_module()
    insert_layer(module, "2", DropCluster2d(7))
    update_clusters(module, X)
    inserted = module[2].inserted_layer
    assert inserted.cluster_sizes.shape == (6, 7)
    assert module[1].cluster_sizes.shape == (6, 5)


def test_several_batches_decide_together(images):
    X, weight = torch.from_numpy(images[0]), torch.arange(300.0) % 3
    module, whole = make_module(), make_module()
    earlier = [(X[:100], weight[:100]), (X[100:150], weight[100:150])]
    update_clusters(module, X[150:], weight[150:], earlier=earlier)
    update_clusters(whole, X, weight)
    assert torch.equal(module[1].cluster_labels, whole[1].cluster_labels)
    labels = []
    for n_batches in (1, 3, 99):  # of 128, 128 and 44 images
        drop = DropCluster(layer=None, start_epoch=0, n_batches=n_batches)
        net = make_net(make_module(), RegularizerCallback(drop), max_epochs=1)
        labels.append(net.fit(*images).module_[1].cluster_labels)
    assert not torch.equal(labels[0], labels[1])
    assert torch.equal(labels[1], labels[2])


def test_a_layer_on_maps_too_small_does_not_hurry_the_others(images):
    module = make_module()
    module[3] = nn.Sequential(
        nn.ReLU(), nn.MaxPool2d(6), DropCluster2d(), nn.Upsample(scale_factor=6)
    )
    spy = Spy()
    make_net(module, update(0, 2), spy, max_epochs=4).fit(*images)
    assert not module[3][2].is_active
    new = [not torch.equal(a, b) for a, b in zip(spy.seen, spy.seen[1:], strict=False)]
    assert new == [False, True, False]


def test_interrupted_training_goes_on_as_if_uninterrupted(images):
    def fit(net, n_epochs):
        for _ in range(n_epochs):
            torch.manual_seed(len(net.history))  # the net's own affair
            net.partial_fit(*images, epochs=1)
        return net

    whole = fit(make_net(make_module(), update(1, 2)).initialize(), 6)
    part = fit(make_net(make_module(), update(1, 2)).initialize(), 2)
    resumed = fit(pickle.loads(pickle.dumps(part)), 4)
    one, two = (net.module_.state_dict() for net in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_layer_is_inserted(images):
    module = nn.Sequential(make_module()[0], *make_module()[2:])
    callback = RegularizerCallback(DropCluster(0.3, start_epoch=1, rounding="down"))
    net = make_net(module, callback, max_epochs=2).fit(*images)
    layer = net.module_.get_submodule("0.inserted_layer")
    assert (layer.drop_rate, layer.rounding, layer.is_active) == (0.3, "down", True)


def test_the_callback_can_be_searched(images):
    net = make_net(make_module(), ("drop", update(1, 1)), max_epochs=2)
    net.set_params(callbacks__drop__regularizer=DropCluster(layer=None, start_epoch=2))
    assert not net.fit(*images).module_[1].is_active


def test_a_module_with_several_inputs(images):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = make_module()

        def forward(self, image, scale):
            return self.net(image * scale)

    X, y = images
    scale = np.ones((len(X), 1, 1, 1), dtype=np.float32)
    torch.manual_seed(0)
    two = make_net(Scaled(), update(1, 1), max_epochs=2)
    two.fit({"image": X, "scale": scale}, y)
    torch.manual_seed(0)
    one = make_net(make_module(), update(1, 1), max_epochs=2).fit(X, y)
    labels = one.module_[1].cluster_labels
    assert torch.equal(two.module_.net[1].cluster_labels, labels)


def test_bad_input(images):
    X, y = images
    with pytest.raises(ValueError, match="module has no DropCluster layer, and layer="):
        make_net(nn.Linear(64, 10), update(0, 1)).fit(X.reshape(300, -1), y)
    with pytest.raises(ValueError, match="The 'update_every' parameter"):
        make_net(make_module(), update(0, 0)).fit(X, y)
    single = RegularizerCallback(DropCluster(layer=None, start_epoch=0, n_batches=1))
    net = make_net(make_module(), single, batch_size=1)
    with pytest.raises(ValueError, match="batch_size=1 is too small to cluster"):
        net.fit(X, y)
    net = make_net(make_module(), update(0, 1), max_epochs=2).fit(X, y)
    larger = np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1)))
    with pytest.raises(ValueError, match=r"shape \(6, 6, 6\), but got \(6, 8, 8\)"):
        net.predict(larger)
