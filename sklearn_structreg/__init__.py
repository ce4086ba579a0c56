"""Neural networks that find their own structure, as scikit-learn estimators."""

from .cges import CGESClassifier

__version__ = "0.1.0"

__all__ = ["CGESClassifier", "__version__"]
