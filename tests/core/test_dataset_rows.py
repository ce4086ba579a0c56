"""Searches and validation over a torch `Dataset`."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_predict,
    learning_curve,
    train_test_split,
)
from torch.utils.data import Dataset, IterableDataset

from sklearn_structreg import (
    CGESClassifier,
    CGESClassifierCV,
    SelfInformedClassifier,
    StructuredClassifier,
)
from sklearn_structreg.core import Training, as_rows

FAST = {"max_epochs": 5, "standardize": False, "random_state": 0}


class Counting(Dataset):
    """Rows that count how often they are loaded."""

    def __init__(self, X, y):
        self.X, self.targets, self.n_loaded = X.astype(np.float32), y, 0

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        self.n_loaded += 1
        return self.X[row], self.targets[row]


@pytest.fixture
def rows(digits):
    X, y = digits
    return as_rows(Counting(X[:200], y[:200]))


def test_a_search_is_that_over_the_arrays(digits, rows):
    X, y = (part[:200] for part in digits)
    model, grid = CGESClassifier(**FAST), {"alpha": [0.1, 3]}
    search = GridSearchCV(model, grid, cv=3, scoring="accuracy")
    over_rows = clone(search).fit(rows, rows.targets)
    over_arrays = clone(search).fit(X, y)
    scores = [s.cv_results_["mean_test_score"] for s in (over_rows, over_arrays)]
    np.testing.assert_allclose(*scores)
    found = over_rows.predict_proba(rows[10:20])
    np.testing.assert_allclose(found, over_arrays.predict_proba(X[10:20]), atol=1e-6)


def test_nothing_is_loaded_before_it_is_used(rows):
    part, _ = train_test_split(rows, train_size=50, stratify=rows.targets)
    assert rows.dataset.n_loaded == 0
    StructuredClassifier(**FAST).fit(part, rows.targets[:50])
    # Beside the epochs a look at the first rows and two at the end.
    assert rows.dataset.n_loaded <= (5 + 2) * 50 + 10


def test_predictions_and_curves(digits, rows):
    X, y = (part[:200] for part in digits)
    model = StructuredClassifier(training=Training(loader_params={}), **FAST)
    found = cross_val_predict(model, rows, rows.targets, cv=3, method="predict_proba")
    expected = cross_val_predict(model, X, y, cv=3, method="predict_proba")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    sizes, *_ = learning_curve(model, rows, rows.targets, train_sizes=[0.5, 1], cv=2)
    assert list(sizes) == [50, 100]


def test_estimators_that_fit_networks_inside(rows):
    labels = rows.targets
    CGESClassifierCV(alphas=[0.1, 1], cv=2, **FAST).fit(rows, labels).predict(rows[:3])
    heads = SelfInformedClassifier(n_clusters=2, **FAST).fit(rows, labels)
    assert heads.predict(rows[:3]).shape == (3,)
    model = StructuredClassifier(early_stopping=True, **FAST)
    model.fit(rows[:150], labels[:150], eval_set=(rows[150:], labels[150:]))
    assert model.score(rows, labels) > 0.2


def test_a_stream_has_no_rows():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.zeros(3), 0)])

    with pytest.raises(TypeError, match="Stream cannot be indexed"):
        as_rows(Stream())
