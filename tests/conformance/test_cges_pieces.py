"""scikit-learn's own checks of the feature selector: nothing is expected to fail."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_structreg import CGESSelector


@parametrize_with_checks([CGESSelector()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)
