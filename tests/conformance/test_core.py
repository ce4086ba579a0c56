from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_structreg.core import StructuredClassifier


@parametrize_with_checks(
    [StructuredClassifier(), StructuredClassifier(dtype="float64", batch_size=None)]
)
def test_sk(estimator, check):
    check(estimator)
