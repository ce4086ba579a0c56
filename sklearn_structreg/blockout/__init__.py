"""Blockout: networks that learn their own hierarchical architecture."""

from sklearn_structreg.blockout.branches import BranchedLinear, to_branches
from sklearn_structreg.blockout.chain import linear_chain
from sklearn_structreg.blockout.classifier import BlockoutClassifier
from sklearn_structreg.blockout.conversion import (
    DropoutLinear,
    blockout_layers,
    convert,
    fold,
    insert_dropout,
    node_sets,
)
from sklearn_structreg.blockout.diagnosis import (
    Diagnosis,
    NodeSetDiagnosis,
    diagnose,
)
from sklearn_structreg.blockout.display import (
    ArchitectureDisplay,
    ExpectedClustersDisplay,
    NodeEmbeddingDisplay,
    ProbabilityHistoryDisplay,
)
from sklearn_structreg.blockout.hardening import (
    HardenedNet,
    harden_network,
    mask_blocks,
)
from sklearn_structreg.blockout.hierarchy import ClassHierarchy
from sklearn_structreg.blockout.layer import BlockoutLinear, NodeSet
from sklearn_structreg.blockout.masks import (
    block_mask,
    draw_memberships,
    masked_linear,
    masked_weight,
)
from sklearn_structreg.blockout.memberships import (
    group_nodes,
    shared_clusters,
    threshold_memberships,
)
from sklearn_structreg.blockout.recorder import ProbabilityRecorder
from sklearn_structreg.blockout.regularizer import (
    BlockoutRegularizer,
    DropoutRegularizer,
)

__all__ = [
    "ArchitectureDisplay",
    "BlockoutClassifier",
    "BlockoutLinear",
    "BlockoutRegularizer",
    "BranchedLinear",
    "ClassHierarchy",
    "Diagnosis",
    "DropoutLinear",
    "DropoutRegularizer",
    "ExpectedClustersDisplay",
    "HardenedNet",
    "NodeEmbeddingDisplay",
    "NodeSet",
    "NodeSetDiagnosis",
    "ProbabilityHistoryDisplay",
    "ProbabilityRecorder",
    "block_mask",
    "blockout_layers",
    "convert",
    "diagnose",
    "draw_memberships",
    "fold",
    "group_nodes",
    "harden_network",
    "insert_dropout",
    "linear_chain",
    "mask_blocks",
    "masked_linear",
    "masked_weight",
    "node_sets",
    "shared_clusters",
    "threshold_memberships",
    "to_branches",
]
