"""A fit that learned nothing says so once; one that learned is silent."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_wine
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklearn_structreg import BlockoutClassifier, CGESClassifier, CGESRegressor
from sklearn_structreg.core import StructuredClassifier, StructuredRegressor

FAST = {"max_epochs": 10, "random_state": 0}
RAW = {"standardize": False}
X, Y = load_wine(return_X_y=True)
NUMBERS = load_diabetes(return_X_y=True)
RARE = (np.arange(len(X)) % 60 == 0).astype(int)
NOISE = np.random.default_rng(0).integers(0, 2, len(X))


class Shifted(nn.Module):
    """Has a matrix of zeros and an empty branch, neither of which does any harm."""

    def __init__(self):
        super().__init__()
        self.body, self.branch = nn.Linear(13, 3), nn.Linear(13, 3, bias=False)
        self.shift = nn.Parameter(torch.zeros(1, 13), requires_grad=False)
        nn.init.zeros_(self.branch.weight.requires_grad_(False))

    def forward(self, x):
        return self.body(x + self.shift) + self.branch(x)


HOPELESS = [
    (StructuredClassifier(**RAW, **FAST), X, Y, "one class alone is predicted"),
    (StructuredClassifier(**RAW, **FAST), 255 * X, Y, "class frequencies alone"),
    (StructuredClassifier(learning_rate=1e-9, **FAST), X, Y, "learning_rate=1e-09"),
    (StructuredClassifier(weight_decay=30.0, **FAST), X, Y, "no better than"),
    (CGESClassifier(alpha=10, **FAST), X, Y, "no weight left.*lower alpha=10 of 'cges"),
    (
        CGESClassifier(
            alpha=5, penalty="group", optimizer="adam", learning_rate=0.05, **FAST
        ),
        X,
        Y,
        "lower alpha=5",
    ),
    (
        CGESRegressor(alpha=100, max_epochs=100, random_state=0),
        *NUMBERS,
        "lower alpha=100",
    ),
    (StructuredRegressor(learning_rate=1e-9, **FAST), *NUMBERS, "that of the mean"),
    (
        StructuredClassifier(early_stopping=True, learning_rate=1.0, **FAST),
        X,
        NOISE,
        "no epoch better than the first|no better than",
    ),
]
FINE = [
    (StructuredClassifier(**FAST), X, Y),
    (StructuredClassifier(**FAST), 255 * X, Y),
    (StructuredClassifier(**FAST), X + 1e9, Y),
    (StructuredClassifier(**FAST), X, np.ones(len(X))),
    (BlockoutClassifier(**FAST), X, np.ones(len(X))),
    (StructuredClassifier(Shifted, standardize=True, **FAST), X, Y),
    (StructuredClassifier(max_epochs=100, random_state=0), X, RARE),
    (StructuredClassifier(max_epochs=200, random_state=0), X, NOISE),
    (StructuredClassifier(**FAST), X, np.column_stack([Y == 0, Y > 0])),
    (StructuredClassifier(early_stopping=True, **FAST), X, Y),
    (StructuredClassifier(criterion=nn.MultiMarginLoss, **FAST), X, Y),
    (CGESClassifier(alpha=0.05, **FAST), X, Y),
    (StructuredRegressor(max_epochs=60, random_state=0), *NUMBERS),
    (StructuredRegressor(**FAST), NUMBERS[0], np.ones(len(NUMBERS[1]))),
    (CGESRegressor(max_epochs=60, random_state=0), *NUMBERS),
]


@pytest.mark.parametrize(("estimator", "samples", "target", "words"), HOPELESS)
def test_hopeless_settings_warn_once(estimator, samples, target, words):
    with pytest.warns(ConvergenceWarning, match=words) as caught:
        estimator.fit(samples, target)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize(("estimator", "samples", "target"), FINE)
def test_fits_that_learned_are_silent(estimator, samples, target):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator.fit(samples, target)
    assert np.isfinite(estimator.history_[-1, "train_loss"])
