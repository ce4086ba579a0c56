"""The scikit-learn contract on a private skorch net, shared by every method."""

from sklearn_structreg.core.classifier import StructuredClassifier
from sklearn_structreg.core.counting import count_multiply_adds
from sklearn_structreg.core.modules import make_convnet, make_mlp
from sklearn_structreg.core.regularizer import Regularizer

__all__ = [
    "Regularizer",
    "StructuredClassifier",
    "count_multiply_adds",
    "make_convnet",
    "make_mlp",
]
