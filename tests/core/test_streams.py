"""Training on an `IterableDataset`."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.utils.data import IterableDataset, get_worker_info

from sklearn_structreg import (
    CGESClassifier,
    CGESClassifierCV,
    DropClusterClassifier,
    SelfInformedClassifier,
    StructuredClassifier,
    StructuredRegressor,
)
from sklearn_structreg.core import Training

FAST = {"max_epochs": 5, "random_state": 0}


class Stream(IterableDataset):
    """Rows in a fixed or a random order; each worker takes its share."""

    def __init__(self, X, y, *, shuffled=False, named=False, shared=True):
        self.X, self.y = X.astype(np.float32), y
        self.shuffled, self.named, self.shared = shuffled, named, shared
        self.n_passes = 0

    def __iter__(self):
        self.n_passes += 1
        rows = np.arange(len(self.X))
        if self.shuffled:
            rows = torch.randperm(len(rows)).numpy()
        worker = get_worker_info()
        if worker is not None and self.shared:
            rows = rows[worker.id :: worker.num_workers]
        for row in rows:
            x, y = self.X[row], self.y[row]
            yield {"image": x, "label": y} if self.named else (x, y)


@pytest.fixture(scope="module")
def rows(digits):
    X, y = digits
    return X[:300].copy(), y[:300].copy()


@pytest.mark.parametrize("labels", ["numbers", "strings", "indicator"])
@pytest.mark.parametrize("named", [False, True])
def test_whole_batches_train_as_arrays_do(rows, labels, named):
    X, y = rows
    y = {"numbers": y, "strings": np.array(list("zyxwvutsrq"))[y]}.get(labels)
    if labels == "indicator":
        y = (rows[1][:, None] % [2, 3, 5] == 0).astype(int)
    model = StructuredClassifier(
        batch_size=None, dtype="float64", standardize=False, **FAST
    )
    stream = Stream(X, y, named=named)
    found = clone(model).fit(stream).predict_proba(X)
    expected = clone(model).fit(stream.X, y).predict_proba(X)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_numbers_and_standardized_samples(rows):
    X, y = rows
    model = StructuredRegressor(batch_size=None, dtype="float64", **FAST)
    stream = Stream(X, y + 0.5)
    found = clone(model).fit(stream).predict(X)
    np.testing.assert_allclose(found, clone(model).fit(stream.X, y + 0.5).predict(X))


def test_a_random_order_follows_the_seed(rows):
    fits = []
    for seed in (0, 0, 1):
        model = StructuredClassifier(batch_size=50, **FAST | {"random_state": seed})
        fits.append(model.fit(Stream(*rows, shuffled=True)))
    first, again, other = (each.predict_proba(rows[0]) for each in fits)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    losses = fits[0].history_[:, "train_loss"]
    assert losses[-1] < 0.7 * losses[0]


def test_labels_stay_with_their_items(rows):
    X, y = rows
    model = StructuredClassifier(batch_size=50, max_epochs=30, random_state=0)
    assert model.fit(Stream(X, y, shuffled=True)).score(X, y) > 0.97


def test_a_pass_for_the_labels_and_one_for_each_epoch(rows):
    stream = Stream(*rows)
    StructuredClassifier(standardize=False, **FAST).fit(stream)
    # Of the labels, the first rows, and five epochs.
    assert stream.n_passes == 1 + 1 + 5


@pytest.mark.parametrize("n_workers", [1, 2])
def test_workers_that_share_the_items(rows, n_workers):
    X, y = rows
    training = Training(loader_params={"num_workers": n_workers})
    model = StructuredClassifier(batch_size=64, training=training, **FAST)
    fits = [clone(model).fit(Stream(X, y)).predict_proba(X) for _ in range(2)]
    np.testing.assert_array_equal(*fits)
    assert (fits[0].argmax(axis=1) == y).mean() > 0.8


def test_workers_that_do_not_share_them_are_an_error(rows):
    training = Training(loader_params={"num_workers": 2})
    with pytest.raises(ValueError, match="let each take its share"):
        StructuredClassifier(training=training, **FAST).fit(Stream(*rows, shared=False))


@pytest.mark.parametrize("kind", [CGESClassifier, DropClusterClassifier])
def test_methods_with_validation_data(rows, kind):
    X, y = rows
    model = kind(early_stopping=True, image_shape=(8, 8), class_weight="balanced")
    model.set_params(**FAST | {"max_epochs": 20})
    model.fit(Stream(X[:200], y[:200]), eval_set=Stream(X[200:], y[200:]))
    assert model.score(X[200:], y[200:]) > 0.8
    assert "valid_loss" in model.history_[-1]


def test_predictions_in_the_order_of_the_stream(rows):
    X, y = rows
    model = StructuredClassifier(**FAST).fit(X, y)
    found = model.predict_proba(Stream(X[:30], y[:30]))
    np.testing.assert_allclose(found, model.predict_proba(X[:30]), atol=1e-6)


def test_a_single_pass_of_partial_fit(rows):
    X, y = rows
    model = StructuredClassifier(random_state=0)
    for _ in range(10):
        model.partial_fit(Stream(X, y), classes=range(10))
    assert model.score(X, y) > 0.8


class Unlabelled(Stream):
    """A stream of samples alone."""

    def __iter__(self):
        return iter(self.X)


class Shrinking(Stream):
    """A stream that loses items."""

    def __iter__(self):
        rows = list(super().__iter__())
        return iter(rows if self.n_passes < 3 else rows[:-1])


BAD = {
    "y": (lambda m, X, y: m.fit(Stream(X, y), y), "order is its own"),
    "weights": (
        lambda m, X, y: m.fit(Stream(X, y), sample_weight=np.ones(300)),
        "sample_weight cannot be matched",
    ),
    "no labels": (
        lambda m, X, y: m.fit(Unlabelled(X, y)),
        "Row 0 of the dataset holds no label",
    ),
    "shrinking": (lambda m, X, y: m.fit(Shrinking(X, y)), "fewer in a later pass"),
    "a hold-out": (
        lambda m, X, y: m.set_params(early_stopping=True).fit(Stream(X, y)),
        "no rows to choose from",
    ),
    "folds": (
        lambda m, X, y: CGESClassifierCV(**FAST).fit(Stream(X, y)),
        "no rows to choose from",
    ),
    "stages": (
        lambda m, X, y: SelfInformedClassifier(**FAST).fit(Stream(X, y)),
        "no rows to choose from",
    ),
    "nothing": (lambda m, X, y: m.fit(Stream(X[:0], y[:0])), "n_samples=0"),
}


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD)
def test_what_a_stream_cannot_do(rows, call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call(StructuredClassifier(**FAST), *rows)
