"""scikit-learn's own checks of the self-informed method's pieces: no exceptions."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_structreg.selfinformed import ConfusionSpectralPartitioner


@parametrize_with_checks(
    [
        ConfusionSpectralPartitioner(),
        ConfusionSpectralPartitioner(source="codetection"),
        ConfusionSpectralPartitioner(source="confusion"),
        ConfusionSpectralPartitioner(source="precomputed"),
    ]
)
def test_sklearn_checks(estimator, check):
    check(estimator)
