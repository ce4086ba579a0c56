"""Smaller networks with the same outputs, and reports on their sizes."""

from sklearn_structreg.compaction.compact import compact
from sklearn_structreg.compaction.report import SizeReport, size_report

__all__ = ["SizeReport", "compact", "size_report"]
