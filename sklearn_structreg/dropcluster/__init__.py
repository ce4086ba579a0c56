"""DropCluster and its analysis pieces: which pixels move together."""

from sklearn_structreg.dropcluster.classifier import DropClusterClassifier
from sklearn_structreg.dropcluster.clusterer import ReNAClusterer
from sklearn_structreg.dropcluster.clusters import find_clusters
from sklearn_structreg.dropcluster.deploy import fold_masks
from sklearn_structreg.dropcluster.depth import StochasticDepth, residual_branches
from sklearn_structreg.dropcluster.display import (
    DropClusterDisplay,
    HopkinsDisplay,
    LayerHopkinsDisplay,
    ReNADisplay,
)
from sklearn_structreg.dropcluster.dropblock import (
    DropBlock1d,
    DropBlock2d,
    DropBlock3d,
)
from sklearn_structreg.dropcluster.hopkins import (
    SpatialHopkins,
    hopkins,
    spatial_hopkins,
)
from sklearn_structreg.dropcluster.insertion import (
    insert_layer,
    inserted_layers,
    remove_layers,
)
from sklearn_structreg.dropcluster.lattice import graph_edges, lattice_edges
from sklearn_structreg.dropcluster.layers import (
    DropCluster1d,
    DropCluster2d,
    DropCluster3d,
)
from sklearn_structreg.dropcluster.places import feature_maps
from sklearn_structreg.dropcluster.regularizer import DropClusterRegularizer
from sklearn_structreg.dropcluster.rena import ReNAResult, rena
from sklearn_structreg.dropcluster.update import DropClusterUpdate, update_clusters

__all__ = [
    "DropBlock1d",
    "DropBlock2d",
    "DropBlock3d",
    "DropCluster1d",
    "DropCluster2d",
    "DropCluster3d",
    "DropClusterClassifier",
    "DropClusterDisplay",
    "DropClusterRegularizer",
    "DropClusterUpdate",
    "HopkinsDisplay",
    "LayerHopkinsDisplay",
    "ReNAClusterer",
    "ReNADisplay",
    "ReNAResult",
    "SpatialHopkins",
    "StochasticDepth",
    "feature_maps",
    "find_clusters",
    "fold_masks",
    "graph_edges",
    "hopkins",
    "insert_layer",
    "inserted_layers",
    "lattice_edges",
    "remove_layers",
    "rena",
    "residual_branches",
    "spatial_hopkins",
    "update_clusters",
]
