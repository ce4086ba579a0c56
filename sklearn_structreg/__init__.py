"""Neural networks that find their own structure, as scikit-learn estimators."""

from sklearn_structreg.cges import CGESClassifier
from sklearn_structreg.dropcluster import (
    DropClusterClassifier,
    ReNAClusterer,
    SpatialHopkins,
)
from sklearn_structreg.selfinformed import ConfusionSpectralPartitioner

__version__ = "0.1.0"

__all__ = [
    "CGESClassifier",
    "ConfusionSpectralPartitioner",
    "DropClusterClassifier",
    "ReNAClusterer",
    "SpatialHopkins",
    "__version__",
]
