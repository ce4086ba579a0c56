"""Combined group and exclusive sparsity (CGES): which weights are needed."""

from .callback import CGESProx
from .classifier import CGESClassifier
from .joint import prox_cges_joint
from .layers import count_parameters, penalised_weights, weight_sparsity
from .proximal import (
    prox_cges,
    prox_exclusive_lasso,
    prox_group_lasso,
    prox_l1,
    prox_l2,
)
from .regularizer import CGESRegularizer
from .schedule import mu_schedule

__all__ = [
    "CGESClassifier",
    "CGESProx",
    "CGESRegularizer",
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
