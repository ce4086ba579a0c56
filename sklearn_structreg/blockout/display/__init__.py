"""Pictures: the cluster probabilities over training and by class, and the blocks."""

from sklearn_structreg.blockout.display.architecture import ArchitectureDisplay
from sklearn_structreg.blockout.display.embedding import NodeEmbeddingDisplay
from sklearn_structreg.blockout.display.probabilities import (
    ExpectedClustersDisplay,
    ProbabilityHistoryDisplay,
)

__all__ = [
    "ArchitectureDisplay",
    "ExpectedClustersDisplay",
    "NodeEmbeddingDisplay",
    "ProbabilityHistoryDisplay",
]
