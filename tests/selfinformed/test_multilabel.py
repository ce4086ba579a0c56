"""Several labels per sample, from the split to the heads."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import get_scorer, make_scorer
from sklearn.model_selection import GridSearchCV
from torch.utils.data import TensorDataset

from sklearn_structreg import SelfInformedClassifier
from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.selfinformed import mean_average_precision_at_k

HEADS = {"n_clusters": 3, "head_layer_sizes": (8,), "head_epochs": 1.0}
FAST = {"max_epochs": 5, "random_state": 0}


@pytest.fixture(scope="module")
def several(digits):
    """Digits with 13 labels: the digit, and whether it is odd, prime or above 4."""
    X, y = digits[0][:600], digits[1][:600]
    marks = np.zeros((600, 13), dtype=np.int64)
    marks[np.arange(600), y] = 1
    marks[:, 10], marks[:, 11], marks[:, 12] = y % 2, np.isin(y, (2, 3, 5, 7)), y > 4
    return X, marks


@pytest.fixture(scope="module")
def base(several):
    return StructuredClassifier(max_epochs=20, random_state=0).fit(*several)


def test_no_groups_is_the_plain_net_bit_for_bit(several):
    X, y = several
    plain = StructuredClassifier(**FAST).fit(X, y)
    off = SelfInformedClassifier(n_clusters=0, **FAST).fit(X, y)
    np.testing.assert_array_equal(off.predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize("source", ["confusion", "codetection", "random"])
def test_logistic_units_with_heads(several, base, source):
    X, y = several
    model = SelfInformedClassifier(base, source=source, **HEADS)
    model.set_params(max_epochs=20, random_state=0).fit(X, y)
    logits = model.decision_function(X)
    np.testing.assert_allclose(model.predict_proba(X), expit(logits))
    np.testing.assert_array_equal(model.predict(X), logits > 0)
    assert mean_average_precision_at_k(y, logits, k=5) > 0.95
    assert sorted(np.concatenate(model.partition_.groups_)) == list(range(13))


def test_confusions_and_misses_are_counted_with_several_true_labels(several, base):
    X, y = several
    model = SelfInformedClassifier(base, cv=None, top_k=4, **HEADS, **FAST)
    model.fit(X, y)
    scores = base.decision_function(X)
    rank = (-scores).argsort(axis=1).argsort(axis=1)
    expected = y.T @ (rank < 4) / len(X)
    np.testing.assert_allclose(model.partition_.confusion_.toarray(), expected)
    missed = rank >= y.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        model.partition_.miss_rate_, (y * missed).sum(axis=0) / y.sum(axis=0)
    )


def test_weight_k_is_k_copies_with_folds(several):
    X, y = several
    weight = np.random.default_rng(0).integers(0, 3, size=len(X))
    settings = HEADS | FAST | {"dtype": "float64", "batch_size": None}
    weighted = SelfInformedClassifier(**settings).fit(X, y, sample_weight=weight)
    copied = SelfInformedClassifier(**settings)
    copied.fit(X.repeat(weight, 0), y.repeat(weight, 0))
    assert weighted.n_folds_ == 2
    np.testing.assert_allclose(
        weighted.predict_proba(X), copied.predict_proba(X), rtol=1e-10
    )


def test_a_dataset_with_an_indicator_is_trained_on_as_an_array_is(several):
    X, y = several
    dataset = TensorDataset(torch.from_numpy(X.copy()), torch.from_numpy(y))
    model = SelfInformedClassifier(**HEADS).set_params(max_epochs=20, random_state=0)
    model.fit(dataset)
    assert model.n_folds_ == 2
    assert (model.predict(dataset) == y).mean() > 0.9


def test_samples_without_a_label_are_samples(several):
    X, y = several
    y = y.copy()
    y[:50] = 0
    model = SelfInformedClassifier(**HEADS, **FAST).fit(X, y)
    assert model.predict(X).shape == y.shape


def test_a_base_of_one_label_is_an_error(several, base):
    X, y = several
    one = StructuredClassifier(**FAST).fit(X, np.arange(600) % 13)
    with pytest.raises(ValueError, match="several labels"):
        SelfInformedClassifier(one, **HEADS).fit(X, y)
    with pytest.raises(ValueError, match="several labels"):
        SelfInformedClassifier(base, **HEADS).fit(X, np.arange(600) % 13)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_grid_search_scores_mean_average_precision(several):
    X, y = several
    scorer = make_scorer(
        mean_average_precision_at_k, k=3, response_method="predict_proba"
    )
    model = SelfInformedClassifier(**HEADS, **FAST)
    search = GridSearchCV(model, {"learning_rate": [1e-6, 0.05]}, scoring=scorer, cv=2)
    search.fit(X, y)
    assert search.best_params_ == {"learning_rate": 0.05}


def test_two_labels_are_scored_by_their_decisions(several):
    X, y = several[0], several[1][:, 10:12]
    model = SelfInformedClassifier(head_layer_sizes=(8,), **FAST).fit(X, y)
    scorer = make_scorer(
        mean_average_precision_at_k, k=1, response_method="decision_function"
    )
    expected = mean_average_precision_at_k(y, model.predict_proba(X), k=1)
    assert scorer(model, X, y) == expected
    assert get_scorer("roc_auc")(model, X, y) > 0.5
