"""Folds: drawn by content, each class evenly, weights counted in."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold
from torch.utils.data import TensorDataset

from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.selfinformed.folds import make_folds, take_folds


def part(data):
    """The rows of a part as a set of values."""
    return sorted(map(tuple, np.asarray(data.samples)[data.rows].tolist()))


def draw(X, y, weight=None, n_folds=4, seed=0):
    n_classes = y.shape[1] if y.ndim == 2 else y.max() + 1
    return make_folds(TrainingData.from_arrays(X, y, weight), n_classes, n_folds, seed)


def data(seed, n_rows=120, n_classes=4):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 3)).astype(np.float32)
    return X, rng.permutation(np.arange(n_rows) % n_classes)


@given(st.integers(0, 10**6), st.sampled_from([2, 3, 7]))
@settings(max_examples=30, deadline=None)
def test_every_row_is_scored_once_and_each_class_is_spread_evenly(seed, n_folds):
    X, y = data(seed)
    folds = draw(X, y, n_folds=n_folds, seed=seed)
    assert sorted(np.concatenate([f.scored.rows for f in folds])) == list(range(120))
    for fold in folds:
        assert sorted([*fold.train.rows, *fold.scored.rows]) == list(range(120))
        assert np.abs(np.bincount(y[fold.scored.rows]) - 30 / n_folds).max() <= 1


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_weight_k_is_k_copies_and_order_has_no_influence(seed):
    X, y = data(seed)
    rng = np.random.default_rng(seed)
    weight = rng.integers(0, 4, size=120)
    order = rng.permutation(weight.sum())
    weighted = draw(X, y, weight.astype(float))
    copied = draw(X.repeat(weight, 0)[order], y.repeat(weight)[order])
    for one, other in zip(weighted, copied, strict=True):
        rows = X[one.scored.rows].repeat(weight[one.scored.rows], 0)
        assert part(other.scored) == sorted(map(tuple, rows.tolist()))
        assert weight[one.train.rows].min() > 0


def test_seeds_draw_differently_and_reproducibly():
    X, y = data(0)
    assert part(draw(X, y, seed=1)[0].scored) == part(draw(X, y, seed=1)[0].scored)
    assert part(draw(X, y, seed=1)[0].scored) != part(draw(X, y, seed=2)[0].scored)


def test_negative_zero_is_zero():
    X, y = data(0)
    X[:, 0] = 0.0
    negative = X.copy()
    negative[:, 0] = -0.0
    assert part(draw(X, y)[0].scored) == part(draw(negative, y)[0].scored)


def test_draws_look_random_on_a_grid():
    X = np.arange(4000, dtype=np.float64)[:, None]
    held = draw(X, np.zeros(4000, dtype=int), n_folds=2)[0].scored.rows
    counts, _ = np.histogram(held, bins=20, range=(0, 4000))
    assert 70 < counts.min() <= counts.max() < 130  # 100 +- 7 expected


@pytest.mark.parametrize("iterable", [False, True])
def test_folds_of_ones_own_count_as_scikit_learn_does(iterable):
    X, y = data(0)
    y[:2] = 4
    weight = np.ones(120)
    weight[110:] = 0
    given = TrainingData.from_arrays(X, y, weight)
    cv = KFold(4)
    folds = take_folds(given, list(cv.split(X)) if iterable else cv)
    sizes = [30 - 2, 30, 30, 20] if iterable else [28 - 2, 28, 27, 27]
    assert [fold.scored.n_rows for fold in folds] == sizes
    for fold in folds:
        assert not {*fold.scored.rows} & {*fold.train.rows}
        assert weight[fold.train.rows].all()
        assert set(y[fold.train.rows]) == {0, 1, 2, 3, 4}


def test_very_small_data_have_no_folds():
    X, y = data(0, n_rows=7)
    assert draw(X, y, n_folds=2) == []


def test_several_labels_are_held_out_by_their_rarest():
    rng = np.random.default_rng(0)
    y = (rng.random((400, 5)) < [0.03, 0.5, 0.3, 0.1, 0.6]).astype(np.int64)
    X = rng.normal(size=(400, 2))
    for fold in draw(X, y):
        shares = y[fold.scored.rows].sum(0) / y.sum(0)
        assert np.abs(shares - 0.25).max() < 0.15
    assert (y.sum(axis=1) == 0).any()  # samples without a label are welcome


@pytest.mark.parametrize("n_rows", [1, 2, 3])
@pytest.mark.parametrize("weight", [None, [100.0, 1.0, 1.0]])
def test_a_class_of_few_rows_is_in_every_training_part(n_rows, weight):
    X, y = data(0)
    y[:n_rows] = 4
    weights = np.ones(120)
    if weight is not None:
        weights[:n_rows] = weight[:n_rows]
    for seed in range(5):
        folds = draw(X, y, weights, n_folds=3, seed=seed)
        assert all(4 in y[fold.train.rows] for fold in folds)


def test_a_dataset_is_drawn_by_position():
    X, y = data(0)
    dataset = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    for fold in draw(dataset, y):
        assert np.abs(np.bincount(y[fold.scored.rows]) - 7.5).max() <= 0.5
