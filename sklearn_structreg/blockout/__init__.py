"""Blockout: networks that learn their own hierarchical architecture."""

from sklearn_structreg.blockout.classifier import BlockoutClassifier
from sklearn_structreg.blockout.conversion import convert, fold
from sklearn_structreg.blockout.convolution import BlockoutConv2d
from sklearn_structreg.blockout.diagnosis import Diagnosis
from sklearn_structreg.blockout.display import (
    BlockoutDisplay,
    ExpectedClustersDisplay,
    NodeEmbeddingDisplay,
    ProbabilityHistoryDisplay,
)
from sklearn_structreg.blockout.hardening import HardenedNet, harden_network
from sklearn_structreg.blockout.hierarchy import ClassHierarchy
from sklearn_structreg.blockout.layer import BlockoutLinear, NodeSet
from sklearn_structreg.blockout.regressor import BlockoutRegressor
from sklearn_structreg.blockout.regularizer import Blockout

__all__ = [
    "Blockout",
    "BlockoutClassifier",
    "BlockoutConv2d",
    "BlockoutDisplay",
    "BlockoutLinear",
    "BlockoutRegressor",
    "ClassHierarchy",
    "Diagnosis",
    "ExpectedClustersDisplay",
    "HardenedNet",
    "NodeEmbeddingDisplay",
    "NodeSet",
    "ProbabilityHistoryDisplay",
    "convert",
    "fold",
    "harden_network",
]
