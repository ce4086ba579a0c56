"""DropCluster and its analysis pieces: pixels that vary together."""

from sklearn_structreg.dropcluster.clusterer import ReNAClusterer
from sklearn_structreg.dropcluster.display.clusters import ReNADisplay
from sklearn_structreg.dropcluster.display.hopkins import HopkinsDisplay
from sklearn_structreg.dropcluster.display.layers import LayerHopkinsDisplay
from sklearn_structreg.dropcluster.display.maps import DropClusterDisplay
from sklearn_structreg.dropcluster.estimators import (
    DropClusterClassifier,
    DropClusterRegressor,
)
from sklearn_structreg.dropcluster.feature_maps import feature_maps
from sklearn_structreg.dropcluster.folding import fold_masks
from sklearn_structreg.dropcluster.hopkins import (
    SpatialHopkins,
    hopkins,
    spatial_hopkins,
)
from sklearn_structreg.dropcluster.layers import (
    DropCluster1d,
    DropCluster2d,
    DropCluster3d,
)
from sklearn_structreg.dropcluster.regularizer import DropCluster
from sklearn_structreg.dropcluster.rena import rena

__all__ = [
    "DropCluster",
    "DropCluster1d",
    "DropCluster2d",
    "DropCluster3d",
    "DropClusterClassifier",
    "DropClusterDisplay",
    "DropClusterRegressor",
    "HopkinsDisplay",
    "LayerHopkinsDisplay",
    "ReNAClusterer",
    "ReNADisplay",
    "SpatialHopkins",
    "feature_maps",
    "fold_masks",
    "hopkins",
    "rena",
    "spatial_hopkins",
]
