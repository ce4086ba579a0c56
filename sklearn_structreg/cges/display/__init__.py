"""Pictures of the zeros, and of the price of sparsity."""

from sklearn_structreg.cges.display.sparsity import (
    SparsityDisplay,
    SparsityHistoryDisplay,
)
from sklearn_structreg.cges.display.tradeoff import TradeOffDisplay

__all__ = ["SparsityDisplay", "SparsityHistoryDisplay", "TradeOffDisplay"]
