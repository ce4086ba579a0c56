"""Regularizers that consist of inserted layers: dropout, of values to blocks."""

import pickle

import numpy as np
import pytest
import torch
from dropcluster.networks import ResNet
from sklearn.model_selection import GridSearchCV
from torch import nn

from sklearn_structreg.baselines import (
    DropBlock,
    DropBlock1d,
    DropBlock2d,
    Dropout,
    SpatialDropout,
    StochasticDepth,
)
from sklearn_structreg.core import RegularizerCallback, StructuredClassifier
from sklearn_structreg.core.insertion import inserted_layers
from sklearn_structreg.core.standardization import Standardize

IGNORE = "ignore::sklearn.exceptions.ConvergenceWarning"
FAST = {"max_epochs": 3, "random_state": 0, "hidden_layer_sizes": (16,)}
ALL = [Dropout, SpatialDropout, DropBlock, StochasticDepth]


@pytest.fixture(scope="module")
def flat(digits):
    return digits[0][:400], digits[1][:400]


@pytest.fixture(scope="module")
def images(flat):
    return flat[0].reshape(-1, 1, 8, 8), flat[1]


def fit(regularizer, data, module="auto", **params):
    estimator = StructuredClassifier(
        module, regularizers=[regularizer], **(FAST | params)
    )
    return estimator.fit(*data)


def inserted(estimator):
    """Return the inserted layers but the one that standardizes."""
    layers = inserted_layers(estimator.module_).items()
    return {name: x for name, x in layers if not isinstance(x, Standardize)}


def states(estimator):
    return estimator.module_.state_dict()


# ---- off, and on ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_off_is_the_plain_net_bit_for_bit(images, kind):
    settings = FAST | {"batch_size": 50}  # ResNet has a dropout layer of its own
    plain = StructuredClassifier(ResNet, **settings).fit(*images)
    layers = {"layers": "conv1"} if kind is Dropout else {}
    model = fit(kind(0, **layers), images, ResNet, **settings)
    assert inserted(model)
    for name, value in states(plain).items():
        assert torch.equal(states(model)[name], value)
    np.testing.assert_array_equal(
        model.predict_proba(images[0]), plain.predict_proba(images[0])
    )


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.filterwarnings(IGNORE)
def test_on_it_changes_the_training_and_compacts_to_a_plain_network(images, kind):
    plain = StructuredClassifier(ResNet, **FAST).fit(*images)
    layers = {"layers": ["conv1", "fc"]} if kind is Dropout else {}
    model = fit(kind(0.3, **layers), images, ResNet)
    losses = [m.history_[-1, "train_loss"] for m in (plain, model)]
    assert losses[0] != losses[1]
    assert not inserted_layers(model.simplified_module())
    with torch.no_grad():
        found = model.compact().module_(torch.tensor(images[0], dtype=torch.float32))
    np.testing.assert_allclose(
        found, model.decision_function(images[0]), rtol=1e-4, atol=1e-5
    )
    assert inserted(model)  # the estimator is as it was


# ---- where ---------------------------------------------------------------------


def test_dropout_stands_before_every_linear_layer_but_the_first_weights(flat, images):
    model = fit(Dropout(), flat, hidden_layer_sizes=(16, 12))
    assert list(inserted(model)) == ["2.inserted_layer", "4.inserted_layer"]
    assert {layer.p for layer in inserted(model).values()} == {0.5}
    seen = []
    model.module_[4].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.module_.train()(torch.rand(200, 64))
    dropped = (seen[0] == 0).double().mean().item()
    assert dropped > 0.45  # and those that the activation has zeroed
    conv = fit(Dropout(), images)
    linear = [n for n, x in conv.module_.named_modules() if isinstance(x, nn.Linear)]
    assert list(inserted(conv)) == [f"{name}.inserted_layer" for name in linear]
    with pytest.raises(ValueError, match="Dropout finds no linear layer after the"):
        fit(Dropout(), flat, hidden_layer_sizes=())
    after_scaling = ["0.inserted_layer_2"]
    assert list(inserted(fit(Dropout(layers="input"), flat))) == after_scaling


def test_dropout_may_follow_a_linear_layer(images):
    model = fit(Dropout(layers="9"), images)
    layer = model.module_.get_submodule("9.inserted_layer")
    assert type(layer) is nn.Dropout
    outputs = model.module_.train()(torch.rand(50, 1, 8, 8))
    assert 0.3 < (outputs == 0).double().mean() < 0.7


@pytest.mark.parametrize(
    ("regularizer", "kind"),
    [(DropBlock(0.3), DropBlock2d), (SpatialDropout(0.3), nn.Dropout2d)],
)
def test_maps_are_those_of_the_first_convolution(images, regularizer, kind):
    model = fit(regularizer, images)
    assert list(inserted(model)) == ["0.inserted_layer_2"]  # the first standardizes
    assert type(inserted(model)["0.inserted_layer_2"]) is kind


def test_flat_features(flat):
    (layer,) = inserted(fit(DropBlock(), flat)).values()
    assert isinstance(layer, DropBlock1d)
    assert layer.block_size == (5,)
    with pytest.raises(ValueError, match="the input has a single one"):
        fit(SpatialDropout(), flat)


@pytest.mark.filterwarnings(IGNORE)
@pytest.mark.parametrize(
    "layers", [["layer1", "layer2.bn1"], np.array(["conv1", "bn1"])]
)
def test_several_layers(images, layers):
    model = fit(DropBlock(0.1, block_size=2, layers=layers), images, ResNet)
    found = inserted(model)
    assert len(found) == 2
    assert model.regularizers_["dropblock"].inserted_ == list(found)
    assert {layer.block_size for layer in found.values()} == {(2, 2)}


@pytest.mark.filterwarnings(IGNORE)
def test_stochastic_depth_finds_the_branches(images):
    model = fit(StochasticDepth(0.5), images, ResNet)
    names = ["layer1.0.bn2", "layer1.1.bn2", "layer2.bn2"]
    assert list(inserted(model)) == [f"{name}.inserted_layer" for name in names]
    with pytest.raises(ValueError, match="StochasticDepth finds no residual branch"):
        fit(StochasticDepth(), images)


@pytest.mark.filterwarnings(IGNORE)
def test_all_at_one_layer(images):
    regularizers = [Dropout(0.2, layers="conv1"), SpatialDropout(0.2), DropBlock(0.2)]
    model = StructuredClassifier(ResNet, regularizers=regularizers, **FAST)
    model.fit(*images)
    kinds = [type(layer) for layer in inserted(model).values()]
    assert kinds == [nn.Dropout, nn.Dropout2d, DropBlock2d]
    assert not inserted_layers(model.simplified_module())


def test_in_a_skorch_net(images):
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        ResNet,
        criterion=nn.CrossEntropyLoss,
        max_epochs=1,
        verbose=0,
        callbacks=[RegularizerCallback(DropBlock(0.2))],
    ).fit(images[0].astype("float32"), images[1])
    assert list(inserted_layers(net.module_)) == ["conv1.inserted_layer"]


# ---- training on ---------------------------------------------------------------


@pytest.mark.parametrize("regularizer", [DropBlock(0.2), Dropout(0.2, layers="conv1")])
@pytest.mark.filterwarnings(IGNORE)
def test_a_warm_start_keeps_the_layers_and_takes_a_new_rate(images, regularizer):
    model = fit(regularizer, images, ResNet, warm_start=True)
    name = type(regularizer).__name__.lower()
    (layer,) = inserted(model).values()
    kind, rate = type(layer), "p" if name == "dropout" else "drop_rate"
    model.set_params(**{f"regularizers__{name}__drop_rate": 0.4}).fit(*images)
    (layer,) = inserted(model).values()
    assert type(layer) is kind
    assert getattr(layer, rate) == 0.4
    assert model.n_iter_ == 6
    model.set_params(**{f"regularizers__{name}__layers": "bn1"})
    with pytest.raises(ValueError, match="layers cannot change from .* to 'bn1'"):
        model.fit(*images)
    if name == "dropblock":
        model.set_params(
            regularizers__dropblock__layers="auto",
            regularizers__dropblock__block_size=2,
        )
        with pytest.raises(ValueError, match="block_size cannot change from 'auto' to"):
            model.fit(*images)


def test_loaded_it_goes_on_as_if_uninterrupted(images):
    def go_on(model, n_epochs):
        for _ in range(n_epochs):
            model.partial_fit(*images, classes=np.arange(10))
        return model

    def new():
        return StructuredClassifier(
            ResNet, regularizers=[DropBlock(0.3)], random_state=0, batch_size=64
        )

    whole, part = go_on(new(), 3), go_on(new(), 1)
    torch.manual_seed(123)
    loaded = go_on(pickle.loads(pickle.dumps(part)), 2)
    for name, value in states(whole).items():
        assert torch.equal(states(loaded)[name], value)


def test_rivals_are_one_parameter_of_a_grid_search(flat):
    model = StructuredClassifier(
        image_shape=(1, 8, 8), batch_size=20, **(FAST | {"max_epochs": 8})
    )
    rivals = [[DropBlock(0.3)], [SpatialDropout(0.3)], None]
    search = GridSearchCV(model, {"regularizers": rivals}, cv=2).fit(*flat)
    assert search.best_score_ > 0.5
    assert len(set(search.cv_results_["mean_test_score"])) == 3


# ---- bad input -----------------------------------------------------------------


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
    ("regularizer", "message"),
    [
        (Dropout(layers="rnn"), "'rnn' is not a tensor but a tuple"),
        (StochasticDepth(layers="rnn"), "'rnn' is not a tensor but a tuple"),
        (StochasticDepth(layers="twice"), "'twice' runs 2 times"),
        (StochasticDepth(), "'twice' runs 2 times"),
        (StochasticDepth(layers="input"), "the input is none"),
        (StochasticDepth(layers=[]), "layers of StochasticDepth is empty"),
        (DropBlock(layers=[]), "layers of DropBlock is empty"),
        (DropBlock(block_size=9), "block_size=9 does not fit into maps of shape"),
        (DropBlock(layers="fc"), "'fc', .* has no spatial extent"),
        (Dropout(layers="conv9"), "no layer named 'conv9'"),
        (Dropout(1.0), "The 'drop_rate' parameter of Dropout"),
        (DropBlock(block_size=0), "The 'block_size' parameter of DropBlock"),
    ],
)
def test_layers_that_cannot_be_regularized(images, regularizer, message):
    with pytest.raises(ValueError, match=message):
        fit(regularizer, images, Shared)


@pytest.mark.parametrize("kind", [Dropout, StochasticDepth])
@pytest.mark.filterwarnings(IGNORE)
def test_a_layer_of_two_names_has_one(images, kind):
    model = fit(kind(layers=["alias", "fc"]), images, Shared)
    assert list(inserted(model)) == ["conv.inserted_layer", "fc.inserted_layer"]
