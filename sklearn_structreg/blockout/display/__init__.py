"""Pictures: the cluster probabilities over training and by class, and the blocks."""

from sklearn_structreg.blockout.display.blockout import BlockoutDisplay
from sklearn_structreg.blockout.display.embedding import NodeEmbeddingDisplay
from sklearn_structreg.blockout.display.probabilities import (
    ExpectedClustersDisplay,
    ProbabilityHistoryDisplay,
)

__all__ = [
    "BlockoutDisplay",
    "ExpectedClustersDisplay",
    "NodeEmbeddingDisplay",
    "ProbabilityHistoryDisplay",
]
