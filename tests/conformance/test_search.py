"""scikit-learn's own checks of searches, with nothing expected to fail."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_structreg import CGESClassifier, CGESRegressor, StrengthSearchCV

SHORT = {"max_epochs": 20, "random_state": 0}
SEARCH = {
    "param_grid": {"alpha": [0.1, 0.2, 0.3]},
    "cv": 2,
    "error_score": "raise",  # else scikit-learn warns of every failed fit
}


# scikit-learn's splitters take infinite targets for whole numbers.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@parametrize_with_checks(
    [
        StrengthSearchCV(CGESClassifier(**SHORT), **SEARCH),
        StrengthSearchCV(CGESRegressor(**SHORT), **SEARCH),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
