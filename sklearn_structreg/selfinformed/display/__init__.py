"""Pictures: who is confused with whom, and the network that was made of it."""

from sklearn_structreg.selfinformed.display.architecture import ArchitectureDisplay
from sklearn_structreg.selfinformed.display.confusion import ConfusionPartitionDisplay
from sklearn_structreg.selfinformed.display.table import GroupTable

__all__ = ["ArchitectureDisplay", "ConfusionPartitionDisplay", "GroupTable"]
