"""Neural networks that find their own structure, as scikit-learn estimators."""

from sklearn_structreg.blockout import BlockoutClassifier
from sklearn_structreg.cges import CGESClassifier
from sklearn_structreg.dropcluster import (
    DropClusterClassifier,
    ReNAClusterer,
    SpatialHopkins,
)
from sklearn_structreg.selfinformed import (
    ConfusionSpectralPartitioner,
    SelfInformedClassifier,
)

__version__ = "0.1.0"

__all__ = [
    "BlockoutClassifier",
    "CGESClassifier",
    "ConfusionSpectralPartitioner",
    "DropClusterClassifier",
    "ReNAClusterer",
    "SelfInformedClassifier",
    "SpatialHopkins",
    "__version__",
]
