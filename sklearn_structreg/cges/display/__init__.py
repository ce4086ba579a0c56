"""Pictures of the zeros, of the price of sparsity, of strengths, and of features."""

from sklearn_structreg.cges.display.features import FeaturePathDisplay
from sklearn_structreg.cges.display.sparsity import (
    SparsityDisplay,
    SparsityHistoryDisplay,
)
from sklearn_structreg.cges.display.strength import StrengthDisplay
from sklearn_structreg.cges.display.tradeoff import TradeOffDisplay

__all__ = [
    "FeaturePathDisplay",
    "SparsityDisplay",
    "SparsityHistoryDisplay",
    "StrengthDisplay",
    "TradeOffDisplay",
]
