"""`StrengthSearchCV` beside `GridSearchCV`."""

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, recall_score
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_structreg import CGESClassifier, CGESRegressor, StrengthSearchCV
from sklearn_structreg.core import together

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning"  # few epochs
)

ALPHA = {"alpha": [0.1, 0.5, 2.0]}
NET = CGESClassifier(dtype="float64", random_state=0, max_epochs=3)
TIMES = ("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time")


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:400], y[:400]


@pytest.fixture
def n_stacked(monkeypatch):
    """The numbers of members of all stacks of more than one."""
    found, groups_of = [], together.groups_of

    def noted(jobs):
        groups = groups_of(jobs)
        found.extend(len(group) for group in groups if len(group) > 1)
        return groups

    monkeypatch.setattr(together, "groups_of", noted)
    return found


def check(estimator, grid, data, fit_params=None, **how):
    how.setdefault("cv", 3)
    searches = [
        kind(clone(estimator), grid, **how).fit(*data, **fit_params or {})
        for kind in (GridSearchCV, StrengthSearchCV)
    ]
    expected, found = (each.cv_results_ for each in searches)
    assert expected.keys() == found.keys()
    for key in expected:
        if key == "params":
            assert expected[key] == found[key]
        elif "score" in key and key not in TIMES:
            np.testing.assert_allclose(found[key], expected[key], atol=1e-10)
    return searches


def test_results_are_those_of_grid_search(digits, n_stacked):
    one, two = check(NET, ALPHA, digits, return_train_score=True)
    assert n_stacked == [3, 3, 3]
    assert one.best_params_ == two.best_params_
    assert one.best_index_ == two.best_index_
    assert type(two.best_estimator_) is CGESClassifier
    X, _ = digits
    np.testing.assert_allclose(two.predict_proba(X), one.predict_proba(X), atol=1e-10)
    assert two.n_features_in_ == 64
    assert list(two.classes_) == list(range(10))
    assert (two.cv_results_["mean_fit_time"] > 0).all()


def test_grid_of_several_shapes(digits, n_stacked):
    grid = [
        {"alpha": [0.1, 1.0, 3.0], "hidden_layer_sizes": [(10,), (20,)]},
        {"penalty": ["group", "l1"], "learning_rate": [0.001, 0.01]},
    ]
    check(NET, grid, digits, cv=2)
    assert n_stacked == [3, 3, 4] * 2


def test_random_splits_are_drawn_once(digits):
    grid = {"random_state": [0, 1, 2]}
    cv = KFold(2, shuffle=True, random_state=np.random.RandomState(0))
    again = KFold(2, shuffle=True, random_state=np.random.RandomState(0))
    found = StrengthSearchCV(NET, grid, cv=cv).fit(*digits).cv_results_
    expected = GridSearchCV(NET, grid, cv=again).fit(*digits).cv_results_
    key = "mean_test_score"
    np.testing.assert_allclose(found[key], expected[key], atol=1e-10)


class CountingScaler(StandardScaler):
    """Counts its fits."""

    n_fits = 0

    def fit(self, X, y=None):
        type(self).n_fits += 1
        return super().fit(X, y)


def test_steps_of_a_pipeline_are_fitted_once_for_a_split(digits, n_stacked):
    pipeline = make_pipeline(CountingScaler(), PCA(random_state=0), NET)
    grid = {
        "cgesclassifier__alpha": [0.1, 0.5, 2.0],
        "pca__n_components": [10, 20],
    }
    zeros = {"scoring": lambda model, X, y: model[-1].sparsity_}
    check(pipeline, grid, digits, refit=False, **zeros)
    assert n_stacked == [3, 3] * 3
    CountingScaler.n_fits = 0
    search = StrengthSearchCV(pipeline, grid, cv=3).fit(*digits)
    assert CountingScaler.n_fits == 2 * 3 + 1
    assert isinstance(search.best_estimator_[-1], CGESClassifier)
    one = GridSearchCV(pipeline, grid, cv=3).fit(*digits)
    np.testing.assert_allclose(
        search.predict_proba(digits[0]), one.predict_proba(digits[0])
    )


def test_inside_of_a_pipeline(digits):
    search = StrengthSearchCV(NET, ALPHA, cv=2)
    pipeline = make_pipeline(StandardScaler(), search).fit(*digits)
    assert pipeline.score(*digits) > 0.5


def test_several_scores_weights_and_groups(digits):
    _, y = digits
    scoring = {
        "accuracy": "accuracy",
        "recall": make_scorer(recall_score, average="macro"),
    }
    groups = np.arange(len(y)) % 7
    weight = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
    one, two = check(
        NET,
        ALPHA,
        digits,
        {"sample_weight": weight, "groups": groups},
        scoring=scoring,
        refit="recall",
        cv=GroupKFold(3),
    )
    assert one.best_params_ == two.best_params_
    assert two.multimetric_


def test_callable_refit(digits):
    one, two = check(NET, ALPHA, digits, refit=lambda results: 1)
    assert one.best_params_ == two.best_params_ == {"alpha": 0.5}


def test_metadata_routing(digits):
    _, y = digits
    weight = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
    with sklearn.config_context(enable_metadata_routing=True):
        net = clone(NET).set_fit_request(sample_weight=True)
        net.set_score_request(sample_weight=False)
        check(net, ALPHA, digits, {"sample_weight": weight}, cv=2)


@pytest.mark.filterwarnings("ignore:One or more of the test scores:UserWarning")
def test_a_candidate_that_fails(digits):
    grid = {"learning_rate": [0.001, 1e300, 0.01]}
    with pytest.warns(FitFailedWarning, match="1e\\+300"):
        search = StrengthSearchCV(NET, grid, cv=2).fit(*digits)
    scores = search.cv_results_["mean_test_score"]
    assert list(np.isnan(scores)) == [False, True, False]
    with pytest.raises(ValueError, match="lower learning_rate"):
        StrengthSearchCV(NET, grid, cv=2, error_score="raise").fit(*digits)


def test_regressors_and_other_estimators(digits, n_stacked):
    X, y = digits
    net = CGESRegressor(dtype="float64", random_state=0, max_epochs=3)
    check(net, ALPHA, (X, y / 3.0), cv=KFold(2))
    assert n_stacked == [3, 3]
    check(LogisticRegression(max_iter=200), {"C": [0.01, 0.1]}, digits, cv=2)


def test_splits_in_parallel(digits):
    how = {"cv": 2, "refit": False}
    alone = StrengthSearchCV(NET, ALPHA, **how).fit(*digits).cv_results_
    search = StrengthSearchCV(NET, ALPHA, n_jobs=2, **how)
    with joblib.parallel_config(backend="threading"):
        spread = search.fit(*digits).cv_results_
    np.testing.assert_array_equal(alone["mean_test_score"], spread["mean_test_score"])
