"""Pictures: the confusions between classes, and the network with its heads."""

from sklearn_structreg.selfinformed.display.confusion import ConfusionPartitionDisplay
from sklearn_structreg.selfinformed.display.network import SelfInformedDisplay
from sklearn_structreg.selfinformed.display.table import GroupTable

__all__ = ["ConfusionPartitionDisplay", "GroupTable", "SelfInformedDisplay"]
