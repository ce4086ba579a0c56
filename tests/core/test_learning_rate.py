"""The rate that "auto" stands for."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_regression

from sklearn_structreg import (
    BlockoutClassifier,
    CGESRegressor,
    SelfInformedClassifier,
)
from sklearn_structreg.core import StructuredClassifier, StructuredRegressor
from sklearn_structreg.core.optimizers import resolve_learning_rate

# Fits of one or two epochs, for other purposes than to learn.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
ROWS, WIDE = RNG.normal(size=(40, 6)), RNG.normal(size=(40, 2000))
IMAGES = RNG.normal(size=(40, 3, 30, 30))
Y = np.arange(40) % 3


class OwnAdam(torch.optim.Adam):
    def __init__(self, params, lr=0.004):
        super().__init__(params, lr)


class NoDefault(torch.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr)


@pytest.mark.parametrize(
    ("estimator", "X", "expected"),
    [
        (StructuredClassifier(), ROWS, 0.05),
        (StructuredClassifier(), WIDE, 0.0125),
        (StructuredClassifier(), IMAGES, 0.05),
        (StructuredClassifier(optimizer=torch.optim.SGD), WIDE, 0.0125),
        (StructuredClassifier(optimizer="adam"), ROWS, 1e-3),
        (StructuredClassifier(optimizer="adamw"), WIDE, 2.5e-4),
        (StructuredClassifier(optimizer=torch.optim.RMSprop), WIDE, 0.01),
        (StructuredClassifier(optimizer=torch.optim.LBFGS), ROWS, 1.0),
        (StructuredClassifier(optimizer=OwnAdam), WIDE, 0.004),
        (StructuredClassifier(learning_rate=0.3), WIDE, 0.3),
        (StructuredRegressor(), ROWS, 1e-3),
        (CGESRegressor(), WIDE, 2.5e-4),
        (SelfInformedClassifier(n_clusters=2), WIDE, 0.0125),
    ],
)
def test_rates(estimator, X, expected):
    model = estimator.set_params(max_epochs=1).fit(X, Y)
    assert model.learning_rate_ == pytest.approx(expected)
    assert model.net_.optimizer_.param_groups[0]["lr"] == pytest.approx(expected)
    number = estimator.set_params(learning_rate=model.learning_rate_, random_state=0)
    again = number.fit(X, Y).predict(X)
    auto = estimator.set_params(learning_rate="auto" if expected != 0.3 else 0.3)
    np.testing.assert_array_equal(auto.fit(X, Y).predict(X), again)


def test_logits_have_a_multiple_of_it():
    model = BlockoutClassifier(logit_rate_factor=8.0, max_epochs=1).fit(WIDE, Y)
    rates = [group["lr"] for group in model.net_.optimizer_.param_groups]
    assert rates == pytest.approx([0.0125, 0.1])


def test_it_is_the_same_in_all_calls_and_shown_as_a_number():
    stream = StructuredClassifier().partial_fit(WIDE, Y, classes=[0, 1, 2])
    net = stream.net_
    assert stream.partial_fit(WIDE[:5], Y[:5]).net_ is net
    with pytest.raises(ValueError, match=r"learning_rate='auto' has no rate for NoDef"):
        StructuredClassifier(optimizer=NoDefault).fit(ROWS, Y)
    with pytest.raises(ValueError, match="'learning_rate' parameter"):
        StructuredClassifier(learning_rate="fast").fit(ROWS, Y)
    diverging = StructuredRegressor(
        optimizer="sgd", momentum=0.99, max_epochs=200, random_state=0
    )
    with pytest.raises(ValueError, match=r"with learning_rate=0\.0125; lower"):
        diverging.fit(WIDE, 1.0 * Y)


def test_a_wide_table_that_diverges_at_the_rate_of_a_narrow_one():
    X, y = make_regression(150, 5000, n_informative=10, noise=1.0, random_state=0)
    model = StructuredRegressor(optimizer="sgd", max_epochs=20, random_state=0)
    assert model.fit(X, y).score(X, y) > 0.9
    assert resolve_learning_rate("auto", torch.optim.SGD, 500) == 0.05
    with pytest.raises(ValueError, match=r"non-finite .* with learning_rate=0\.05"):
        model.set_params(learning_rate=0.05).fit(X, y)
