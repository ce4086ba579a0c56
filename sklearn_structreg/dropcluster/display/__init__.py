"""Pictures: clusters of pixels beside the images, and how much structure there is."""

from sklearn_structreg.dropcluster.display.clusters import ReNADisplay
from sklearn_structreg.dropcluster.display.hopkins import HopkinsDisplay
from sklearn_structreg.dropcluster.display.layers import LayerHopkinsDisplay
from sklearn_structreg.dropcluster.display.maps import DropClusterDisplay

__all__ = [
    "DropClusterDisplay",
    "HopkinsDisplay",
    "LayerHopkinsDisplay",
    "ReNADisplay",
]
