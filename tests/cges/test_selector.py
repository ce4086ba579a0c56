"""The selector finds planted features, alone and together, and says what is wrong."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_classification
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_structreg import CGESRegressor, CGESSelector, StructuredClassifier
from sklearn_structreg.cges import FeaturePathDisplay


def planted():
    X, y = make_classification(
        400,
        60,
        n_informative=8,
        n_redundant=0,
        n_classes=3,
        shuffle=False,
        random_state=0,
    )
    return X, y, range(8)


def xor(n_features=40):
    X = np.random.default_rng(0).standard_normal((800, n_features))
    return X, X[:, 0] * X[:, 1] + X[:, 2] * X[:, 3] > 0, range(4)


def numbers():
    X = np.random.default_rng(1).standard_normal((400, 40))
    return X, 3 * np.abs(X[:, 4]) + X[:, 7] - X[:, 9] ** 2, (4, 7, 9)


@pytest.mark.parametrize(("make", "least"), [(planted, 7), (xor, 4), (numbers, 3)])
def test_the_planted_features_come_first(make, least):
    X, y, right = make()
    selector = CGESSelector(len(right), random_state=0).fit(X, y)
    found = selector.get_support(indices=True)
    assert len(np.intersect1d(found, right)) >= least
    assert sorted(selector.ranking_) == list(range(1, X.shape[1] + 1))
    best_first = np.argsort(selector.ranking_)
    assert (np.diff(selector.scores_[best_first]) <= 0).all()


def test_products_are_invisible_to_the_f_test():
    X, y, right = xor()
    first = np.argsort(-f_classif(X, y)[0])[: len(right)]
    assert len(np.intersect1d(first, right)) <= 1  # else `xor` tests nothing


def copies(seed):
    """Two sources of unlike strength, each in noisy copies, among noise."""
    rng = np.random.default_rng(seed)
    sources = rng.standard_normal((500, 2))
    X = np.repeat(sources, 6, axis=1)
    noise = rng.standard_normal((500, 40))
    X = np.hstack([X + 0.1 * rng.standard_normal(X.shape), noise])
    return X, sources @ [1.0, 0.6] > 0


def test_copies_of_the_strongest_need_not_crowd_out_the_others():
    found = set()
    for seed in (0, 1):
        X, y = copies(seed)
        assert set(np.argsort(-f_classif(X, y)[0])[:6] // 6) == {0}
        ranking = CGESSelector(6, random_state=seed).fit(X, y).ranking_
        found |= set(np.argsort(ranking)[:6] // 6)
    assert found == {0, 1}


def test_cross_validation_finds_how_many():
    X, y, right = xor(12)
    cv = StratifiedKFold(2, shuffle=True, random_state=0)
    net = StructuredClassifier(optimizer="adam", learning_rate=0.01, max_epochs=20)
    selector = CGESSelector("cv", estimator=net, cv=cv, random_state=0).fit(X, y)
    assert selector.n_features_to_select_ == 4
    assert set(selector.get_support(indices=True)) == set(right)
    scores = selector.cv_results_["mean_test_score"]
    sizes = selector.cv_results_["n_features"]
    assert sizes.tolist() == [1, 2, 4, 8, 12]
    assert scores[2] > scores[1] + 0.1


def small(n_features=6):
    X = np.random.default_rng(0).standard_normal((120, n_features))
    return X, np.where(X[:, 2] > 0, "yes", "no")


def test_a_share_names_files_and_a_pipeline(tmp_path):
    X, y = small()
    names = [f"f{i}" for i in range(6)]
    frame = pd.DataFrame(X, columns=names)
    model = make_pipeline(
        CGESSelector(0.34, random_state=0), StructuredClassifier(random_state=0)
    ).set_output(transform="pandas")
    assert model.fit(frame, y).score(frame, y) > 0.9
    selector = model[0]
    assert selector.transform(frame).shape == (120, 2)
    assert "f2" in selector.get_feature_names_out()
    selector.save(tmp_path / "selector")
    loaded = CGESSelector.load(tmp_path / "selector")
    for again in (pickle.loads(pickle.dumps(selector)), loaded):
        np.testing.assert_array_equal(again.scores_, selector.scores_)
        pd.testing.assert_frame_equal(again.transform(frame), selector.transform(frame))
        assert again.get_params().keys() == selector.get_params().keys()
        assert again.estimator_.optimizer == "adam"
        for one, two in zip(again.paths_, selector.paths_, strict=True):
            np.testing.assert_array_equal(one.norms, two.norms)
    with pytest.raises(ValueError, match=r"holds a CGESSelector; use CGESSelector\."):
        StructuredClassifier.load(tmp_path / "selector")
    selector.set_params(cv=StratifiedKFold())
    with pytest.raises(TypeError, match="StratifiedKFold"):
        selector.save(tmp_path / "selector")


def test_weights_zero_means_absent_and_seeds_repeat():
    X, y = small()
    weight = np.r_[np.ones(80), np.zeros(40)]
    other = np.r_[y[:80], y[:40]]
    first = CGESSelector(2, random_state=0).fit(X, other, weight)
    second = CGESSelector(2, random_state=0).fit(X[:80], y[:80])
    np.testing.assert_array_equal(first.scores_, second.scores_)


@pytest.mark.parametrize(
    ("parameters", "error", "sentence"),
    [
        ({"n_features_to_select": 7}, ValueError, "more than n_features=6"),
        ({"n_features_to_select": 0}, ValueError, "n_features_to_select"),
        ({"n_features_to_select": True}, ValueError, "n_features_to_select"),
        ({"estimator": LogisticRegression()}, ValueError, "estimator"),
        (
            {"estimator": StructuredClassifier(nn.Linear(6, 2))},
            ValueError,
            "class or a factory",
        ),
        ({"estimator": CGESRegressor()}, ValueError, "y"),
    ],
)
def test_errors_say_what_to_do(parameters, error, sentence):
    with pytest.raises(error, match=sentence):
        CGESSelector(**parameters).fit(*small())


def test_whole_numbers_that_look_like_measurements_are_not_guessed():
    X, _ = small()
    y = np.arange(120)
    with pytest.raises(ValueError, match="CGESRegressor"):
        CGESSelector(2).fit(X, y)


def test_the_display_ends_lines_at_the_scores():
    pytest.importorskip("matplotlib").use("Agg")
    X, y = small(16)
    selector = CGESSelector(2, random_state=0).fit(X, y)
    display = FeaturePathDisplay.from_estimator(selector, n_features=3)
    assert list(display.lines_) == np.argsort(selector.ranking_)[:3].tolist()
    for feature, lines in display.lines_.items():
        x, norms = lines[-1].get_data()
        assert x[np.isfinite(norms)][-1] == pytest.approx(selector.scores_[feature])
    with pytest.raises(TypeError, match="CGESSelector"):
        FeaturePathDisplay.from_estimator(make_pipeline(selector))
