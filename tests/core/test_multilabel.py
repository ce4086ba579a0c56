"""Several labels per sample: an indicator in, logistic units, an indicator out."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.special import expit
from sklearn.datasets import make_multilabel_classification
from sklearn.preprocessing import scale

from sklearn_structreg import CGESClassifier
from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.core.losses import WeightedBinaryCrossEntropy

FAST = {"max_epochs": 5, "random_state": 0}


@pytest.fixture(scope="module")
def several():
    X, y = make_multilabel_classification(300, 20, n_classes=4, random_state=0)
    return scale(X), y


def test_the_loss_is_the_log_likelihood_written_out():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(5, 3)), rng.integers(0, 2, size=(5, 3))
    weight = rng.random(5)
    p = expit(z)
    losses = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axis=1)
    loss = WeightedBinaryCrossEntropy()
    tensors = torch.from_numpy(z), torch.from_numpy(y)
    assert float(loss(*tensors)) == pytest.approx(losses.mean())
    weighted = loss(*tensors, torch.from_numpy(weight))
    assert float(weighted) == pytest.approx((losses * weight).mean())


@pytest.mark.parametrize("estimator", [StructuredClassifier, CGESClassifier])
def test_probabilities_decisions_and_labels_belong_together(several, estimator):
    X, y = several
    model = estimator(max_epochs=30, random_state=0).fit(X, y)
    logits = model.decision_function(X)
    np.testing.assert_allclose(model.predict_proba(X), expit(logits))
    np.testing.assert_array_equal(model.predict(X), logits > 0)
    assert model.multilabel_
    assert list(model.classes_) == [0, 1, 2, 3]
    assert (model.predict(X) == y).mean() > 0.9


def test_two_labels_are_two_columns(several):
    X, y = several
    model = StructuredClassifier(**FAST).fit(X, y[:, :2])
    assert model.decision_function(X).shape == (300, 2)
    assert not np.allclose(model.predict_proba(X).sum(axis=1), 1)


def test_sparse_bool_and_list_indicators_are_the_same(several):
    X, y = several
    expected = StructuredClassifier(**FAST).fit(X, y).predict_proba(X)
    for other in (sparse.csr_array(y), y.astype(bool), y.tolist(), y.astype(float)):
        model = StructuredClassifier(**FAST).fit(X, other)
        np.testing.assert_array_equal(model.predict_proba(X), expected)


def test_weight_k_is_k_copies_to_the_last_bit(several):
    X, y = several
    weight = np.random.default_rng(0).integers(0, 3, size=300)
    exact = FAST | {"dtype": "float64", "batch_size": None}
    weighted = StructuredClassifier(**exact).fit(X, y, sample_weight=weight)
    repeated = StructuredClassifier(**exact)
    repeated.fit(X.repeat(weight, 0), y.repeat(weight, 0))
    np.testing.assert_array_equal(weighted.predict_proba(X), repeated.predict_proba(X))


def test_early_stopping_records_the_share_of_rows_right_in_all_labels(several):
    X, y = several
    model = StructuredClassifier(early_stopping=True, max_epochs=20, random_state=0)
    model.fit(X, y)
    assert 0 < model.history_[-1, "valid_acc"] < 1


def test_partial_fit_takes_an_indicator_and_stays_with_it(several):
    X, y = several
    model = StructuredClassifier(random_state=0)
    for _ in range(3):
        model.partial_fit(X, y, classes=np.arange(4))
    assert model.predict(X).shape == (300, 4)
    with pytest.raises(ValueError, match="as in the first fit"):
        model.partial_fit(X, y[:, 0])
    with pytest.raises(ValueError, match="for each of 3 labels, but there were 4"):
        model.partial_fit(X, y[:, :3])


def test_bad_indicators_are_one_clear_sentence(several):
    X, y = several
    with pytest.raises(ValueError, match="values other than 0 and 1"):
        StructuredClassifier().fit(X, 2 * y)
    with pytest.raises(ValueError, match="class_weight is for one label"):
        StructuredClassifier(class_weight="balanced").fit(X, y)
