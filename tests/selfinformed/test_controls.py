"""Heads beside their controls, on the same networks and splits."""

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import make_scorer
from sklearn.model_selection import StratifiedKFold

from sklearn_structreg import SelfInformedClassifier
from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.selfinformed import (
    compare_controls,
    mean_average_precision_at_k,
)
from sklearn_structreg.selfinformed.controls import ControlTable, _contestants

FAST = {"max_epochs": 10, "random_state": 0}


@pytest.mark.parametrize("sizes", ["auto", (8, 5), ()])
def test_controls_stand_on_the_same_network_and_cost_as_much(digits, sizes):
    X, y = digits[0][:200], digits[1][:200]
    heads = SelfInformedClassifier(
        n_clusters=3, head_layer_sizes=sizes, budget=0.5, n_rounds=2, **FAST
    )
    fitted, base, longer, one, lots = _contestants(heads, X, y, seed=3)
    scores = fitted.estimator_.decision_function(X)
    np.testing.assert_array_equal(base.decision_function(X), scores)
    for control in (one, lots):
        np.testing.assert_array_equal(control.estimator_.decision_function(X), scores)
    # Ten epochs, two rounds of three, and two folds of ten on half of the rows.
    assert longer.estimator_.n_iter_ == 10 + 2 * 3 + 10
    assert [p.n_clusters_ for p in one.partitions_] == [1, 1]
    for found, drawn in zip(fitted.partitions_, lots.partitions_, strict=True):
        assert sorted(found.labels_) == sorted(drawn.labels_)
    assert lots.head_layer_sizes_ == fitted.head_layer_sizes_
    added = [m.multiply_adds_.augmented - m.multiply_adds_.base for m in (fitted, one)]
    assert lots.multiply_adds_ == fitted.multiply_adds_
    if sizes != ():  # a linear head for all classes has the width of the features
        assert 0.75 * added[0] < added[1] <= added[0]


def test_the_table_is_of_paired_differences(digits):
    X, marks = digits[0][:300], np.eye(10, dtype=int)[digits[1][:300]]
    precision = make_scorer(
        mean_average_precision_at_k, k=3, response_method="predict_proba"
    )
    heads = SelfInformedClassifier(budget=0.3, **FAST | {"max_epochs": 3})
    table = compare_controls(heads, X, marks, cv=3, scoring=precision)
    gaps = table.scores[0] - table.scores
    np.testing.assert_allclose(table.differences, gaps.mean(axis=1))
    np.testing.assert_allclose(table.errors, gaps.std(axis=1, ddof=1) / np.sqrt(3))
    assert (table.scores > 0.3).all()
    assert not hasattr(heads, "net_")
    lines = str(table).splitlines()
    assert len(lines) == 6
    assert f"{table.differences[3]:+.4f} ± {table.errors[3]:.4f}" in lines[4]


def test_a_fitted_network_and_given_splits(digits):
    X, y = digits[0][:400], digits[1][:400]
    known = StructuredClassifier(**FAST).fit(X[:200], y[:200])
    heads = SelfInformedClassifier(FrozenEstimator(known), n_clusters=2, **FAST)
    cv = list(StratifiedKFold(2).split(X[200:], y[200:]))[:1]
    table = compare_controls(heads, X[200:], y[200:], cv=cv)
    assert table.scores[1, 0] == known.score(X[200:][cv[0][1]], y[200:][cv[0][1]])
    assert np.isnan(table.errors).all()
    with pytest.raises(ValueError, match="n_clusters=0 adds no heads"):
        compare_controls(heads.set_params(n_clusters=0), X, y)


def test_the_table_shows_a_loss_as_a_loss():
    scores = np.array([[0.5, 0.7], [0.6, 0.9]])
    table = ControlTable(("heads", "base"), scores, np.array([20.0, 10.0]))
    assert "-0.1500 ± 0.0500" in repr(table)
