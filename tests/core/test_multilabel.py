"""Several labels per sample: an indicator in, logistic units, an indicator out."""

import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.special import expit
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.exceptions import DataConversionWarning
from sklearn.metrics import average_precision_score, get_scorer, roc_auc_score
from sklearn.preprocessing import scale
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    DropClusterClassifier,
)
from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.core.losses import WeightedLoss
from sklearn_structreg.core.task import Task

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
    loss = WeightedLoss(Task.LABELS)
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
    assert (model.predict(X) == y).mean() > 0.85


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
    with pytest.raises(ValueError, match=r"of 3 labels, but classes are \[0, 1,"):
        model.partial_fit(X, y[:, :3])


ESTIMATORS = [
    StructuredClassifier(**FAST),
    CGESClassifier(**FAST),
    BlockoutClassifier(**FAST),
    DropClusterClassifier(image_shape=(1, 4, 5), **FAST),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_every_method_takes_several_labels(several, estimator):
    X, y = several
    model = clone(estimator).set_params(early_stopping=True).fit(X, y)
    logits = model.decision_function(X)
    np.testing.assert_allclose(model.predict_proba(X), expit(logits))
    np.testing.assert_array_equal(model.predict(X), logits > 0)
    assert model.score(X, y) == np.mean(((logits > 0) == y).all(axis=1))
    for name, metric in (
        ("average_precision", average_precision_score),
        ("roc_auc_ovr", roc_auc_score),
    ):
        assert get_scorer(name)(model, X, y) == pytest.approx(metric(y, logits))
    with pytest.raises(ValueError, match="class_weight is for one label"):
        clone(estimator).set_params(class_weight="balanced").fit(X, y)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_every_method_goes_on_from_a_pickle(several, estimator):
    X, y = several
    one = clone(estimator).partial_fit(X, y, classes=np.arange(4))
    two = pickle.loads(pickle.dumps(one))
    for model in (one, two):
        model.partial_fit(X, y)
    assert one.n_iter_ == 2
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))


def test_a_label_that_is_always_or_never_true_is_learned_as_such(several):
    X, y = several
    y = np.column_stack([y, np.ones(300, int), np.zeros(300, int)])
    model = StructuredClassifier(max_epochs=30, random_state=0).fit(X, y)
    assert model.predict(X)[:, 4:].tolist() == [[1, 0]] * 300


def test_datasets_and_parts_of_them_hold_indicators(several):
    X, y = several
    dataset = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    parts = [Subset(dataset, list(range(i, 300, 3))) for i in range(3)]
    expected = StructuredClassifier(**FAST).fit(dataset).predict_proba(X)
    for other in (ConcatDataset([dataset]), Subset(dataset, list(range(300)))):
        model = StructuredClassifier(**FAST).fit(other)
        np.testing.assert_array_equal(model.predict_proba(X), expected)
    model = StructuredClassifier(**FAST).fit(parts[1])
    assert model.multilabel_
    assert model.predict(parts[0]).shape == (100, 4)


def test_one_column_is_one_label_of_two_classes(several):
    X, y = several
    with pytest.warns(DataConversionWarning, match="column-vector"):
        model = StructuredClassifier(**FAST).fit(X, y[:, :1])
    assert not model.multilabel_
    assert model.predict_proba(X).shape == (300, 2)


@pytest.mark.parametrize("classes", [list("abcd"), [1, 2, 3, 4], [0, 1, 2]])
def test_the_classes_of_an_indicator_are_its_columns(several, classes):
    X, y = several
    with pytest.raises(ValueError, match="the columns' numbers, 0 to 3"):
        StructuredClassifier().partial_fit(X, y, classes=classes)


def test_what_methods_offer_beside_fit_knows_several_labels(several):
    X, y = several
    blockout = BlockoutClassifier(**FAST).fit(X, y)
    report = blockout.harden(X, y)
    assert report.score == blockout.score(X, y)
    with torch.inference_mode():
        logits = report.module(torch.from_numpy(X).float()).numpy()
    assert report.hardened_score == np.mean(((logits > 0) == y).all(axis=1))
