"""The estimators inside scikit-learn's own machinery."""

import io
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from rooms import ESTIMATORS
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_structreg import CGESClassifier

FAST = {"max_epochs": 10, "hidden_layer_sizes": (32,), "random_state": 0}
NAMES = np.array(["o", "i", "z", "e", "h", "s", "b", "t", "B", "g"])


@pytest.fixture(scope="module")
def table(digits):
    """Digits as a DataFrame with string labels."""
    X, y = digits
    columns = [f"pixel {i}" for i in range(64)]
    return pd.DataFrame(X[:600], columns=columns), NAMES[y[:600]]


def weights(estimator):
    return [p.detach().clone() for p in estimator.module_.parameters()]


def same_weights(a, b):
    return all((x == y).all() for x, y in zip(weights(a), weights(b), strict=True))


def test_grid_search_is_the_same_in_two_processes(table):
    X, y = table
    model = make_pipeline(StandardScaler(), CGESClassifier(**FAST))
    grid = {"cgesclassifier__alpha": [0.0, 1e-2], "cgesclassifier__penalty": ["cges"]}
    one, two = (
        GridSearchCV(model, grid, cv=3, n_jobs=n_jobs).fit(X, y) for n_jobs in (1, 2)
    )
    for key in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(one.cv_results_[key], two.cv_results_[key])
    assert one.best_score_ > 0.8
    assert set(one.predict(X)) <= set(NAMES)


def test_set_output_scaler_hands_its_column_names_on(table):
    X, y = table
    scaler = StandardScaler().set_output(transform="pandas")
    model = make_pipeline(scaler, CGESClassifier(**FAST)).fit(X, y)
    np.testing.assert_array_equal(model[-1].feature_names_in_, X.columns)
    with pytest.raises(ValueError, match="feature names should match"):
        model[-1].predict(X[X.columns[::-1]])


def test_calibration(digits):
    X, y = digits
    calibrated = CalibratedClassifierCV(CGESClassifier(**FAST), cv=2).fit(X, y)
    probabilities = calibrated.predict_proba(X)
    assert probabilities.shape == (len(X), 10)
    assert calibrated.score(X, y) > 0.8


def test_cross_val_predict_gives_probabilities_of_all_classes(table):
    X, y = table
    scores = cross_val_predict(
        CGESClassifier(**FAST), X, y, cv=3, method="predict_proba"
    )
    assert scores.shape == (600, 10)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-12)


def test_permutation_importance_finds_the_informative_features():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4))
    y = X[:, 2] > 0
    model = CGESClassifier(max_epochs=30, random_state=0).fit(X, y)
    importances = permutation_importance(model, X, y, random_state=0).importances_mean
    assert importances.argmax() == 2


def test_metadata_routing_hands_sample_weights_through(digits):
    X, y = digits[0][:400], digits[1][:400]
    weight = np.where(y < 5, 1.0, 0.0)
    with sklearn.config_context(enable_metadata_routing=True):
        net = CGESClassifier(**FAST).set_fit_request(sample_weight=True)
        model = make_pipeline(StandardScaler().set_fit_request(sample_weight=True), net)
        model.fit(X, y, sample_weight=weight)
        assert list(model.classes_) == [0, 1, 2, 3, 4]
        net.set_score_request(sample_weight=True)
        scores = cross_val_score(model, X, y, cv=2, params={"sample_weight": weight})
    assert (scores > 0.5).all()


@pytest.mark.parametrize("how", ["pickle", "joblib"])
def test_round_trip(digits, how):
    X, y = digits
    model = CGESClassifier(alpha=1e-2, **FAST).fit(X, y)
    buffer = io.BytesIO()
    if how == "pickle":
        loaded = pickle.loads(pickle.dumps(model))
    else:
        joblib.dump(model, buffer)
        buffer.seek(0)
        loaded = joblib.load(buffer)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert loaded.module_ is loaded.net_.module_
    assert loaded.sparsity_ == model.sparsity_ > 0
    assert same_weights(loaded.partial_fit(X, y), model.partial_fit(X, y))


def test_clone_is_unfitted_and_fits_alike(digits):
    X, y = digits
    model = CGESClassifier(alpha=1e-2, callbacks=[], **FAST).fit(X, y)
    copy = clone(model)
    assert not hasattr(copy, "net_")
    assert same_weights(copy.fit(X, y), model)


@pytest.mark.parametrize("kind", ESTIMATORS, ids=lambda kind: kind.__name__)
def test_an_unfitted_estimator_names_the_figure_asked_for(kind):
    figures = [n for n in dir(kind) if n.endswith("_") and n[0] != "_"]
    assert {"n_iter_", "module_", "history_"} <= {*figures}
    for name in figures:
        with pytest.raises(NotFittedError, match=f"has no {name} before it is fitted"):
            getattr(kind(), name)
    with pytest.raises(AttributeError, match=f"{kind.__name__}.* no attribute 'foo_'"):
        _ = kind().foo_


@pytest.mark.parametrize("kind", ESTIMATORS, ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_int_is_one_hidden_layer(kind, blobs):
    quick = {"max_epochs": 2, "random_state": 0}
    quick |= {"alphas": 1, "cv": 2} if hasattr(kind(), "alphas") else {}
    one, two = (kind(hidden_layer_sizes=h, **quick).fit(*blobs) for h in (5, (5,)))
    assert same_weights(one, two)
    assert any(5 in p.shape for p in weights(one))
