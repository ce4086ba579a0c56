"""DropCluster and its analysis pieces: which pixels move together."""

from sklearn_structreg.dropcluster.clusterer import ReNAClusterer
from sklearn_structreg.dropcluster.display import HopkinsDisplay, ReNADisplay
from sklearn_structreg.dropcluster.hopkins import (
    SpatialHopkins,
    hopkins,
    spatial_hopkins,
)
from sklearn_structreg.dropcluster.lattice import graph_edges, lattice_edges
from sklearn_structreg.dropcluster.rena import ReNAResult, rena

__all__ = [
    "HopkinsDisplay",
    "ReNAClusterer",
    "ReNADisplay",
    "ReNAResult",
    "SpatialHopkins",
    "graph_edges",
    "hopkins",
    "lattice_edges",
    "rena",
    "spatial_hopkins",
]
