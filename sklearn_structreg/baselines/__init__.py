"""The rivals of this package's methods, a regularizer each."""

from sklearn_structreg.baselines.dropblock import (
    DropBlock1d,
    DropBlock2d,
    DropBlock3d,
)
from sklearn_structreg.baselines.dropout import DropBlock, Dropout, SpatialDropout
from sklearn_structreg.baselines.l2sp import L2SP
from sklearn_structreg.baselines.stochastic_depth import StochasticDepth

__all__ = [
    "L2SP",
    "DropBlock",
    "DropBlock1d",
    "DropBlock2d",
    "DropBlock3d",
    "Dropout",
    "SpatialDropout",
    "StochasticDepth",
]
