"""scikit-learn's own checks, with nothing expected to fail, in two configurations."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    SelfInformedClassifier,
)
from sklearn_structreg.core import StructuredClassifier

EXACT = {"dtype": "float64", "batch_size": None}

ESTIMATORS = [
    estimator(**configuration)
    for estimator in (StructuredClassifier, BlockoutClassifier, CGESClassifier)
    for configuration in ({}, EXACT)
] + [
    SelfInformedClassifier(),
    SelfInformedClassifier(head_layer_sizes=(32,), **EXACT),  # small: it is slow
]
ESTIMATORS.append(CGESClassifier(target_density=0.5))


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
