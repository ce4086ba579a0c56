"""Combined group and exclusive sparsity (CGES): which weights are needed."""

from sklearn_structreg.cges.callback import CGESProx, IterativePruning
from sklearn_structreg.cges.classifier import CGESClassifier
from sklearn_structreg.cges.display import (
    SparsityDisplay,
    SparsityHistoryDisplay,
    TradeOffDisplay,
)
from sklearn_structreg.cges.joint import prox_cges_joint
from sklearn_structreg.cges.layers import (
    count_parameters,
    penalised_weights,
    weight_sparsity,
)
from sklearn_structreg.cges.path import CGESPath, cges_path
from sklearn_structreg.cges.proximal import (
    prox_cges,
    prox_exclusive_lasso,
    prox_group_lasso,
    prox_l1,
    prox_l2,
)
from sklearn_structreg.cges.regularizer import CGESRegularizer
from sklearn_structreg.cges.schedule import mu_schedule
from sklearn_structreg.cges.strength import alpha_max, alpha_path

__all__ = [
    "CGESClassifier",
    "CGESPath",
    "CGESProx",
    "CGESRegularizer",
    "IterativePruning",
    "SparsityDisplay",
    "SparsityHistoryDisplay",
    "TradeOffDisplay",
    "alpha_max",
    "alpha_path",
    "cges_path",
    "count_parameters",
    "mu_schedule",
    "penalised_weights",
    "prox_cges",
    "prox_cges_joint",
    "prox_exclusive_lasso",
    "prox_group_lasso",
    "prox_l1",
    "prox_l2",
    "weight_sparsity",
]
