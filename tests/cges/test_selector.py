"""The selector finds planted features, alone and together, and says what is wrong."""


import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.feature_selection import f_classif

from sklearn_structreg import (
    CGESSelector,
)


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


def xor():
    X = np.random.default_rng(0).standard_normal((800, 40))
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


def copies(n_copies=6, noise=0.1):
    """Three sources of unlike strength, each in noisy copies, among noise."""
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((500, 3))
    X = np.repeat(sources, n_copies, axis=1)
    X = np.hstack(
        [X + noise * rng.standard_normal(X.shape), rng.standard_normal((500, 40))]
    )
    return X, sources @ [1.0, 0.7, 0.5] > 0, n_copies


def test_of_copies_one_of_each_kind_comes_first():
    X, y, n_copies = copies()
    assert set(np.argsort(-f_classif(X, y)[0])[:6] // n_copies) == {0}
    ranking = CGESSelector(6, random_state=0).fit(X, y).ranking_
    assert set(np.argsort(ranking)[:6] // n_copies) == {0, 1, 2}
