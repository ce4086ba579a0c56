"""Pictures: where the zeros are and when they came, and what sparsity costs."""

from sklearn_structreg.cges.display.sparsity import (
    SparsityDisplay,
    SparsityHistoryDisplay,
)
from sklearn_structreg.cges.display.tradeoff import TradeOffDisplay

__all__ = ["SparsityDisplay", "SparsityHistoryDisplay", "TradeOffDisplay"]
