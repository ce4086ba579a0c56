"""Combined group and exclusive sparsity (CGES): networks with the weights they need."""

from sklearn_structreg.cges.classifier import CGESClassifier
from sklearn_structreg.cges.cv import CGESClassifierCV, CGESRegressorCV
from sklearn_structreg.cges.display import (
    FeaturePathDisplay,
    SparsityDisplay,
    SparsityHistoryDisplay,
    StrengthDisplay,
    TradeOffDisplay,
)
from sklearn_structreg.cges.joint import prox_cges_joint
from sklearn_structreg.cges.path import CGESPath, cges_path
from sklearn_structreg.cges.proximal import (
    prox_cges,
    prox_exclusive_lasso,
    prox_group_lasso,
)
from sklearn_structreg.cges.pruning import IterativePruning
from sklearn_structreg.cges.regressor import CGESRegressor
from sklearn_structreg.cges.regularizer import CGES
from sklearn_structreg.cges.selector import CGESSelector
from sklearn_structreg.cges.strength import alpha_max, alpha_path

__all__ = [
    "CGES",
    "CGESClassifier",
    "CGESClassifierCV",
    "CGESPath",
    "CGESRegressor",
    "CGESRegressorCV",
    "CGESSelector",
    "FeaturePathDisplay",
    "IterativePruning",
    "SparsityDisplay",
    "SparsityHistoryDisplay",
    "StrengthDisplay",
    "TradeOffDisplay",
    "alpha_max",
    "alpha_path",
    "cges_path",
    "prox_cges",
    "prox_cges_joint",
    "prox_exclusive_lasso",
    "prox_group_lasso",
]
