"""Self-informed structure and its partitioner: which classes are confused."""

from sklearn_structreg.selfinformed.architecture import ArchitectureDisplay
from sklearn_structreg.selfinformed.classifier import (
    MultiplyAdds,
    SelfInformedClassifier,
)
from sklearn_structreg.selfinformed.display import ConfusionPartitionDisplay
from sklearn_structreg.selfinformed.metrics import mean_average_precision_at_k
from sklearn_structreg.selfinformed.partitioner import ConfusionSpectralPartitioner
from sklearn_structreg.selfinformed.table import GroupTable

__all__ = [
    "ArchitectureDisplay",
    "ConfusionPartitionDisplay",
    "ConfusionSpectralPartitioner",
    "GroupTable",
    "MultiplyAdds",
    "SelfInformedClassifier",
    "mean_average_precision_at_k",
]
