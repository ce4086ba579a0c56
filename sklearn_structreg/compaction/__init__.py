"""Networks that are physically smaller, with the same outputs."""

from sklearn_structreg.compaction.compact import compact

__all__ = ["compact"]
