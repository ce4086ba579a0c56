"""scikit-learn's own checks, with no expected failures."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_structreg.dropcluster import ReNAClusterer, SpatialHopkins


@parametrize_with_checks([ReNAClusterer(), SpatialHopkins()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)
