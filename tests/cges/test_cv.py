"""Strengths chosen by cross-validation, against loops by hand."""

import copy
import pickle

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.metrics import log_loss, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
)
from torch.utils.data import TensorDataset

from sklearn_structreg import (
    CGESClassifier,
    CGESClassifierCV,
    CGESRegressorCV,
)
from sklearn_structreg.core import together

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
COMMON = {
    "hidden_layer_sizes": (12,),
    "penalty": "group",
    "optimizer": "adam",
    "learning_rate": 0.01,
}
FAST = {"alphas": [0.1, 3.0], "cv": 2, "max_epochs": 4, "random_state": 0, **COMMON}


@pytest.fixture(scope="module")
def rows(digits):
    X, y = digits
    return X[:200].copy(), y[:200].copy()


@pytest.fixture(scope="module")
def weight():
    return np.random.default_rng(0).integers(0, 3, 200).astype(float)


def path_by_hand(draws, alphas, *data, warm):
    """Train at each strength; warm: every one after the first for half the epochs."""
    fitted, model = [], None
    for alpha in alphas:
        if model is None or not warm:  # every one begins with the same draws
            model = CGESClassifier(
                max_epochs=6, random_state=copy.deepcopy(draws), **COMMON
            )
        else:
            model.set_params(max_epochs=3)
        model.set_params(alpha=alpha, warm_start=warm).fit(*data)
        fitted.append(pickle.loads(pickle.dumps(model)))
    draws.randint(np.iinfo(np.int32).max)
    return fitted


@pytest.mark.parametrize("warm", [False, True], ids=["cold and weighted", "warm"])
def test_scores_are_those_of_loops_by_hand(rows, weight, warm):
    X, y = rows
    weight = None if warm else weight
    present = np.arange(200) if weight is None else np.flatnonzero(weight)
    alphas, draws = [0.1, 0.5, 3.0], np.random.RandomState(3)
    model = CGESClassifierCV(
        alphas=alphas[::-1],
        cv=3,
        warm_path=warm,
        max_epochs=6,
        random_state=3,
        **COMMON,
    ).fit(X, y, weight)
    splits = StratifiedKFold(3).split(X[present], y[present])
    for fold, (train, test) in enumerate(splits):
        train, test = present[train], present[test]
        w_train, w_test = (None if weight is None else weight[r] for r in (train, test))
        path = path_by_hand(draws, alphas, X[train], y[train], w_train, warm=warm)
        scores = [each.score(X[test], y[test], w_test) for each in path]
        np.testing.assert_array_equal(model.scores_[fold], scores)
    np.testing.assert_array_equal(model.alphas_, alphas)
    np.testing.assert_allclose(model.mean_scores_, model.scores_.mean(axis=0))
    errors = model.scores_.std(axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(model.standard_errors_, errors)
    assert len(set(model.scores_.ravel())) > 3


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_final_networks_are_trained_on_all_rows(rows, warm):
    X, y = rows
    params = {"alphas": [0.1, 0.5], "max_epochs": 6, "warm_path": warm}
    model = CGESClassifierCV(**FAST | params).fit(X, y)
    up_to = [alpha for alpha in model.alphas_ if alpha <= model.alpha_]
    draws = np.random.RandomState(0)
    by_hand = [path_by_hand(draws, up_to, X, y, warm=warm)[-1] for _ in range(2)]
    for one, two in zip(by_hand, model.estimators_, strict=True):
        assert torch.equal(one.module_[0].weight, two.module_[0].weight)
        assert type(two) is CGESClassifier
        assert two.alpha == model.alpha_
    logits = np.mean([each.decision_function(X) for each in by_hand], axis=0)
    np.testing.assert_allclose(model.decision_function(X), logits, atol=1e-5)
    single = clone(model).set_params(final="single").fit(X, y)
    np.testing.assert_array_equal(
        single.decision_function(X), by_hand[0].decision_function(X)
    )
    norms = np.mean([each.feature_importances_ for each in by_hand], axis=0)
    np.testing.assert_allclose(model.feature_importances_, norms)
    assert model.sparsity_ == pytest.approx(np.mean([m.sparsity_ for m in by_hand]))
    assert model.n_parameters_ == 2 * single.n_parameters_
    assert model.n_iter_ == 6 + 3 * (len(up_to) - 1) * warm


@pytest.mark.parametrize(
    ("scores", "best", "one_se"),
    [  # of each fold; the best mean .8 has standard errors of .1, .2 and 0
        ([[0.9, 0.8, 0.75, 0.5], [0.7, 0.6, 0.65, 0.5]], 0, 2),
        ([[0.7, 1.0, 0.65, 0.61], [0.7, 0.6, 0.65, 0.59]], 1, 3),
        ([[0.7, 0.8, 0.8, 0.79], [0.7, 0.8, 0.8, 0.79]], 2, 2),
        ([[0.1 + 0.2, 0.3, 0.1, 0.0]], 1, 1),  # equal but for rounding; one fold
    ],
)
def test_the_rule_of_one_standard_error(scores, best, one_se):
    alphas, scores = np.arange(4.0), np.array(scores)
    for selection, expected in [("best", best), ("1se", one_se)]:
        model = CGESClassifierCV(selection=selection)
        assert model._choose(alphas, scores) == expected
        assert model.alpha_ == expected
        assert model.best_score_ == scores[:, expected].mean()


@pytest.mark.parametrize("early_stopping", [False, True])
def test_strengths_and_final_networks_are_trained_as_one(
    rows, monkeypatch, early_stopping
):
    X, y = rows
    three = {"alphas": [0.1, 0.5, 3.0], "cv": 3, "scoring": "neg_log_loss"}
    model = CGESClassifierCV(dtype="float64", **FAST | three)
    model.set_params(early_stopping=early_stopping)
    sizes, groups_of = [], together.groups_of

    def noted(jobs):
        sizes.append([len(group) for group in groups_of(jobs)])
        return groups_of(jobs)

    monkeypatch.setattr(together, "groups_of", noted)
    as_one = clone(model).fit(X, y)
    assert sizes == [[3]] * 4
    monkeypatch.setattr(together, "FEWEST", 100)
    alone = clone(model).fit(X, y)
    np.testing.assert_allclose(as_one.scores_, alone.scores_, rtol=1e-8)
    expected = alone.predict_proba(X)
    np.testing.assert_allclose(as_one.predict_proba(X), expected, rtol=1e-8)
    assert len(sizes) == 4


@pytest.mark.slow
def test_folds_in_processes_change_nothing(rows):
    X, y = rows
    names = np.array([*"abcdefghij"])[y]
    one = CGESClassifierCV(**FAST).fit(X, names)
    two = clone(one).set_params(n_jobs=2).fit(X, names)
    np.testing.assert_array_equal(one.scores_, two.scores_)
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))
    assert set(one.predict(X)) <= {*"abcdefghij"}


def test_absent_rows_are_in_no_fold(rows, weight):
    X, y = rows
    present = np.flatnonzero(weight)
    for cv in (2, KFold(2, shuffle=True, random_state=0)):
        params = FAST | {"cv": cv, "scoring": "neg_log_loss"}
        model = CGESClassifierCV(**params).fit(X, y, weight)
        less = CGESClassifierCV(**params).fit(X[present], y[present], weight[present])
        np.testing.assert_allclose(model.scores_, less.scores_, rtol=1e-6)
        assert (model.scores_ < -1.0).all()
    halves = np.arange(100), np.arange(100, 200)
    params = FAST | {"cv": [halves, halves[::-1]], "scoring": "neg_log_loss"}
    counted = CGESClassifierCV(**params).fit(X, y, weight)
    by_hand = CGESClassifier(alpha=0.1, max_epochs=4, random_state=0, **COMMON)
    by_hand.fit(X[:100], y[:100], weight[:100])
    loss = log_loss(
        y[100:],
        by_hand.predict_proba(X[100:]),
        sample_weight=weight[100:],
        labels=by_hand.classes_,
    )
    assert counted.scores_[0, 0] == pytest.approx(-loss, rel=1e-5)


@pytest.mark.parametrize("kind", [CGESClassifierCV, CGESRegressorCV])
def test_groups_stay_together_and_the_scorer_gets_its_metadata(rows, weight, kind):
    X, y = rows
    groups = np.random.default_rng(1).integers(0, 20, len(X))
    present, seen = np.flatnonzero(weight), []

    def spread(y, predicted, **metadata):
        seen.append(metadata)
        return float(len(y))

    scorer = make_scorer(spread)
    params = FAST | {"alphas": [0.1], "scoring": scorer}
    by_group = GroupKFold(3)
    usual = StratifiedGroupKFold(3) if kind is CGESClassifierCV else by_group
    for cv, expected in ((3, usual), (by_group, by_group)):
        model = kind(**params | {"cv": cv}).fit(X, y, weight, groups=groups)
        splits = expected.split(present, y[present], groups[present])
        tests = [present[test] for _, test in splits]
        np.testing.assert_array_equal(model.scores_[:, 0], [len(t) for t in tests])
        for metadata, test in zip(seen, tests, strict=True):
            assert metadata.keys() == {"sample_weight"}
            np.testing.assert_array_equal(metadata["sample_weight"], weight[test])
        seen.clear()
    with sklearn.config_context(enable_metadata_routing=True):
        scorer.set_score_request(groups=True, sample_weight=False)
        model = kind(**params | {"cv": by_group})
        model.set_fit_request(sample_weight=True).fit(X, y, weight, groups=groups)
    for metadata, test in zip(seen, tests, strict=True):
        assert metadata.keys() == {"groups"}
        np.testing.assert_array_equal(metadata["groups"], groups[test])
    indifferent = KFold(3)  # would warn of groups
    kind(**FAST | {"cv": indifferent}).fit(X, y, groups=groups)


def test_numbers_tables_datasets_and_several_labels(rows):
    X, y = rows
    numbers = CGESRegressorCV(**FAST | {"max_epochs": 30}).fit(X, X[:, :2] @ [[1], [2]])
    assert numbers.score(X, X[:, :2] @ [[1], [2]]) > 0.3
    assert numbers.scores_.max() == numbers.scores_[:, 0].max() > 0
    two = CGESRegressorCV(**FAST).fit(X, X[:, 2:4])
    assert two.predict(X).shape == (200, 2)
    labels = np.column_stack([y > 4, y % 2])
    assert CGESClassifierCV(**FAST).fit(X, labels).predict(X).shape == (200, 2)
    dataset = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    of_dataset, of_rows = (
        CGESClassifierCV(**FAST).fit(*data) for data in [(dataset,), (X, y)]
    )
    np.testing.assert_array_equal(of_dataset.scores_, of_rows.scores_)
    images = CGESClassifierCV(**FAST).fit(X.reshape(-1, 8, 8), y)
    assert images.input_shape_ == (1, 8, 8)


def test_a_class_that_a_fold_lacks(rows):
    X, y = rows
    y = np.where(np.arange(200) < 100, y % 2, y % 2 + 2)
    model = CGESClassifierCV(**FAST | {"cv": KFold(2)}).fit(X, y)
    assert (model.scores_ < 0.25).all()
    np.testing.assert_array_equal(model.classes_, [0, 1, 2, 3])


def test_files_pickles_and_compaction(rows, tmp_path):
    X, y = rows
    for final in ("average", "single"):
        model = CGESClassifierCV(final=final, **FAST | {"alphas": [0.8]}).fit(X, y)
        with sklearn.config_context(enable_metadata_routing=True):
            model.set_fit_request(groups=True)
        model.save(tmp_path / "model")
        for other in (
            CGESClassifierCV.load(tmp_path / "model"),
            pickle.loads(pickle.dumps(model)),
        ):
            np.testing.assert_array_equal(
                other.predict_proba(X), model.predict_proba(X)
            )
            np.testing.assert_array_equal(other.scores_, model.scores_)
            requests = other._get_metadata_request().fit.requests
            assert requests["groups"]
            assert len(other.estimators_) == len(model.estimators_)
            assert other.alpha_ == 0.8
        smaller = model.compact()
        assert len(smaller.estimators_) == len(model.estimators_)
        smaller.save(tmp_path / "smaller")
        loaded = CGESClassifierCV.load(tmp_path / "smaller")
        for each in (smaller, loaded):
            assert each.n_parameters_ <= model.n_parameters_
            np.testing.assert_allclose(
                each.decision_function(X), model.decision_function(X), atol=1e-4
            )
        assert model.size_report(X, n_repeats=0).n_parameters == model.n_parameters_


def test_in_a_grid_search(rows):
    grid = {"hidden_layer_sizes": [(4,), (8,)]}
    search = GridSearchCV(CGESClassifierCV(**FAST), grid, cv=2).fit(*rows)
    assert search.best_estimator_.scores_.shape == (2, 2)
    assert not hasattr(search.best_estimator_, "partial_fit")
