"""The scikit-learn contract on a private skorch net, shared by every method."""

from .classifier import StructuredClassifier
from .modules import make_convnet, make_mlp
from .regularizer import Regularizer

__all__ = ["Regularizer", "StructuredClassifier", "make_convnet", "make_mlp"]
