"""Raw samples: any scale, any offset, any precision, and the network as deployed."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.base import is_regressor
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_wine,
)
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_structreg import (
    BlockoutClassifier,
    BlockoutRegressor,
    CGESClassifier,
    CGESRegressor,
    DropClusterClassifier,
    DropClusterRegressor,
    SelfInformedClassifier,
)
from sklearn_structreg.core import StructuredClassifier, StructuredRegressor
from sklearn_structreg.core import standardization as module
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.recipe import TensorSpec
from sklearn_structreg.core.samples import check_samples
from sklearn_structreg.core.standardization import Standardize

CLASSIFIERS = (
    StructuredClassifier,
    CGESClassifier,
    BlockoutClassifier,
    DropClusterClassifier,
    SelfInformedClassifier,
)
REGRESSORS = (
    StructuredRegressor,
    CGESRegressor,
    BlockoutRegressor,
    DropClusterRegressor,
)
FAST = {"max_epochs": 5, "random_state": 0}
CPU = torch.device("cpu")


def mean_score(model, X, y):
    folds = KFold if is_regressor(model) else StratifiedKFold
    cv = folds(3, shuffle=True, random_state=0)
    return cross_val_score(model, X, y, cv=cv).mean()


def few_digits(return_X_y):
    X, y = load_digits(return_X_y=return_X_y)
    return X[:600], y[:600]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "load"),
    [
        *product(CLASSIFIERS, [load_wine, load_breast_cancer]),
        *product(CLASSIFIERS[:-1], [few_digits]),
        *product(REGRESSORS, [partial(load_diabetes, scaled=False)]),
    ],
)
def test_raw_data_is_as_good_as_scaled_data_in_every_estimator(estimator, load):
    X, y = load(return_X_y=True)
    model = estimator(random_state=0)
    if not is_regressor(model):
        model.set_params(max_epochs=25)
    scaled = mean_score(make_pipeline(StandardScaler(), model), X, y)
    for raw in (X, 255 * X + 1000):
        assert mean_score(model, raw, y) > scaled - 0.01
    assert scaled > (0.45 if is_regressor(model) else 0.93)


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer])
@pytest.mark.parametrize("change", [lambda X: X, lambda X: X + 1e9, lambda X: 255 * X])
def test_raw_tables_are_as_good_as_scaled_ones(load, change):
    X, y = load(return_X_y=True)
    net = StructuredClassifier(max_epochs=30, random_state=0)
    raw = cross_val_score(net, change(X), y, cv=3).mean()
    scaled = cross_val_score(make_pipeline(StandardScaler(), net), X, y, cv=3).mean()
    assert raw > 0.93
    assert raw > scaled - 0.01


def test_raw_targets_and_features_of_a_regressor():
    X, y = load_diabetes(return_X_y=True)
    for features in (X, 1e4 * X, X - 1e7):
        assert StructuredRegressor(random_state=0).fit(features, y).score(
            features, y
        ) == pytest.approx(0.6, abs=0.1)


def test_an_offset_that_single_precision_loses():
    X, y = load_breast_cancer(return_X_y=True)
    far = (X - X.mean(0)) / X.std(0) + 1e9
    raw = StructuredClassifier(standardize=False, **FAST)
    with pytest.raises(ValueError, match="Feature 0 of X .* lost in dtype='float32'"):
        raw.fit(far, y)
    with pytest.raises(ValueError, match="Feature 0 of X .* lost in dtype='float32'"):
        StructuredClassifier(nn.Linear(30, 2), **FAST).partial_fit(far, y, [0, 1])
    check = partial(check_samples, StructuredClassifier())
    for fine in (2.0**24 + 2 * y, 0.1 + 1e-16 * y, 1000 + far[:, 0] - 1e9):
        assert len(check(fine[:, None], dtype="float32").rows) == len(y)
    for lost in (1e9 + y, 0.1 + 1e-9 * y, (1e9 + y).tolist()):
        with pytest.raises(ValueError, match="lost in dtype='float32'"):
            check(np.reshape(lost, (-1, 1)), dtype="float32")
        check(np.reshape(lost, (-1, 1)), dtype="float64")


def test_equal_rows_are_merged_and_close_ones_are_not():
    rows = np.array([[1e9], [1e9 + 1], [1e9], [0.0], [-0.0]])
    target = np.array([0, 0, 0, 1, 1])
    merged = TrainingData.from_arrays(rows, target).with_equal_rows_merged()
    assert merged.n_rows == 3
    assert sorted(merged.weight[merged.rows]) == [1, 2, 2]
    close = np.array([[1.0], [1.0 + 1e-12]])
    same = np.ones((2, 1), np.float32)
    assert TrainingData.from_arrays(same, close).with_equal_rows_merged().n_rows == 2


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64"])
def test_numbers_of_any_type(digits, dtype):
    X = (digits[0] * 16).astype(dtype)
    model = StructuredClassifier(**FAST).fit(X, digits[1])
    reference = StructuredClassifier(**FAST).fit(digits[0], digits[1])
    np.testing.assert_allclose(
        model.predict_proba(X), reference.predict_proba(digits[0]), atol=1e-3
    )


def test_mean_and_scale_are_those_of_numpy():
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 3, 50).astype(float)
    rows = rng.normal(1e9, 3.0, size=(50, 12))
    rows[:, 4] = 7.0
    data = TrainingData.from_arrays(rows, np.zeros(50, np.int64), weight)
    flat = Standardize.of(data, TensorSpec((12,), torch.float32, CPU))
    copies = rows.repeat(weight.astype(int), axis=0)
    np.testing.assert_allclose(flat.mean, copies.mean(0), rtol=1e-15)
    scale = np.where(copies.std(0) > 0, copies.std(0), 1.0)
    np.testing.assert_allclose(1 / flat.factor, scale, rtol=1e-6)
    images = Standardize.of(data, TensorSpec((3, 2, 2), torch.float32, CPU))
    pixels = copies.reshape(-1, 3, 4)
    np.testing.assert_allclose(
        images.mean.flatten(), pixels.mean(axis=(0, 2)), rtol=1e-15
    )
    assert images.mean.shape == (3, 1, 1)


def test_large_data_is_taken_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    X = 1e9 + rng.normal(size=(101, 3, 4)) * np.array([[1.0], [1e-2], [0.0]])
    weight = rng.integers(3, size=101).astype(float)
    data = TrainingData.from_arrays(X.reshape(101, -1), np.zeros(101, int), weight)
    spec = TensorSpec((3, 4), torch.float32, CPU)
    whole = Standardize.of(data, spec)
    expected = whole(torch.from_numpy(X))
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 50)
    layer = Standardize.of(data, spec)
    torch.testing.assert_close(layer.mean, whole.mean, rtol=1e-15, atol=0)
    torch.testing.assert_close(layer.factor, whole.factor, rtol=1e-6, atol=0)
    copies = np.repeat(X, weight.astype(int), axis=0)
    np.testing.assert_allclose(1 / layer.factor[0], copies[:, 0].std(), rtol=1e-6)
    assert torch.equal(whole(torch.from_numpy(X)), expected)


@pytest.mark.parametrize("value", [0.1, 1e9 + 0.1, 0.0, -1e-300])
def test_a_constant_column_has_scale_one(value):
    X = np.random.default_rng(0).normal(size=(3001, 3))
    X[:, 1] = value
    data = TrainingData.from_arrays(X, np.zeros(len(X), np.int64))
    layer = Standardize.of(data, TensorSpec((3,), torch.float32, CPU))
    assert layer.factor[1] == 1.0
    assert abs(float(layer.mean[1]) - value) <= 1e-12 * abs(value)


def test_the_layer_keeps_its_precision_where_the_network_changes_its_own():
    layer = Standardize(np.array([1e9]), np.array([2.0])).to(torch.float32)
    assert layer.mean.dtype == torch.float64
    result = layer(torch.tensor([[1e9 + 3.0]], dtype=torch.float64))
    assert result.dtype == torch.float32
    assert result.item() == 1.5
    assert layer.double()(torch.tensor([[1e9]])).dtype == torch.float64


@pytest.mark.parametrize("image_shape", [None, (1, 8, 8), (4, 16)])
def test_deployed_networks_take_raw_samples(digits, image_shape):
    X, y = digits[0] * 16, digits[1]
    model = StructuredClassifier(image_shape=image_shape, **FAST).fit(X, y)
    rows = torch.from_numpy(X).float().reshape(-1, *model.input_shape_)
    expected = model.decision_function(X)
    small = model.compact()
    for network in (model.module_, model.simplified_module(), small.module_):
        with torch.no_grad():
            np.testing.assert_allclose(network(rows), expected, atol=1e-3)
    np.testing.assert_allclose(small.decision_function(X), expected, atol=1e-3)
    assert small.partial_fit(X, y).score(X, y) > 0.9


@pytest.mark.parametrize("estimator", [DropClusterClassifier, BlockoutClassifier])
def test_it_folds_beside_the_layers_of_methods(digits, estimator):
    X, y = digits[0] * 255, digits[1]
    model = estimator(**FAST).fit(X, y)
    plain = model.simplified_module()
    assert isinstance(plain[0], nn.Linear)
    with torch.no_grad():
        outputs = plain(torch.from_numpy(X).float())
    np.testing.assert_allclose(outputs, model.decision_function(X), atol=1e-3)


def test_it_is_for_networks_of_ours_unless_asked_for(digits):
    X, y = digits
    net = nn.Linear(64, 10)
    own = StructuredClassifier(net, **FAST).fit(X, y)
    assert not any(isinstance(part, Standardize) for part in own.module_.modules())
    asked = StructuredClassifier(net, standardize=True, **FAST).fit(255 * X, y)
    assert asked.score(255 * X, y) > 0.9


def test_datasets_and_streams(digits):
    X, y = digits[0].astype(np.float32) * 255, digits[1]
    tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    model = StructuredClassifier(**FAST).fit(tensors)
    assert model.score(X, y) > 0.9
    stream = StructuredClassifier(random_state=0)
    for _ in range(5):
        stream.partial_fit(X, y, classes=range(10))
    assert stream.score(X, y) > 0.9
