"""The range test of learning rates."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    CGESClassifierCV,
    DropClusterClassifier,
    SelfInformedClassifier,
    StructuredClassifier,
)
from sklearn_structreg.baselines import L2SP, Dropout
from sklearn_structreg.core import LearningRateDisplay

X, Y = (part[:300] for part in load_digits(return_X_y=True))


def zeros(input_shape, n_outputs):
    layer = nn.Linear(input_shape[0], n_outputs).double()
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def test_losses_against_a_bare_loop():
    model = StructuredClassifier(
        zeros, batch_size=None, dtype="float64", momentum=0.5, random_state=0
    )
    found = LearningRateDisplay.from_estimator(
        model, X, Y, lowest=1e-4, highest=1e-2, n_steps=30
    )
    layer, rates = zeros((64,), 10), np.geomspace(1e-4, 1e-2, 30)
    optimizer = torch.optim.SGD(layer.parameters(), momentum=0.5)
    average, expected = 0.0, []
    for step, rate in enumerate(rates, 1):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(layer(torch.tensor(X)), torch.tensor(Y))
        loss.backward()
        optimizer.step()
        average = 0.9 * average + 0.1 * loss.item()
        expected.append(average / (1 - 0.9**step))
    np.testing.assert_allclose(found.rates, rates)
    np.testing.assert_allclose(found.losses, expected)


def test_the_suggestion():
    rates = np.geomspace(1e-4, 1, 5)
    steep = LearningRateDisplay(rates, [3, 2.9, 1, 0.9, 5])
    # Central differences: the steepest point is the second (3 to 1).
    assert steep.suggestion == pytest.approx(1e-3)
    late = LearningRateDisplay(rates, [3, 2.9, 2.8, 1, 5])
    assert late.suggestion == pytest.approx(1e-2)
    cliff = LearningRateDisplay(rates, [3, 3, 3, 1, 3])
    assert cliff.suggestion == pytest.approx(1e-2)  # a tenth of the lowest's rate


@pytest.mark.parametrize(
    "model",
    [
        StructuredClassifier(regularizers=[Dropout(0.2), L2SP(0.1)], random_state=0),
        CGESClassifier(optimizer="adam", random_state=0),
        BlockoutClassifier(random_state=0),
        DropClusterClassifier(image_shape=(8, 8), random_state=0),
    ],
)
def test_a_fit_at_the_suggestion_learns_and_the_estimator_stays(model):
    before = model.get_params()
    display = LearningRateDisplay.from_estimator(model, X, Y)
    assert model.get_params() == before
    assert not hasattr(model, "net_")
    assert display.rates[-1] < 10  # it diverged before
    again = LearningRateDisplay.from_estimator(model, X, Y)
    np.testing.assert_array_equal(display.losses, again.losses)
    model.set_params(learning_rate=display.suggestion, max_epochs=30)
    assert model.fit(X[:200], Y[:200]).score(X[200:], Y[200:]) > 0.8


def test_the_plot():
    display = LearningRateDisplay.from_estimator(CGESClassifier(random_state=0), X, Y)
    assert display.ax_.get_xscale() == "log"
    line = display.ax_.get_lines()[0]
    np.testing.assert_array_equal(line.get_ydata(), display.losses)


@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), SelfInformedClassifier(), CGESClassifierCV()]
)
def test_other_estimators_are_refused(estimator):
    with pytest.raises(TypeError, match="does not train a single network"):
        LearningRateDisplay.from_estimator(estimator, X, Y)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"lowest": 1, "highest": 0.1}, "must rise from above 0"),
        ({"lowest": 0}, "must rise from above 0"),
        ({"n_steps": 1}, "n_steps"),
    ],
)
def test_rates_that_do_not_rise(params, words):
    with pytest.raises(ValueError, match=words):
        LearningRateDisplay.from_estimator(StructuredClassifier(), X, Y, **params)
