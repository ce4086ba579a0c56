"""Self-informed structure: heads for the groups of classes that are confused."""

from sklearn_structreg.selfinformed.attach import Junction, find_junction
from sklearn_structreg.selfinformed.classifier import (
    MultiplyAdds,
    SelfInformedClassifier,
)
from sklearn_structreg.selfinformed.conditional import ConditionalNet
from sklearn_structreg.selfinformed.display import (
    ArchitectureDisplay,
    ConfusionPartitionDisplay,
    GroupTable,
)
from sklearn_structreg.selfinformed.heads import AugmentedNet, Head, HeadRound
from sklearn_structreg.selfinformed.metrics import mean_average_precision_at_k
from sklearn_structreg.selfinformed.partition import ClassPartition
from sklearn_structreg.selfinformed.partitioner import ConfusionSpectralPartitioner

__all__ = [
    "ArchitectureDisplay",
    "AugmentedNet",
    "ClassPartition",
    "ConditionalNet",
    "ConfusionPartitionDisplay",
    "ConfusionSpectralPartitioner",
    "GroupTable",
    "Head",
    "HeadRound",
    "Junction",
    "MultiplyAdds",
    "SelfInformedClassifier",
    "find_junction",
    "mean_average_precision_at_k",
]
