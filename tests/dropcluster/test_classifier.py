"""DropClusterClassifier and its rivals."""

import pickle

import numpy as np
import pytest
import torch
from dropcluster.networks import ResNet
from sklearn.model_selection import GridSearchCV
from torch import nn

from sklearn_structreg import DropClusterClassifier
from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.core.randomness import derive_seed
from sklearn_structreg.dropcluster import (
    DropBlock1d,
    DropBlock2d,
    DropCluster1d,
    DropCluster2d,
    StochasticDepth,
    insert_layer,
    inserted_layers,
    remove_layers,
    rena,
)

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


def layer_of(estimator):
    (layer,) = inserted_layers(estimator.module_).values()
    return layer


# ---- clusters ------------------------------------------------------------------


def test_fitted_attributes_of_images(images):
    model = DropClusterClassifier(n_clusters=7, **FAST).fit(*images)
    assert model.cluster_labels_.shape == (32, 8, 8)
    assert model.structured_channels_.shape == (32,)
    assert model.structured_channels_.dtype == bool
    assert model.n_clusters_ == 7
    assert (model.cluster_labels_.max((1, 2)) == 6).all()
    assert list(inserted_layers(model.module_)) == ["0"]


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
    model = DropClusterClassifier(layer=layer, **FAST).fit(X, y)
    assert model.cluster_labels_.shape == expected
    inputs, maps = model.clustered_maps(X[:5])
    assert inputs.shape == (5, *shape)
    assert maps.shape == (5, *expected)
    assert model.predict(X).shape == (40,)


def test_a_torch_dataset(images):
    X, y = torch.tensor(images[0], dtype=torch.float32), torch.tensor(images[1])
    data = torch.utils.data.TensorDataset(X, y)
    model = DropClusterClassifier(**FAST).fit(data)
    assert same(model, DropClusterClassifier(**FAST).fit(*images))


def test_clusters_come_from_the_first_mini_batch_of_the_epoch(images):
    X, y = images
    weight = np.arange(len(y)) % 3
    params = FAST | {"max_epochs": 1, "batch_size": 50, "start_epoch": 0}
    plain = DropClusterClassifier(regularizer=None, learning_rate=1e-30, **params)
    plain.fit(X, y, sample_weight=weight)  # the weights that the first epoch begins at
    model = DropClusterClassifier(**params).fit(X, y, sample_weight=weight)
    rows = np.flatnonzero(weight)
    seed = derive_seed(model.net_.seed, 1)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    batch = rows[order[:50].numpy()]
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
    # "auto" is a fifth of max_epochs, for both.
    auto = clusters(max_epochs=10)
    assert [labels is None for labels in auto] == [True, True] + [False] * 4
    assert (auto[3] != auto[4]).any()


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
    model = DropClusterClassifier(net, **FAST).fit(*images)
    assert model.structured_channels_.tolist() == [True, True, False, True]
    before = model.predict_proba(images[0])
    with torch.no_grad():
        model.module_[3].weight[:, 128:192] = 1e6
    np.testing.assert_array_equal(model.predict_proba(images[0]), before)


def test_drop_cluster_regularizes(digits):
    # Few samples and a net that fits them exactly: what is dropped shows in the loss.
    X, y = digits[0].reshape(-1, 1, 8, 8)[:100], digits[1][:100]
    params = {"max_epochs": 30, "batch_size": 20, "random_state": 0}
    plain = DropClusterClassifier(regularizer=None, **params).fit(X, y)
    model = DropClusterClassifier(drop_rate=0.3, **params).fit(X, y)
    losses = [m.history_[:, "train_loss"] for m in (plain, model)]
    assert losses[0][:6] == losses[1][:6]  # start_epoch="auto" is 6
    assert losses[1][-1] > 1.5 * losses[0][-1]


# ---- off is off ----------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"drop_rate": 0, "unstructured": None},
        {"regularizer": None},
        *(
            {"drop_rate": 0, "regularizer": name}
            for name in ("dropblock", "spatial", "dropout")
        ),
    ],
)
@pytest.mark.parametrize("module", ["auto", ResNet])
def test_off_is_the_plain_net_bit_for_bit(images, params, module):
    settings = FAST | {"batch_size": 50}  # ResNet has a dropout layer of its own
    plain = StructuredClassifier(module, **settings).fit(*images)
    model = DropClusterClassifier(module, **params, **settings).fit(*images)
    for name, value in states(plain).items():
        assert torch.equal(states(model)[name], value)
    np.testing.assert_array_equal(
        model.predict_proba(images[0]), plain.predict_proba(images[0])
    )


def test_stochastic_depth_off_is_the_plain_net(images):
    plain = StructuredClassifier(ResNet, **FAST).fit(*images)
    model = DropClusterClassifier(
        ResNet, regularizer="stochastic_depth", drop_rate=0, **FAST
    ).fit(*images)
    assert same(plain, model)


# ---- rivals --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [("dropblock", DropBlock2d), ("spatial", nn.Dropout2d), ("dropout", nn.Dropout)],
)
def test_rivals_are_put_in_the_same_place(images, name, kind):
    model = DropClusterClassifier(regularizer=name, drop_rate=0.3, **FAST).fit(*images)
    assert list(inserted_layers(model.module_)) == ["0"]
    assert type(layer_of(model)) is kind
    assert model.n_clusters_ == 0
    with pytest.raises(AttributeError, match="There are no clusters"):
        _ = model.cluster_labels_
    assert not hasattr(model, "structured_channels_")
    plain = StructuredClassifier(**FAST).fit(*images)
    assert plain.history_[0, "train_loss"] != model.history_[0, "train_loss"]


def test_rivals_on_flat_features(flat):
    model = DropClusterClassifier(regularizer="dropblock", **FAST).fit(*flat)
    assert layer_of(model).block_size == (5,)
    assert isinstance(layer_of(model), DropBlock1d)
    DropClusterClassifier(regularizer="dropout", **FAST).fit(*flat)
    with pytest.raises(ValueError, match="the input is a single one"):
        DropClusterClassifier(regularizer="spatial", **FAST).fit(*flat)


def test_rivals_take_several_layers(images):
    layers = ["layer1", "layer2.bn1"]
    model = DropClusterClassifier(
        ResNet, regularizer="dropblock", block_size=2, layer=layers, **FAST
    ).fit(*images)
    found = inserted_layers(model.module_)
    assert list(found) == ["layer1.1", "layer2.bn1"]
    assert {layer.block_size for layer in found.values()} == {(2, 2)}


def test_layers_that_a_user_has_inserted_stay(images):
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10))
    insert_layer(net, "0", DropCluster2d(4))
    insert_layer(net, "1", DropBlock2d(2))
    model = DropClusterClassifier(net, layer="1", warm_start=True, **FAST)
    with pytest.raises(ValueError, match="'1' has an inserted layer already"):
        model.fit(*images)
    remove_layers(net, ["1"])
    model.fit(*images)
    for _ in range(2):
        found = inserted_layers(model.module_)
        assert {name: part.n_clusters for name, part in found.items()} == {
            "0": 4,
            "1": "auto",
        }
        assert model.n_clusters_ == 9
        model = pickle.loads(pickle.dumps(model)).fit(*images)
    model.set_params(regularizer=None).fit(*images)
    assert list(inserted_layers(model.module_)) == ["0"]


def test_dropout_may_follow_a_linear_layer(images):
    DropClusterClassifier(regularizer="dropout", layer="9", **FAST).fit(*images)


def test_stochastic_depth_finds_the_branches(images):
    model = DropClusterClassifier(
        ResNet, regularizer="stochastic_depth", drop_rate=0.5, **FAST
    ).fit(*images)
    found = inserted_layers(model.module_)
    assert list(found) == ["layer1.0.bn2", "layer1.1.bn2", "layer2.bn2"]
    assert all(isinstance(layer, StochasticDepth) for layer in found.values())
    with pytest.raises(ValueError, match="No residual branch was found"):
        DropClusterClassifier(regularizer="stochastic_depth", **FAST).fit(*images)


def test_rivals_are_one_parameter_of_a_grid_search(flat):
    X, y = flat
    params = FAST | {"max_epochs": 8}
    model = DropClusterClassifier(image_shape=(1, 8, 8), batch_size=20, **params)
    grid = {"regularizer": ["dropcluster", "dropblock", None], "drop_rate": [0.3]}
    search = GridSearchCV(model, grid, cv=2).fit(X, y)
    assert search.best_score_ > 0.5
    assert len(set(search.cv_results_["mean_test_score"])) == 3


# ---- resuming ------------------------------------------------------------------


@pytest.mark.parametrize("regularizer", ["dropcluster", "dropblock"])
@pytest.mark.parametrize("n_before", [1, 3, 4])
def test_loaded_mid_schedule_goes_on_as_if_uninterrupted(images, n_before, regularizer):
    params = {"start_epoch": 2, "update_every": 2, "drop_rate": 0.3, "batch_size": 64}
    params |= {"regularizer": regularizer, "unstructured": "hopkins"}

    def go_on(model, n_epochs):
        for _ in range(n_epochs):
            model.partial_fit(*images, classes=np.arange(10))
        return model

    whole = go_on(DropClusterClassifier(ResNet, random_state=0, **params), 6)
    part = go_on(DropClusterClassifier(ResNet, random_state=0, **params), n_before)
    torch.manual_seed(123)
    loaded = go_on(pickle.loads(pickle.dumps(part)), 6 - n_before)
    assert same(whole, loaded)
    if regularizer == "dropcluster":
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
    model.set_params(regularizer=None).fit(*images)
    assert not inserted_layers(model.module_)


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


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layer": "conv"}, "layer='conv' is no layer of the network; its layers are"),
        ({"layer": "9"}, r"output of layer '9', .* has no spatial extent"),
        ({"n_clusters": 65}, "n_clusters=65 is more than the 64 pixels"),
        ({"layer": ["0", "3"]}, "takes one layer, but layer="),
        ({"n_clusters": 5, "batch_size": 1}, "batch_size=1 is too small to cluster"),
        ({"batch_size": 1}, "batch_size=1 is too small to cluster"),
        ({"regularizer": "dropblock", "block_size": 9}, "block_size=9 does not fit"),
        ({"regularizer": "dropclusters"}, "The 'regularizer' parameter"),
    ],
)
def test_bad_parameters(images, params, message):
    with pytest.raises(ValueError, match=message):
        DropClusterClassifier(**(FAST | params)).fit(*images)


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


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"regularizer": "dropout", "layer": "rnn"}, "'rnn' is no tensor but of type"),
        ({"layer": "rnn"}, "'rnn' is no tensor but of type tuple"),
        ({"regularizer": "stochastic_depth", "layer": "rnn"}, "'rnn' is no tensor"),
        ({"regularizer": "stochastic_depth", "layer": "twice"}, "'twice' runs 2 times"),
        ({"regularizer": "stochastic_depth"}, "'twice' runs 2 times"),
        ({"regularizer": "stochastic_depth", "layer": "input"}, "the input is none"),
        ({"regularizer": "stochastic_depth", "layer": []}, "layer is empty"),
        ({"regularizer": "dropblock", "layer": []}, "layer is empty"),
    ],
)
def test_layers_that_cannot_be_regularized(images, params, message):
    with pytest.raises(ValueError, match=message):
        DropClusterClassifier(Shared, **FAST, **params).fit(*images)


def test_a_layer_by_any_of_its_names(images):
    one = DropClusterClassifier(Shared, layer="alias", **FAST).fit(*images)
    two = DropClusterClassifier(Shared, layer="conv", **FAST).fit(*images)
    assert one.n_clusters_ == 15
    assert same(one, two)


@pytest.mark.parametrize("regularizer", ["dropout", "stochastic_depth"])
def test_names_of_layers_as_an_array(images, regularizer):
    layers = np.array(["conv", "fc"])
    model = DropClusterClassifier(Shared, regularizer=regularizer, layer=layers, **FAST)
    assert list(inserted_layers(model.fit(*images).module_)) == ["conv", "fc"]


def test_another_image_size_at_predict(images):
    model = DropClusterClassifier(ResNet, **FAST).fit(*images)
    with pytest.raises(ValueError, match=r"shape \(1, 9, 9\), but fit saw samples of"):
        model.predict(np.zeros((2, 1, 9, 9)))


def test_too_few_pixels_leave_it_inactive(blobs):
    X, y = blobs
    model = DropClusterClassifier(**FAST).fit(X[:, :3], y)
    plain = StructuredClassifier(**FAST).fit(X[:, :3], y)
    assert same(model, plain)
    assert model.n_clusters_ == 0


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
