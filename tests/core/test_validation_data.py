"""Validation data and groups in `fit`."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import Dataset

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    CGESClassifierCV,
    DropClusterClassifier,
    StructuredClassifier,
    StructuredRegressor,
)

FAST = {"max_epochs": 8, "random_state": 0}


@pytest.fixture(scope="module")
def parts():
    """Return training and validation rows of digits."""
    X, y = load_digits(return_X_y=True)
    X, X_val, y, y_val = train_test_split(X, y, train_size=600, random_state=0)
    return X, y, X_val[:300], y_val[:300]


@pytest.mark.parametrize(
    "estimator",
    [
        StructuredClassifier(**FAST),
        CGESClassifier(**FAST),
        BlockoutClassifier(**FAST),
        DropClusterClassifier(image_shape=(8, 8), **FAST),
    ],
)
def test_the_loss_is_that_of_the_given_rows(parts, estimator):
    X, y, X_val, y_val = parts
    model = clone(estimator).fit(X, y, eval_set=(X_val, y_val))
    loss = log_loss(y_val, model.predict_proba(X_val))
    assert model.history_[-1]["valid_loss"] == pytest.approx(loss, rel=1e-5)


def test_all_rows_are_trained_on_and_the_best_epoch_comes_back(parts):
    X, y, X_val, y_val = parts
    # Wrong labels make the validation loss rise sooner or later.
    worse = np.where(np.arange(300) % 3 == 0, (y_val + 1) % 10, y_val)
    params = FAST | {"max_epochs": 60}
    plain = StructuredClassifier(**params).fit(X, y, eval_set=(X_val, worse))
    losses = plain.history_[:, "valid_loss"]
    assert plain.n_iter_ == 60
    best = int(np.argmin(losses))
    assert best < 49
    stopped = StructuredClassifier(early_stopping=True, **params)
    stopped.fit(X, y, eval_set=(X_val, worse))
    assert stopped.n_iter_ == best + 11
    assert stopped.history_[:, "valid_loss"] == losses[: best + 11]
    loss = log_loss(worse, stopped.predict_proba(X_val))
    assert loss == pytest.approx(losses[best], rel=1e-5)


def test_validation_data_does_not_change_the_training(parts):
    X, y, X_val, y_val = parts
    plain = StructuredClassifier(**FAST).fit(X, y)
    watched = StructuredClassifier(**FAST).fit(X, y, eval_set=(X_val, y_val))
    assert np.array_equal(plain.predict_proba(X), watched.predict_proba(X))


def test_weights_and_other_ways_to_pass_it(parts):
    X, y, X_val, y_val = parts
    model = StructuredClassifier(**FAST)
    weight = np.arange(300) % 3
    repeated = np.repeat(np.arange(300), weight)
    losses = [
        clone(model).fit(X, y, **given).history_[-1]["valid_loss"]
        for given in (
            {"eval_set": (X_val, y_val, weight)},
            {"eval_set": (X_val[repeated], y_val[repeated])},
            {"eval_set": [(X_val[repeated], y_val[repeated])]},
            {"X_val": X_val[repeated], "y_val": y_val[repeated]},
            {"eval_set": Items(X_val[repeated], y_val[repeated])},
        )
    ]
    assert losses == pytest.approx(losses[:1] * 5, rel=1e-5)


class Items(Dataset):
    """Rows one by one."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, row):
        return self.X[row], self.y[row]


def test_numbers_are_compared_in_the_units_of_the_training():
    X, y = load_diabetes(return_X_y=True)
    model = StructuredRegressor(**FAST).fit(
        X[:300], y[:300], eval_set=(X[300:], y[300:])
    )
    error = np.mean((model.predict(X[300:]) - y[300:]) ** 2) / y[:300].var()
    assert model.history_[-1]["valid_loss"] == pytest.approx(error, rel=1e-4)


def test_a_pipeline_transforms_validation_samples(parts):
    X, y, X_val, y_val = parts
    model = StructuredClassifier(standardize=False, **FAST)
    scaler = StandardScaler().fit(X)
    own = clone(model).fit(
        scaler.transform(X), y, eval_set=(scaler.transform(X_val), y_val)
    )
    with sklearn.config_context(enable_metadata_routing=True):
        model.set_fit_request(X_val=True, y_val=True)
        steps = [("scale", StandardScaler()), ("net", model)]
        pipeline = Pipeline(steps, transform_input=["X_val"])
        pipeline.fit(X, y, X_val=X_val, y_val=y_val)
    assert pipeline[-1].history_[:, "valid_loss"] == own.history_[:, "valid_loss"]


def test_a_search_passes_it_on(parts):
    X, y, X_val, y_val = parts
    model = StructuredClassifier(early_stopping=True, **FAST)
    search = GridSearchCV(model, {"learning_rate": [0.01, 0.05]}, cv=2)
    search.fit(X, y, eval_set=(X_val, y_val))
    assert "valid_loss" in search.best_estimator_.history_[-1]


def test_the_strengths_of_a_cross_validated_path_use_it(parts):
    X, y, X_val, y_val = parts
    model = CGESClassifierCV(alphas=[0.1, 1], cv=2, early_stopping=True, **FAST)
    model.fit(X, y, eval_set=(X_val, y_val))
    assert all("valid_loss" in each.history_[-1] for each in model.estimators_)


def test_a_hold_out_takes_whole_groups(parts):
    X, y, *_ = parts
    groups = np.repeat(np.arange(30), 20)
    held = np.zeros(600, bool)

    model = StructuredClassifier(
        early_stopping=True, validation_fraction=0.2, max_epochs=1, random_state=0
    )
    # A group that is held out changes the validation loss alone.
    base = clone(model).fit(X, y, groups=groups)
    for group in range(30):
        other = y.copy()
        other[groups == group] = (other[groups == group] + 1) % 10
        changed = clone(model).fit(X, other, groups=groups)
        same = changed.history_[-1]["train_loss"] == base.history_[-1]["train_loss"]
        held[groups == group] = same
    assert held.sum() == 120


BAD = {
    "no tuple": ({"eval_set": 3}, ValueError, "neither a tuple"),
    "no targets": ({"X_val": np.ones((3, 64))}, ValueError, "samples and targets"),
    "twice": ({"eval_set": (1, 2), "X_val": 1}, ValueError, "pass one of them"),
    "other features": (
        {"eval_set": (np.ones((3, 5)), [0, 1, 2])},
        ValueError,
        "5 feat",
    ),
    "unknown label": ({"eval_set": (np.ones((2, 64)), [0, 77])}, ValueError, "77"),
    "nan": (
        {"eval_set": (np.full((2, 64), np.nan), [0, 1])},
        ValueError,
        "^The eval_set cannot be used: Input X contains NaN; impute .* out.$",
    ),
    "no weight": (
        {"eval_set": (np.ones((2, 64)), [0, 1], [0, 0])},
        ValueError,
        "at least one non-zero",
    ),
    "an indicator": (
        {"eval_set": (np.ones((2, 64)), np.eye(10)[:2].astype(int))},
        ValueError,
        "eval_set cannot be used",
    ),
    "few groups": ({"groups": [1, 2]}, ValueError, "2 labels for 600 samples"),
}


@pytest.mark.parametrize(("given", "kind", "words"), BAD.values(), ids=BAD)
def test_what_cannot_be_used(parts, given, kind, words):
    X, y, *_ = parts
    with pytest.raises(kind, match=words) as caught:
        StructuredClassifier(**FAST).fit(X, y, **given)
    assert "\n" not in str(caught.value)


def test_one_group_leaves_nothing_to_train_on(parts):
    X, y, *_ = parts
    model = StructuredClassifier(early_stopping=True, **FAST)
    with pytest.raises(ValueError, match="groups leaves none to train on"):
        model.fit(X, y, groups=np.zeros(600))
