"""scikit-learn's own checks, with no expected failures."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_structreg.dropcluster import ReNAClusterer, SpatialHopkins


@parametrize_with_checks([ReNAClusterer(), SpatialHopkins(n_points=5)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)
