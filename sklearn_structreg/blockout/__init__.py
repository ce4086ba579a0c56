"""Blockout: nets that learn their own hierarchical architecture."""

from sklearn_structreg.blockout.branches import BranchedLinear, to_branches
from sklearn_structreg.blockout.diagnosis import (
    Diagnosis,
    NodeSetDiagnosis,
    diagnose,
)
from sklearn_structreg.blockout.hardening import (
    HardenedNet,
    harden_network,
    mask_blocks,
)
from sklearn_structreg.blockout.hierarchy import ClassHierarchy
from sklearn_structreg.blockout.memberships import (
    group_nodes,
    shared_clusters,
    threshold_memberships,
)

__all__ = [
    "BranchedLinear",
    "ClassHierarchy",
    "Diagnosis",
    "HardenedNet",
    "NodeSetDiagnosis",
    "diagnose",
    "group_nodes",
    "harden_network",
    "mask_blocks",
    "shared_clusters",
    "threshold_memberships",
    "to_branches",
]
