"""Sparse X: the same results as from dense rows, and dense mini-batches alone."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetClassifier

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    CGESClassifierCV,
    CGESRegressor,
    CGESSelector,
    DropClusterClassifier,
    SelfInformedClassifier,
    StructuredClassifier,
)
from sklearn_structreg.core import batches, data, standardization, training
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.recipe import TensorSpec
from sklearn_structreg.core.samples import check_samples
from sklearn_structreg.core.sparse_rows import SparseTensor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FAST = {"max_epochs": 4, "random_state": 0}
EXACT = {"dtype": "float64", **FAST}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    """Return rows with many zeros, and many values alike."""
    X, y = load_digits(return_X_y=True)
    return np.where(X < 8, 0, X)[:400], y[:400]


@pytest.mark.parametrize(
    "estimator",
    [
        StructuredClassifier(batch_size=None, **EXACT),
        CGESClassifier(early_stopping=True, **EXACT),
        CGESClassifierCV(alphas=[0.1, 1.0], cv=2, **EXACT),
        BlockoutClassifier(standardize=False, **EXACT),
        DropClusterClassifier(image_shape=(8, 8), **EXACT),
        DropClusterClassifier(**EXACT),
        SelfInformedClassifier(n_clusters=2, cv=2, **EXACT),
        CGESRegressor(**EXACT),
    ],
    ids=repr,
)
def test_a_fit_is_that_of_dense_rows(digits, estimator):
    X, y = digits
    models = []
    for given in (X, sparse.csr_array(X)):
        model = clone(estimator)
        held_out = given[300:], y[300:]
        model.fit(given[:300], y[:300], np.arange(300) % 3, eval_set=held_out)
        if hasattr(model, "partial_fit") and not model.early_stopping:
            model.partial_fit(given[:50], y[:50])
        models.append(model)
    dense, own = models
    for name in ("predict", "predict_proba", "decision_function"):
        if hasattr(dense, name):
            found = getattr(own, name)(sparse.csc_matrix(X))
            np.testing.assert_array_equal(found, getattr(dense, name)(X))
    assert own.score(sparse.csr_array(X), y) == dense.score(X, y)


def test_features_are_ranked_as_those_of_dense_rows(digits):
    X, y = digits[0][:, 16:32], digits[1]
    selector = CGESSelector(5, estimator=CGESClassifier(**EXACT), random_state=0)
    dense = clone(selector).fit(X, y)
    own = selector.fit(sparse.coo_array(X), y)
    assert np.array_equal(own.ranking_, dense.ranking_)
    assert np.array_equal(
        own.transform(sparse.csr_array(X)).toarray(), X[:, own.support_]
    )


def training_data(X, **known):
    rows = check_samples(StructuredClassifier(), X, np.arange(X.shape[0]), dtype=None)
    return TrainingData.from_arrays(rows.rows, np.arange(X.shape[0]), **known)


@pytest.mark.parametrize(
    "change",
    [
        sparse.dia_array,
        lambda X: sparse.csr_array(X, dtype=np.float32),
        lambda X: sparse.csr_array(X) * 2 - sparse.csr_array(X),
        # every entry in two halves
        lambda X: sparse.csr_matrix(
            (
                np.repeat(X[X != 0], 2) / 2,
                np.repeat(np.nonzero(X)[1], 2),
                2 * sparse.csr_array(X).indptr,
            ),
            shape=X.shape,
        ),
    ],
    ids=["diagonals", "single precision", "sum", "halves"],
)
def test_batches_are_those_of_dense_rows(change, digits):
    X = change(digits[0][:30])
    before = X.copy()
    weight = np.arange(30.0) % 4
    parts = []
    for given in (X.toarray(), X):
        found = training_data(given, weight=weight)
        spec = TensorSpec((1, 8, 8), torch.float32, CPU)
        for size in (7, 64):
            epoch = found.batches(spec, batch_size=size, normalize=True).epoch(3)
            parts.append([tensor for batch in epoch for tensor in batch])
    for dense, own in zip(parts[:2], parts[2:], strict=True):
        assert all(map(torch.equal, dense, own))
    assert (before != X).nnz == 0
    assert X.nnz == before.nnz


def test_never_are_more_rows_dense_than_a_batch_or_a_block(digits, monkeypatch):
    X, y = digits
    block = 16 * 64 * 8
    monkeypatch.setattr(batches, "BLOCK_BYTES", block)
    monkeypatch.setattr(data, "BLOCK_BYTES", block)
    for room, name in (training, "PREDICTION"), (standardization, "BLOCK"):
        monkeypatch.setattr(room, f"{name}_ENTRIES", 16 * 64)
    sizes = []

    def counting(kind, name):
        whole = getattr(kind, name)

        def counted(self, *args, **params):
            dense = whole(self, *args, **params)
            sizes.append(len(dense))
            return dense

        monkeypatch.setattr(kind, name, counted)

    counting(SparseTensor, "index_select")
    counting(sparse.csr_array, "toarray")
    model = CGESClassifier(batch_size=20, early_stopping=True, **FAST)
    model.fit(sparse.csr_array(X), y).predict_proba(sparse.csr_array(X))
    assert max(sizes) <= 20
    assert sum(sizes) > 4 * 400


WORDS = ["tin", "lead", "iron", "zinc"], ["oak", "elm", "ash", "yew"]


def test_text_in_a_pipeline_with_a_search_and_a_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    X = [" ".join(rng.choice(WORDS[k], 3)) + " and" for k in y]
    model = make_pipeline(TfidfVectorizer(), CGESClassifier(**FAST))
    search = GridSearchCV(model, {"cgesclassifier__alpha": [0.01, 0.1]}, cv=2)
    assert search.fit(X, y).best_score_ > 0.95
    model.set_params(cgesclassifier__checkpoint=tmp_path / "folder")
    first = model.fit(X, y).predict_proba(X)
    assert np.array_equal(model.fit(X, y).predict_proba(X), first)
    with pytest.raises(ValueError, match="another fit, which differs in X"):
        model.fit([*X[:-2], X[-1], X[-2]], y)


def test_a_net_of_skorch_takes_dense_rows(digits):
    X, y = digits
    net = NeuralNetClassifier(torch.nn.Linear(64, 10))
    with pytest.raises(ValueError, match="NeuralNetClassifier would get all of X den"):
        SelfInformedClassifier(net, n_clusters=2).fit(sparse.csr_array(X), y)


@pytest.mark.parametrize(
    ("value", "params", "words"),
    [
        (np.nan, {}, "Input X contains NaN"),
        (0.5, {"dtype": "float32", "standardize": False}, "Feature 0 of X has values"),
    ],
    ids=["NaN", "offset"],
)
def test_bad_entries(value, params, words, digits):
    X, y = digits
    X = X.copy()
    X[:, 0] = 1e9
    X[::2, 0] += value
    with pytest.raises(ValueError, match=words):
        StructuredClassifier(**FAST, **params).fit(sparse.csr_array(X), y)
