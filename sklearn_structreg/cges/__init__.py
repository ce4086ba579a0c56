"""Combined group and exclusive sparsity (CGES): which weights are needed."""

from sklearn_structreg.cges.joint import prox_cges_joint
from sklearn_structreg.cges.proximal import (
    prox_cges,
    prox_exclusive_lasso,
    prox_group_lasso,
    prox_l1,
    prox_l2,
)
from sklearn_structreg.cges.schedule import mu_schedule

__all__ = [
    "mu_schedule",
    "prox_cges",
    "prox_cges_joint",
    "prox_exclusive_lasso",
    "prox_group_lasso",
    "prox_l1",
    "prox_l2",
]
