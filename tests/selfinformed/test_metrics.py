"""Mean average precision at K against a brute force and scikit-learn's relatives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    make_scorer,
)
from sklearn.model_selection import GridSearchCV

from sklearn_structreg.selfinformed import mean_average_precision_at_k


def brute_force(y_true, y_score, k):
    """Walk down each sample's ranking, one place at a time; no ties."""
    results = []
    for truth, score in zip(y_true, y_score, strict=True):
        if truth.sum() == 0:
            continue
        hits, total = 0, 0.0
        for place, label in enumerate(np.argsort(-score)[:k], start=1):
            if truth[label]:
                hits += 1
                total += hits / place
        results.append(total / min(truth.sum(), k))
    return np.mean(results)


def draw(seed, n_labels=8, tied=False):
    rng = np.random.default_rng(seed)
    y = (rng.random((30, n_labels)) < 0.3).astype(int)
    y[:3] = 0
    y[3] = 1
    score = rng.random((30, n_labels))
    return y, np.round(3 * score) if tied else score


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_it_is_the_brute_force(seed, k):
    y, score = draw(seed)
    assert mean_average_precision_at_k(y, score, k=k) == pytest.approx(
        brute_force(y, score, k)
    )


@pytest.mark.parametrize("tied", [False, True])
def test_with_all_labels_it_is_label_ranking_average_precision(tied):
    y, score = draw(0, tied=tied)
    y, score = y[y.any(1)], score[y.any(1)]
    weight = np.random.default_rng(1).random(len(y))
    for sample_weight in (None, weight):
        assert mean_average_precision_at_k(
            y, score, k=8, sample_weight=sample_weight
        ) == pytest.approx(
            label_ranking_average_precision_score(y, score, sample_weight=sample_weight)
        )


def test_with_all_labels_it_is_average_precision_over_samples():
    y, score = draw(2)
    y, score = y[y.any(1)], score[y.any(1)]
    assert mean_average_precision_at_k(y, score) == pytest.approx(
        average_precision_score(y, score, average="samples")
    )


def test_one_label_is_one_over_its_rank():
    score = [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]
    y = np.array(["a", "b", "a"])
    expected = {1: 1 / 3, 2: (1 + 1 / 2) / 3, 3: (1 + 1 / 2 + 1 / 3) / 3}
    for k, value in expected.items():
        got = mean_average_precision_at_k(y, score, k=k, labels=["a", "b", "c"])
        assert got == pytest.approx(value)


def test_ties_at_the_end_of_the_best_are_the_formula_written_out():
    for seed in range(20):
        y, score = draw(seed, tied=True)
        values = []
        for truth, s in zip(y > 0, score, strict=True):
            rank = (s >= s[:, None]).sum(axis=1)
            hits = (truth & (s >= s[:, None])).sum(axis=1)
            if truth.any():
                counted = truth & (rank <= 3)
                values.append((hits / rank)[counted].sum() / min(truth.sum(), 3))
        got = mean_average_precision_at_k(y, score, k=3)
        assert got == pytest.approx(np.mean(values))


def test_weights_repeat_and_leave_out():
    y, score = draw(3)
    weight = np.arange(30) % 4
    assert mean_average_precision_at_k(
        y, score, k=3, sample_weight=weight
    ) == pytest.approx(
        mean_average_precision_at_k(y.repeat(weight, 0), score.repeat(weight, 0), k=3)
    )


def test_ties_gain_nothing_and_sparse_truth_will_do():
    score = np.zeros((2, 4))
    assert mean_average_precision_at_k([[1, 0, 0, 0], [0, 0, 0, 1]], score, k=3) == 0
    y, score = draw(4)
    assert mean_average_precision_at_k(
        sparse.csr_array(y), score, k=3
    ) == mean_average_precision_at_k(y, score, k=3)


def test_bad_input_is_one_sentence():
    with pytest.raises(ValueError, match="No sample has a true label"):
        mean_average_precision_at_k(np.zeros((2, 3)), np.ones((2, 3)))
    for k in (0, 1.5, None):
        with pytest.raises(ValueError, match="positive integer"):
            mean_average_precision_at_k([0, 1], [[1, 0], [0, 1]], k=k)
    with pytest.raises(ValueError, match="indicator of several labels"):
        mean_average_precision_at_k(np.eye(2), [0.3, 0.6])
    with pytest.raises(ValueError, match=r"1 class\(es\), not two"):
        mean_average_precision_at_k(["b", "b"], [0.3, 0.6])
    with pytest.raises(ValueError, match="label of each column in labels"):
        mean_average_precision_at_k(["a", "b"], np.ones((2, 3)))
    with pytest.raises(ValueError, match="must hold probabilities"):
        mean_average_precision_at_k([0, 1], [-1.0, 1.0])
    with pytest.raises(ValueError, match="5 columns, but X has 3"):
        mean_average_precision_at_k(np.zeros((2, 5)), np.ones((2, 3)))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_it_scores_a_grid_search(digits, n_classes):
    X, y = digits
    X, y = X[y < n_classes][:200], np.array(list("abcd"))[y[y < n_classes][:200]]
    scorer = make_scorer(
        mean_average_precision_at_k, k=2, response_method="predict_proba"
    )
    search = GridSearchCV(
        LogisticRegression(), {"C": [1e-6, 1.0]}, scoring=scorer, cv=2
    )
    search.fit(X, y)
    assert search.best_params_ == {"C": 1.0}
    assert 0.9 < search.best_score_ <= 1
