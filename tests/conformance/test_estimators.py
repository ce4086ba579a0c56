"""scikit-learn's own checks, with nothing expected to fail, in two configurations."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_structreg import CGESClassifier, DropClusterClassifier
from sklearn_structreg.core import StructuredClassifier

EXACT = {"dtype": "float64", "batch_size": None}

ESTIMATORS = [
    estimator(**configuration)
    for estimator in (StructuredClassifier, CGESClassifier, DropClusterClassifier)
    for configuration in ({}, EXACT)
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
