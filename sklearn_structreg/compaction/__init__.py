"""Networks that are physically smaller, with the same outputs, and how small."""

from sklearn_structreg.compaction.compact import compact
from sklearn_structreg.compaction.report import LayerSize, SizeReport, size_report

__all__ = ["LayerSize", "SizeReport", "compact", "size_report"]
