"""Self-informed structure: heads for the groups of classes that are confused."""

from sklearn_structreg.selfinformed.classifier import (
    SelfInformedClassifier,
)
from sklearn_structreg.selfinformed.controls import compare_controls
from sklearn_structreg.selfinformed.display import (
    ConfusionPartitionDisplay,
    GroupTable,
    SelfInformedDisplay,
)
from sklearn_structreg.selfinformed.metrics import mean_average_precision_at_k
from sklearn_structreg.selfinformed.partition import ClassPartition
from sklearn_structreg.selfinformed.partitioner import ConfusionSpectralPartitioner

__all__ = [
    "ClassPartition",
    "ConfusionPartitionDisplay",
    "ConfusionSpectralPartitioner",
    "GroupTable",
    "SelfInformedClassifier",
    "SelfInformedDisplay",
    "compare_controls",
    "mean_average_precision_at_k",
]
