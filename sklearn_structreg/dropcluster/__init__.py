"""DropCluster and its analysis pieces: which pixels move together."""

from sklearn_structreg.dropcluster.lattice import graph_edges, lattice_edges
from sklearn_structreg.dropcluster.rena import ReNAResult, rena

__all__ = [
    "ReNAResult",
    "graph_edges",
    "lattice_edges",
    "rena",
]
