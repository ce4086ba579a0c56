"""Regressors: targets scaled inside and back, several of them, weights, losses."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import scale
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_structreg.core import StructuredRegressor
from sklearn_structreg.core.losses import WeightedLoss
from sklearn_structreg.core.task import Task

FAST = {"max_epochs": 5, "learning_rate": 0.01, "random_state": 0}
LINEAR = {
    "hidden_layer_sizes": (),
    "dtype": "float64",
    "batch_size": None,
    "optimizer": "sgd",
    "learning_rate": 0.1,
}


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return scale(X[:, [2, 3, 8]]), y


def test_a_linear_network_is_least_squares(diabetes):
    X, y = diabetes
    weight = 1.0 + np.arange(len(X)) % 3
    Y = np.column_stack([y, -1e6 * y + X[:, 0], np.full(len(y), 7.0)])
    model = StructuredRegressor(**LINEAR, max_epochs=400)
    model.fit(X, Y, sample_weight=weight)
    expected = LinearRegression().fit(X, Y, sample_weight=weight).predict(X)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-6)


def test_targets_of_any_unit_give_the_same_network(diabetes):
    X, y = diabetes
    one = StructuredRegressor(dtype="float64", **FAST).fit(X, y)
    two = StructuredRegressor(dtype="float64", **FAST).fit(X, 1e6 * y - 1e8)
    np.testing.assert_allclose(two.predict(X), 1e6 * one.predict(X) - 1e8, rtol=1e-6)


def test_a_target_has_the_shape_that_it_had_in_fit(diabetes):
    X, y = diabetes
    assert StructuredRegressor(**FAST).fit(X, y).predict(X).shape == y.shape
    column = StructuredRegressor(**FAST).fit(X, y[:, None])
    assert column.predict(X).shape == (len(y), 1)


def test_a_constant_target_is_predicted_in_its_unit(diabetes):
    X, y = diabetes
    model = StructuredRegressor(**FAST).fit(X, np.full(len(y), 1e5))
    assert model.target_scale_.tolist() == [1.0]
    np.testing.assert_allclose(model.predict(X), 1e5, atol=1)


def test_weight_k_is_k_copies(diabetes):
    X, y = diabetes
    weight = np.arange(len(X)) % 3
    exact = {"dtype": "float64", "batch_size": None, "max_epochs": 20}
    weighted = StructuredRegressor(random_state=0, **exact).fit(X, y, weight)
    copies = X.repeat(weight, axis=0), y.repeat(weight)
    repeated = StructuredRegressor(random_state=0, **exact).fit(*copies)
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-9)


def test_losses_by_hand():
    outputs = torch.tensor([[1.0, 2.0], [0.0, -3.0]], dtype=torch.float64)
    target = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    weight = torch.tensor([0.5, 1.5], dtype=torch.float64)
    squared = WeightedLoss(Task.VALUES)
    assert float(squared(outputs, target)) == pytest.approx((1 + 0 + 1 + 16) / 4)
    by_hand = (0.5 * (1 + 0) / 2 + 1.5 * (1 + 16) / 2) / 2
    assert float(squared(outputs, target, weight)) == pytest.approx(by_hand)
    for criterion in (nn.L1Loss, nn.L1Loss(), lambda a, b: (a - b).abs()):
        absolute = WeightedLoss(Task.VALUES, criterion)
        by_hand = (0.5 * (1 + 0) / 2 + 1.5 * (1 + 4) / 2) / 2
        assert float(absolute(outputs, target, weight)) == pytest.approx(by_hand)


def test_another_loss_is_minimised(diabetes):
    X, y = diabetes
    y = np.where(np.arange(len(y)) % 10 == 0, 50 * y, y)  # outliers
    settings = {**LINEAR, "max_epochs": 300, "random_state": 0}
    settings["lr_schedule"] = "cosine"
    squared = StructuredRegressor(**settings).fit(X, y)
    settings["learning_rate"] = 0.01  # the slopes of this loss never get smaller
    robust = StructuredRegressor(criterion=nn.L1Loss, **settings).fit(X, y)
    errors = [np.abs(y - model.predict(X)).mean() for model in (squared, robust)]
    assert errors[1] < 0.8 * errors[0]


def test_a_loss_that_cannot_be_weighted_says_so(diabetes):
    X, y = diabetes

    def mean(outputs, target):
        return ((outputs - target) ** 2).mean()

    model = StructuredRegressor(criterion=mean, **FAST).fit(X, y)
    assert model.score(X, y) > 0.1
    with pytest.raises(ValueError, match="to which sample weights cannot be applied"):
        model.fit(X, y, sample_weight=np.ones(len(y)) + (y > 100))


def test_a_dataset_and_a_stream(diabetes):
    X, y = diabetes
    tensors = TensorDataset(torch.from_numpy(X).float(), torch.from_numpy(y))
    from_array = StructuredRegressor(**FAST).fit(X.astype(np.float32), y)
    from_dataset = StructuredRegressor(**FAST).fit(tensors)
    np.testing.assert_array_equal(from_array.predict(X), from_dataset.predict(X))
    stream = StructuredRegressor(learning_rate=0.01, random_state=0)
    for _ in range(5):
        stream.partial_fit(X.astype(np.float32), y)
    np.testing.assert_array_equal(stream.predict(X), from_array.predict(X))
    with pytest.raises(ValueError, match=r"y has 2 target\(s\), but the first fit"):
        stream.partial_fit(X, np.column_stack([y, y]))


def test_early_stopping_on_numbers(diabetes):
    X, y = diabetes
    model = StructuredRegressor(early_stopping=True, **FAST).fit(X, y)
    assert "valid_loss" in model.history_[-1]
    assert "valid_acc" not in model.history_[-1]
