"""scikit-learn's own checks, with nothing expected to fail, in two configurations."""

from rooms import ESTIMATORS
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_structreg import (
    CGESClassifier,
    CGESClassifierCV,
    CGESRegressorCV,
    DropClusterClassifier,
    SelfInformedClassifier,
)
from sklearn_structreg.baselines import L2SP, Dropout
from sklearn_structreg.blockout import Blockout
from sklearn_structreg.cges import CGES, IterativePruning
from sklearn_structreg.core import StructuredClassifier, StructuredRegressor
from sklearn_structreg.dropcluster import DropCluster

EXACT = {"dtype": "float64", "batch_size": None}
SHORT = {"alphas": (0.1, 0.2), "cv": 2, "max_epochs": 10, "learning_rate": 0.01}
QUICK = {"max_epochs": 30}  # enough for classes
SMALLER = {  # else they are slow
    CGESClassifier: QUICK,
    DropClusterClassifier: QUICK,
    StructuredClassifier: QUICK,
    SelfInformedClassifier: {"head_layer_sizes": (32,), **QUICK},
    CGESClassifierCV: SHORT,
    CGESRegressorCV: SHORT,
}
SHORTER = dict.fromkeys((CGESClassifierCV, CGESRegressorCV), SHORT)
SEVERAL = [
    IterativePruning(0.8),
    CGES(0.001),
    Blockout(2, init_probability=0.9),
    DropCluster(0.05),
    Dropout(0.05),
]

CONFIGURATIONS = [
    *(estimator(**SHORTER.get(estimator, {})) for estimator in ESTIMATORS),
    *(estimator(**EXACT, **SMALLER.get(estimator, {})) for estimator in ESTIMATORS),
    CGESClassifier(target_density=0.5),
    StructuredClassifier(n_members=3, **QUICK),
    StructuredClassifier(regularizers=[*SEVERAL, L2SP(0.01)]),
    StructuredRegressor(regularizers=[clone(regularizer) for regularizer in SEVERAL]),
]


@parametrize_with_checks(CONFIGURATIONS)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
