"""scikit-learn's own checks, with nothing expected to fail, in two configurations."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    DropClusterClassifier,
    SelfInformedClassifier,
)
from sklearn_structreg.core import StructuredClassifier

EXACT = {"dtype": "float64", "batch_size": None}

ESTIMATORS = [
    estimator(**configuration)
    for estimator in (
        StructuredClassifier,
        BlockoutClassifier,
        CGESClassifier,
        DropClusterClassifier,
    )
    for configuration in ({}, EXACT)
] + [
    CGESClassifier(target_density=0.5),
    SelfInformedClassifier(),
    SelfInformedClassifier(head_layer_sizes=(32,), **EXACT),  # small: it is slow
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
