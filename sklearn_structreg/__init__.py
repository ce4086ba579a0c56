"""Neural networks that find their own structure, as scikit-learn estimators."""

from sklearn_structreg.blockout import BlockoutClassifier, BlockoutRegressor
from sklearn_structreg.cges import (
    CGESClassifier,
    CGESClassifierCV,
    CGESRegressor,
    CGESRegressorCV,
    CGESSelector,
)
from sklearn_structreg.core import StructuredClassifier, StructuredRegressor, export
from sklearn_structreg.core.versions import __version__
from sklearn_structreg.dropcluster import (
    DropClusterClassifier,
    DropClusterRegressor,
    ReNAClusterer,
    SpatialHopkins,
)
from sklearn_structreg.search import StrengthSearchCV
from sklearn_structreg.selfinformed import (
    ConfusionSpectralPartitioner,
    SelfInformedClassifier,
)

__all__ = [
    "BlockoutClassifier",
    "BlockoutRegressor",
    "CGESClassifier",
    "CGESClassifierCV",
    "CGESRegressor",
    "CGESRegressorCV",
    "CGESSelector",
    "ConfusionSpectralPartitioner",
    "DropClusterClassifier",
    "DropClusterRegressor",
    "ReNAClusterer",
    "SelfInformedClassifier",
    "SpatialHopkins",
    "StrengthSearchCV",
    "StructuredClassifier",
    "StructuredRegressor",
    "__version__",
    "export",
]
