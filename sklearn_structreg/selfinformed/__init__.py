"""Self-informed structure and its partitioner: which classes are confused."""

from sklearn_structreg.selfinformed.classifier import (
    MultiplyAdds,
    SelfInformedClassifier,
)
from sklearn_structreg.selfinformed.display import ConfusionPartitionDisplay
from sklearn_structreg.selfinformed.metrics import mean_average_precision_at_k
from sklearn_structreg.selfinformed.partitioner import ConfusionSpectralPartitioner

__all__ = [
    "ConfusionPartitionDisplay",
    "ConfusionSpectralPartitioner",
    "MultiplyAdds",
    "SelfInformedClassifier",
    "mean_average_precision_at_k",
]
