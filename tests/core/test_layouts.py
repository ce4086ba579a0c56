"""Images of any layout: recognized, or refused with the remedy."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from torch import nn
from torch.utils.data import Dataset

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    CGESRegressor,
    DropClusterClassifier,
    SelfInformedClassifier,
)
from sklearn_structreg.core import StructuredClassifier, make_convnet
from sklearn_structreg.dropcluster import ReNAClusterer, SpatialHopkins

FAST = {"max_epochs": 3, "random_state": 0}
SHORT = "ignore::sklearn.exceptions.ConvergenceWarning"  # other aims than to learn


class Items(Dataset):
    def __init__(self, items, y):
        self.items, self.y = items, y

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row], int(self.y[row])


def weights(model):
    return nn.utils.parameters_to_vector(model.module_.parameters())


@pytest.fixture(scope="module")
def photographs():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (30, 3, 8, 9)).astype(np.uint8), np.arange(30) % 3


@pytest.mark.filterwarnings(SHORT)
@pytest.mark.parametrize(
    "estimator",
    [
        StructuredClassifier(**FAST),
        BlockoutClassifier(**FAST),
        CGESRegressor(**FAST),
        DropClusterClassifier(n_clusters=4, start_epoch=1, **FAST),
        SelfInformedClassifier(n_clusters=2, **FAST),
        SelfInformedClassifier(StructuredClassifier(**FAST), n_clusters=2, **FAST),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_height_and_width_are_an_image_of_one_channel(digits, estimator):
    rows, y = digits[0][:200], digits[1][:200]
    images = rows.reshape(-1, 8, 8).copy()
    fits = [
        (images[:, None], None),
        (images, None),
        (torch.from_numpy(images), None),
        (list(images), None),
        (images.tolist(), None),
        (images, (8, 8)),
        (images, (1, 8, 8)),
        (images[:, None], (8, 8)),
    ]
    if getattr(estimator, "estimator", None) is None:
        fits.append((rows, (8, 8)))
    expected = None
    for X, image_shape in fits:
        model = clone(estimator).set_params(image_shape=image_shape).fit(X, y)
        assert model.input_shape_ == (1, 8, 8)
        expected = weights(model) if expected is None else expected
        assert torch.equal(weights(model), expected)
        for other in (rows, images, images[:, None]):
            np.testing.assert_array_equal(model.predict(other), model.predict(X))


@pytest.mark.filterwarnings(SHORT)
@pytest.mark.parametrize(
    "images", [lambda X: X, torch.from_numpy, lambda X: [Image.fromarray(x) for x in X]]
)
def test_datasets_of_height_and_width(digits, images):
    X, y = (digits[0] * 16).astype(np.uint8).reshape(-1, 8, 8)[:200], digits[1][:200]
    expected = StructuredClassifier(**FAST).fit(X, y)
    model = StructuredClassifier(**FAST).fit(Items(images(X), y))
    assert model.input_shape_ == (1, 8, 8)
    np.testing.assert_allclose(
        model.predict_proba(X), expected.predict_proba(X), atol=1e-5
    )


@pytest.mark.filterwarnings(SHORT)
def test_a_network_of_your_own_gets_the_shape_that_you_give(digits):
    X, y = digits[0][:200].reshape(-1, 2, 32), digits[1][:200]
    conv = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(120, 10))
    net = StructuredClassifier(conv, **FAST)
    assert net.fit(X, y).input_shape_ == (2, 32)
    assert net.fit(Items(X.astype(np.float32), y)).input_shape_ == (2, 32)
    heads = SelfInformedClassifier(net, n_clusters=2, **FAST).fit(X, y)
    assert heads.input_shape_ == (2, 32)
    ours = StructuredClassifier(make_convnet, standardize=True, **FAST).fit(X, y)
    assert isinstance(ours.module_[0], nn.Conv1d)
    asked = StructuredClassifier(make_convnet, image_shape=(8, 8), **FAST)
    assert asked.fit(digits[0][:200], y).input_shape_ == (1, 8, 8)
    lines = X.transpose(0, 2, 1)[:, :, :1]  # (32, 1): the channels last, as given
    assert StructuredClassifier(make_convnet, **FAST).fit(lines, y).n_features_in_ == 32


@pytest.mark.filterwarnings(SHORT)
def test_lists_of_images(digits):
    images, y = digits[0][:50].reshape(-1, 8, 8).astype(np.uint8), digits[1][:50]
    wanted = StructuredClassifier(**FAST).fit(images, y)
    pictures = [Image.fromarray(image) for image in images]
    for given in (list(images), [torch.from_numpy(x) for x in images], pictures):
        model = StructuredClassifier(**FAST).fit(given, y)
        assert torch.equal(weights(model), weights(wanted))
        np.testing.assert_array_equal(model.predict(given), wanted.predict(images))
    nested = images.tolist()
    assert StructuredClassifier(**FAST).fit(nested, y).input_shape_ == (1, 8, 8)


def test_channels_that_come_last(photographs):
    X, y = photographs
    last = np.ascontiguousarray(X.transpose(0, 2, 3, 1))
    turn = r"seem to have their channels last.*X.transpose\(0, 3, 1, 2\)"
    for model, given, target, message in [
        (StructuredClassifier(), last, y, turn),
        (StructuredClassifier(), torch.from_numpy(last), y, r"permute\(0, 3, 1, 2\)"),
        (CGESRegressor(), last[..., :1], y, turn),
        (StructuredClassifier(), Items(last, y), None, r"Dataset .*permute\(2, 0, 1\)"),
        (SelfInformedClassifier(), last, y, turn),
        (SelfInformedClassifier(StructuredClassifier()), last, y, turn),
        (ReNAClusterer(), last, None, turn),
        (SpatialHopkins(), last, None, turn),
    ]:
        with pytest.raises(ValueError, match=message):
            model.fit(given, target)
    rows, reshape = last.reshape(30, -1), r"X.reshape\(-1, 8, 9, 3\).transpose\(0, 3, "
    for model in (StructuredClassifier, ReNAClusterer, SpatialHopkins):
        with pytest.raises(ValueError, match=reshape):
            model(image_shape=(8, 9, 3)).fit(rows, y)


@pytest.mark.filterwarnings(SHORT)
@pytest.mark.parametrize(
    "shape", [(3, 8, 8), (8, 8, 2), (8, 1, 3), (4, 6, 3), (8, 3, 3)]
)
def test_channels_that_may_well_come_first(shape):
    X = np.random.default_rng(0).normal(size=(20, *shape))
    model = StructuredClassifier(max_epochs=1).fit(X, np.arange(20) % 2)
    assert model.input_shape_ == shape


@pytest.mark.filterwarnings(SHORT)
def test_bytes_are_scaled_or_taken_as_they_are(photographs):
    X, y = photographs
    fraction = X / 255
    expected = StructuredClassifier(**FAST).fit(fraction, y).predict_proba(fraction)
    raw = StructuredClassifier(**FAST).fit(X, y)
    np.testing.assert_allclose(raw.predict_proba(X), expected, atol=1e-4)
    items = Items(torch.from_numpy(X), y)
    loaded = StructuredClassifier(**FAST).fit(items)
    np.testing.assert_allclose(loaded.predict_proba(items), expected, atol=1e-4)
    own = CGESClassifier(make_convnet, learning_rate=1e-6, **FAST)
    for given in (X, torch.from_numpy(X), X.astype(float), items):
        own.fit(given, None if given is items else y)
        np.testing.assert_allclose(
            own.predict_proba(given), own.predict_proba(X.astype(float)), atol=1e-6
        )
