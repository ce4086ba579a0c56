"""DropClusterClassifier and DropClusterRegressor."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from dropcluster.networks import ResNet
from torch import nn

from sklearn_structreg import DropClusterClassifier
from sklearn_structreg.core import StructuredClassifier, insert_layer, make_convnet
from sklearn_structreg.core.batches import batch_sizes
from sklearn_structreg.core.insertion import inserted_layers
from sklearn_structreg.core.randomness import derive_seed
from sklearn_structreg.core.standardization import Standardize
from sklearn_structreg.dropcluster import (
    DropCluster,
    DropCluster1d,
    DropCluster2d,
    DropClusterRegressor,
    rena,
)

IGNORE = "ignore::sklearn.exceptions.ConvergenceWarning"
FAST = {"max_epochs": 3, "random_state": 0, "hidden_layer_sizes": (16,)}


@pytest.fixture(scope="module")
def flat(digits):
    return digits[0][:400], digits[1][:400]


@pytest.fixture(scope="module")
def images(flat):
    return flat[0].reshape(-1, 1, 8, 8), flat[1]


def states(estimator):
    return estimator.module_.state_dict()


def same(one, two):
    one, two = states(one), states(two)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def inserted(estimator):
    """Return the inserted layers but the one that standardizes."""
    layers = inserted_layers(estimator.module_).items()
    return {name: x for name, x in layers if not isinstance(x, Standardize)}


def layer_of(estimator):
    (layer,) = inserted(estimator).values()
    return layer


# ---- clusters ------------------------------------------------------------------


def test_fitted_attributes_of_images(images):
    model = DropClusterClassifier(n_clusters=7, **FAST).fit(*images)
    assert model.cluster_labels_.shape == (32, 8, 8)
    assert model.structured_channels_.shape == (32,)
    assert model.structured_channels_.dtype == bool
    assert model.n_clusters_ == 7
    assert (model.cluster_labels_.max((1, 2)) == 6).all()
    assert list(inserted(model)) == ["0.inserted_layer_2"]  # the first standardizes


def test_flat_features_are_a_chain(flat):
    model = DropClusterClassifier(**FAST).fit(*flat)
    assert model.cluster_labels_.shape == (1, 64)
    assert model.n_clusters_ == 15
    assert (np.diff(model.cluster_labels_[0]) >= 0).all()  # connected
    assert isinstance(layer_of(model), DropCluster1d)


def test_image_shape_and_4d_images_are_the_same(flat, images):
    one = DropClusterClassifier(image_shape=(1, 8, 8), **FAST).fit(*flat)
    two = DropClusterClassifier(**FAST).fit(*images)
    assert same(one, two)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("shape", "layer", "expected"),
    [
        ((3, 20), "auto", (32, 20)),
        ((2, 4, 5, 6), "auto", (32, 4, 5, 6)),
        ((3, 6, 7), "input", (3, 6, 7)),
        ((3, 6, 7), "2", (32, 3, 3)),
    ],
)
def test_signals_volumes_the_input_and_other_layers(shape, layer, expected):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, *shape)), rng.integers(0, 2, 40)
    module = make_convnet if len(shape) == 2 else "auto"
    model = DropClusterClassifier(module, layer=layer, **FAST).fit(X, y)
    assert model.cluster_labels_.shape == expected
    inputs, maps = model.clustered_maps(X[:5])
    assert inputs.shape == (5, *shape)
    assert maps.shape == (5, *expected)
    assert model.predict(X).shape == (40,)


def test_a_torch_dataset(images):
    X, y = torch.tensor(images[0], dtype=torch.float32), torch.tensor(images[1])
    data = torch.utils.data.TensorDataset(X, y)
    params = {"standardize": False, **FAST}
    model = DropClusterClassifier(**params).fit(data)
    assert same(model, DropClusterClassifier(**params).fit(*images))
    model = DropClusterClassifier(**FAST).fit(data)
    expected = states(DropClusterClassifier(**FAST).fit(*images))
    for name, value in states(model).items():  # mean and scale up to rounding
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5)


@pytest.mark.filterwarnings(IGNORE)
@pytest.mark.parametrize("n_batches", [1, 2])
def test_clusters_come_from_the_first_mini_batches_of_the_epoch(images, n_batches):
    X, y = images
    weight = np.arange(len(y)) % 3
    params = (
        FAST
        | {"n_batches": n_batches}
        | {"max_epochs": 1, "batch_size": 50, "start_epoch": 0}
    )
    frozen = {"max_epochs": 1, "learning_rate": 1e-30, "start_epoch": 2}
    plain = DropClusterClassifier(**(params | frozen))
    plain.fit(X, y, sample_weight=weight)  # the weights that the first epoch begins at
    model = DropClusterClassifier(**params).fit(X, y, sample_weight=weight)
    rows = np.flatnonzero(weight)
    seed = derive_seed(model.net_.seed, 1)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    n_rows = sum(batch_sizes(len(rows), 50)[:n_batches])
    batch = rows[order[:n_rows].numpy()]
    with torch.no_grad():
        maps = plain.module_[0](torch.tensor(X[batch], dtype=torch.float32))
    expected = rena(maps, 15, sample_weight=weight[batch]).labels
    np.testing.assert_array_equal(model.cluster_labels_, expected)


def test_schedule(images):
    def clusters(**params):
        found = []
        model = DropClusterClassifier(random_state=0, **params)
        for _ in range(6):
            model.partial_fit(*images, classes=np.arange(10))
            found.append(model.cluster_labels_ if model.n_clusters_ else None)
        return found

    found = clusters(start_epoch=2, update_every=3)
    assert [labels is None for labels in found] == [True, True] + [False] * 4
    assert found[2] is not None
    np.testing.assert_array_equal(found[2], found[4])
    assert (found[4] != found[5]).any()
    # Shares begin in the second call, whatever max_epochs is, and become rarer.
    auto = clusters(update_every=0.5)
    assert [labels is None for labels in auto] == [True] + [False] * 5
    new = [(a != b).any() for a, b in pairwise(auto[1:])]
    assert new == [True, True, True, False]  # before calls 2, 3, 4, 5 and 7


def test_dropping_begins_before_early_stopping_can_end(images):
    settings = {"early_stopping": True, "max_epochs": 500, "random_state": 0}
    model = DropClusterClassifier(learning_rate=0.2, **settings).fit(*images)
    # "auto" would be 100 epochs. The kept weights are those of a net that drops.
    assert model.n_iter_ < 60
    assert model.n_clusters_ == 15
    losses = model.history_[:, "valid_loss"]
    assert model.n_iter_ == 11 + 10 + int(np.argmin(losses[10:]))


def test_several_layers_by_name(images):
    model = DropClusterClassifier(layer=["0", "2"], n_clusters=4, **FAST).fit(*images)
    names = model.regularizers_["dropcluster"].inserted_
    assert names == ["0.inserted_layer_2", "2.inserted_layer"]
    shapes = [inserted(model)[name].cluster_labels.shape for name in names]
    assert shapes == [(32, 8, 8), (32, 4, 4)]
    assert model.cluster_labels_.shape == (32, 8, 8)
    model.set_params(n_clusters=5, warm_start=True).fit(*images)
    assert {x.cluster_sizes.shape[1] for x in inserted(model).values()} == {5}


def test_a_compiled_network_drops_as_the_plain_one_does(images):
    def fit(compiled):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))
        net = torch.compile(net, backend="eager") if compiled else net
        settings = FAST | {"drop_rate": 0.3, "start_epoch": 1}
        return DropClusterClassifier(net, **settings).fit(*images)

    losses = [fit(compiled).history_[:, "train_loss"] for compiled in (False, True)]
    assert losses[0] == losses[1]


@pytest.mark.filterwarnings(IGNORE)
def test_weight_is_copies_and_zero_is_absent_also_for_the_clusters(images):
    X, y = images[0][:60], images[1][:60]
    weight = np.arange(60) % 4
    exact = FAST | {"dtype": "float64", "batch_size": None}
    one = DropClusterClassifier(**exact).fit(X, y, sample_weight=weight)
    copies = np.repeat(np.arange(60), weight)
    two = DropClusterClassifier(**exact).fit(X[copies], y[copies])
    np.testing.assert_array_equal(one.cluster_labels_, two.cluster_labels_)
    assert same(one, two)


def test_unstructured_channels_are_masked_in_prediction(images):
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    )
    nn.init.zeros_(net[0].weight[2])
    net[0].weight.requires_grad_(False)
    net[0].bias.requires_grad_(False)
    with torch.no_grad():
        net[0].bias[2] = 1
    model = DropClusterClassifier(net, unstructured="auto", **FAST).fit(*images)
    assert model.structured_channels_.tolist() == [True, True, False, True]
    before = model.predict_proba(images[0])
    with torch.no_grad():
        model.module_[3].weight[:, 128:192] = 1e6
    np.testing.assert_array_equal(model.predict_proba(images[0]), before)


def test_drop_cluster_regularizes(digits):
    # Few samples and a net that fits them exactly: what is dropped shows in the loss.
    X, y = digits[0].reshape(-1, 1, 8, 8)[:100], digits[1][:100]
    params = {"max_epochs": 30, "batch_size": 20, "random_state": 0}
    plain = StructuredClassifier(**params).fit(X, y)
    model = DropClusterClassifier(drop_rate=0.3, **params).fit(X, y)
    losses = [m.history_[:, "train_loss"] for m in (plain, model)]
    assert losses[0][:6] == losses[1][:6]  # start_epoch="auto" is 6
    assert losses[1][-1] > 1.5 * losses[0][-1]


# ---- off is off ----------------------------------------------------------------


@pytest.mark.parametrize("module", ["auto", ResNet])
def test_off_is_the_plain_net_bit_for_bit(images, module):
    settings = FAST | {"batch_size": 50}  # ResNet has a dropout layer of its own
    plain = StructuredClassifier(module, **settings).fit(*images)
    model = DropClusterClassifier(module, 0, **settings).fit(*images)
    for name, value in states(plain).items():
        assert torch.equal(states(model)[name], value)
    np.testing.assert_array_equal(
        model.predict_proba(images[0]), plain.predict_proba(images[0])
    )
    assert model.n_clusters_ == 0


# ---- layers of the module's own ------------------------------------------------


@pytest.mark.parametrize("layer", ["0", "1"])
def test_layers_that_a_user_has_inserted_stay(images, layer):
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10))
    insert_layer(net, "0", DropCluster2d(4))
    insert_layer(net, "1", nn.Dropout2d(0.2))
    model = DropClusterClassifier(net, layer=layer, warm_start=True, **FAST)
    model.fit(*images)
    for _ in range(2):
        found = inserted_layers(model.module_)
        assert len(found) == 3
        assert found["0.inserted_layer"].cluster_sizes.shape == (6, 4)
        assert isinstance(found["1.inserted_layer"], nn.Dropout2d)
        assert found[f"{layer}.inserted_layer_2"].n_clusters == "auto"
        assert model.n_clusters_ == 9
        model = pickle.loads(pickle.dumps(model)).fit(*images)
    assert len(inserted_layers(net)) == 2


def test_layers_of_the_module_alone(images):
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        DropCluster2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(216, 10),
    )
    model = DropClusterClassifier(net, layer=None, **FAST).fit(*images)
    assert not inserted_layers(model.module_)
    assert model.n_clusters_ == 4
    with pytest.raises(ValueError, match="module has no DropCluster layer"):
        DropClusterClassifier(layer=None, **FAST).fit(*images)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_two_layers_have_their_own_schedules(images):
    late = DropCluster(layer="2", start_epoch=2, n_clusters=3)
    regularizers = [("early", DropCluster(start_epoch=1, n_clusters=5)), ("late", late)]
    settings = FAST | {"max_epochs": 2}
    model = StructuredClassifier(regularizers=regularizers, **settings).fit(*images)
    layers = inserted_layers(model.module_)
    names = [r.inserted_ for r in model.regularizers_.values()]
    assert [layers[name].is_active for (name,) in names] == [True, False]
    model.set_params(warm_start=True, max_epochs=1).fit(*images)
    layers = inserted_layers(model.module_)
    assert [layers[name].cluster_sizes.shape[1] for (name,) in names] == [5, 3]


# ---- resuming ------------------------------------------------------------------


@pytest.mark.parametrize("n_before", [1, 3, 4])
def test_loaded_mid_schedule_goes_on_as_if_uninterrupted(images, n_before):
    params = {"start_epoch": 2, "update_every": 2, "drop_rate": 0.3, "batch_size": 64}
    params |= {"unstructured": "hopkins"}

    def go_on(model, n_epochs):
        for _ in range(n_epochs):
            model.partial_fit(*images, classes=np.arange(10))
        return model

    whole = go_on(DropClusterClassifier(ResNet, random_state=0, **params), 6)
    part = go_on(DropClusterClassifier(ResNet, random_state=0, **params), n_before)
    torch.manual_seed(123)
    loaded = go_on(pickle.loads(pickle.dumps(part)), 6 - n_before)
    assert same(whole, loaded)
    fitted = DropClusterClassifier(ResNet, random_state=0, max_epochs=6, **params)
    assert same(whole, fitted.fit(*images))


def test_a_warm_start_keeps_clusters_and_schedule(images):
    model = DropClusterClassifier(
        start_epoch=2, update_every=100, warm_start=True, **FAST
    ).fit(*images)
    clusters = model.cluster_labels_
    model.set_params(drop_rate=0.4).fit(*images)
    np.testing.assert_array_equal(model.cluster_labels_, clusters)
    assert layer_of(model).drop_rate == 0.4
    assert model.n_iter_ == 6
    model.set_params(n_clusters=9).fit(*images)  # another number: found anew
    assert model.n_clusters_ == 9
    with pytest.raises(ValueError, match="layer cannot change from 'auto' to '2'"):
        model.set_params(layer="2").fit(*images)


def test_partial_fit_takes_over_changed_parameters(images):
    model = DropClusterClassifier(start_epoch=0, update_every=100, random_state=0)
    model.partial_fit(*images, classes=np.arange(10))
    clusters = model.cluster_labels_
    model.set_params(drop_rate=0.4, rounding="down").partial_fit(*images)
    np.testing.assert_array_equal(model.cluster_labels_, clusters)
    assert (layer_of(model).drop_rate, layer_of(model).rounding) == (0.4, "down")
    model.set_params(n_clusters=3).partial_fit(*images)
    assert model.n_clusters_ == 3


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_early_stopping_brings_back_the_best_epochs_clusters():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 1, 6, 6)), rng.integers(0, 2, 60)  # noise: overfits
    model = DropClusterClassifier(
        early_stopping=True,
        validation_fraction=0.5,
        n_iter_no_change=4,
        start_epoch=0,
        update_every=1,
        max_epochs=60,
        random_state=0,
    ).fit(X, y)
    best = int(np.argmin(model.history_[:, "valid_loss"]))
    assert best < model.n_iter_ - 1
    steps = DropClusterClassifier(
        early_stopping=True,
        validation_fraction=0.5,
        n_iter_no_change=60,
        start_epoch=0,
        update_every=1,
        max_epochs=best + 1,
        random_state=0,
    ).fit(X, y)
    np.testing.assert_array_equal(model.cluster_labels_, steps.cluster_labels_)


# ---- bad input -----------------------------------------------------------------


def test_more_clusters_than_flat_features(flat):
    with pytest.raises(ValueError, match="n_clusters=65 is more than the 64 pixels"):
        DropClusterClassifier(n_clusters=65, **FAST).fit(*flat)


def test_a_layer_that_runs_twice(images):
    with pytest.raises(ValueError, match=r"'layer2.relu' runs 2 times"):
        DropClusterClassifier(ResNet, layer="layer2.relu", **FAST).fit(*images)


class Shared(nn.Module):
    """A layer under two names, one that runs twice, and one that returns a tuple."""

    def __init__(self, n_outputs=10):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.alias = self.conv
        self.twice = nn.ReLU()
        self.rnn = nn.LSTM(8, 2, batch_first=True)
        self.fc = nn.Linear(16, n_outputs)

    def forward(self, x):
        maps = self.twice(self.conv(x)) + x
        rows, _ = self.rnn(self.twice(maps).mean(1))
        return self.fc(rows.flatten(1))


def test_a_layer_that_returns_a_tuple(images):
    with pytest.raises(ValueError, match="'rnn' is not a tensor but a tuple"):
        DropClusterClassifier(Shared, layer="rnn", **FAST).fit(*images)


def test_a_layer_by_any_of_its_names(images):
    one = DropClusterClassifier(Shared, layer="alias", **FAST).fit(*images)
    two = DropClusterClassifier(Shared, layer="conv", **FAST).fit(*images)
    assert one.n_clusters_ == 15
    assert same(one, two)


def test_another_image_size_at_predict(images):
    model = DropClusterClassifier(ResNet, **FAST).fit(*images)
    with pytest.raises(ValueError, match=r"shape \(1, 9, 9\), but fit saw samples of"):
        model.predict(np.zeros((2, 1, 9, 9)))


@pytest.mark.filterwarnings(IGNORE)
def test_too_few_pixels_leave_it_inactive(blobs):
    X, y = blobs
    model = DropClusterClassifier(**FAST).fit(X[:, 2:], y)
    plain = StructuredClassifier(**FAST).fit(X[:, 2:], y)
    for name, value in states(plain).items():
        assert torch.equal(states(model)[name], value)
    assert model.n_clusters_ == 0
    net = nn.Sequential(nn.Conv2d(1, 4, (3, 2)), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"\(2, 4, 1, 2\), has no .* of 3 pixels"):
        DropClusterClassifier(net, **FAST).fit(np.ones((60, 1, 3, 3)), y[:60])


def test_a_single_row_is_not_clustered_and_the_next_batch_is(images):
    X, y = images
    model = DropClusterClassifier(start_epoch=0, random_state=0)
    model.partial_fit(X[:1], y[:1], classes=np.arange(10))
    assert model.n_clusters_ == 0
    model.partial_fit(X, y)
    assert model.n_clusters_ == 15
    strict = DropClusterClassifier(n_clusters=5, start_epoch=1, random_state=0)
    strict.partial_fit(X[:1], y[:1], classes=np.arange(10))
    with pytest.raises(ValueError, match="n_samples=1 is too small to cluster"):
        strict.partial_fit(X[:1], y[:1])
    assert strict.n_iter_ == 1  # no half an epoch is left behind


def test_a_regressor(images):
    X, y = images[0], images[1] + 0.5
    params = FAST | {"max_epochs": 10}
    model = DropClusterRegressor(n_clusters=7, learning_rate=0.01, **params).fit(X, y)
    assert model.cluster_labels_.shape == (32, 8, 8)
    assert model.n_clusters_ == 7
    assert set(model.layer_hopkins(X[:10], "0")) == {"0"}
    assert model.score(X, y) > 0
    assert model.compact().module_(torch.zeros(1, 1, 8, 8)).shape == (1, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(images):
    X, y = images
    params = FAST | {"unstructured": "hopkins", "start_epoch": 1, "update_every": 1}
    model = DropClusterClassifier(device="cuda", **params).fit(X, y)
    assert all(buffer.is_cuda for buffer in layer_of(model).buffers())
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.cluster_labels_, model.cluster_labels_)
    np.testing.assert_allclose(
        loaded.predict_proba(X), model.predict_proba(X), rtol=1e-3, atol=1e-4
    )
    loaded.set_params(device="cpu").partial_fit(X, y)
    assert not any(buffer.is_cuda for buffer in layer_of(loaded).buffers())
    model.partial_fit(X, y)
    model.compact()
    assert set(model.layer_hopkins(X[:10])) == set(loaded.layer_hopkins(X[:10]))
