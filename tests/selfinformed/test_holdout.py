"""The held-out part: drawn by content, stratified, weights counted in."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.selfinformed.holdout import hold_out


def part(data):
    """The rows of a part as a set of values."""
    return sorted(map(tuple, np.asarray(data.samples)[data.rows].tolist()))


def draw(X, y, weight=None, fraction=0.25, seed=0):
    n_classes = y.shape[1] if y.ndim == 2 else y.max() + 1
    return hold_out(
        TrainingData.from_arrays(X, y, weight), np.arange(n_classes), fraction, seed
    )


def data(seed, n_rows=120, n_classes=4):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 3)).astype(np.float32)
    return X, rng.permutation(np.arange(n_rows) % n_classes)


@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.25, 0.5]))
@settings(max_examples=30, deadline=None)
def test_each_class_loses_its_fraction_and_nothing_is_in_both_parts(seed, fraction):
    X, y = data(seed)
    split = draw(X, y, fraction=fraction, seed=seed)
    assert sorted([*split.train.rows, *split.scored.rows]) == list(range(120))
    counts = np.bincount(y[split.scored.rows])
    assert np.abs(counts - 30 * fraction).max() <= 1
    assert split.held_out.size == counts.sum()


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_weight_k_is_k_copies_and_order_has_no_influence(seed):
    X, y = data(seed)
    rng = np.random.default_rng(seed)
    weight = rng.integers(0, 4, size=120)
    order = rng.permutation(weight.sum())
    weighted = draw(X, y, weight.astype(float))
    copied = draw(X.repeat(weight, 0)[order], y.repeat(weight)[order])
    assert part(copied.scored) == sorted(
        row
        for row, k in zip(
            map(tuple, X[weighted.scored.rows].tolist()),
            weight[weighted.scored.rows],
            strict=True,
        )
        for _ in range(k)
    )
    assert weight[weighted.train.rows].min() > 0


def test_seeds_draw_differently_and_reproducibly():
    X, y = data(0)
    assert part(draw(X, y, seed=1).scored) == part(draw(X, y, seed=1).scored)
    assert part(draw(X, y, seed=1).scored) != part(draw(X, y, seed=2).scored)


def test_negative_zero_is_zero():
    X, y = data(0)
    X[:, 0] = 0.0
    negative = X.copy()
    negative[:, 0] = -0.0
    assert part(draw(X, y).scored) == part(draw(negative, y).scored)


def test_draws_look_random_on_a_grid():
    X = np.arange(4000, dtype=np.float64)[:, None]
    held = draw(X, np.zeros(4000, dtype=int), fraction=0.5).scored.rows
    counts, _ = np.histogram(held, bins=20, range=(0, 4000))
    assert 70 < counts.min() <= counts.max() < 130  # 100 +- 7 expected


def test_very_small_data_score_the_training_part():
    X, y = data(0, n_rows=12)
    split = draw(X, y)
    assert split.held_out.size == 0
    assert split.train is split.scored


def test_several_labels_are_held_out_by_their_rarest():
    rng = np.random.default_rng(0)
    y = (rng.random((400, 5)) < [0.03, 0.5, 0.3, 0.1, 0.6]).astype(np.int64)
    X = rng.normal(size=(400, 2))
    split = draw(X, y)
    shares = y[split.scored.rows].sum(0) / y.sum(0)
    assert np.abs(shares - 0.25).max() < 0.1
    assert (y.sum(axis=1) == 0).any()  # samples without a label are welcome


@pytest.mark.parametrize("several", [False, True])
def test_a_class_of_one_row_stays_in_the_training_part(several):
    X, y = data(0)
    y[0] = 4
    target = np.eye(5, dtype=np.int64)[y] if several else y
    assert 0 in draw(X, target).train.rows


def test_a_dataset_is_drawn_by_position():
    X, y = data(0)
    dataset = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    split = draw(dataset, y)
    assert np.bincount(y[split.scored.rows]).tolist() == [8, 8, 8, 8]
