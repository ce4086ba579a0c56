"""The scikit-learn contract, the training, and the interface of a method."""

from sklearn_structreg.compaction.counting import count_multiply_adds
from sklearn_structreg.core.classifier import StructuredClassifier
from sklearn_structreg.core.dataset_rows import as_rows
from sklearn_structreg.core.deployment import ExportReport, export
from sklearn_structreg.core.insertion import insert_layer, remove_layers
from sklearn_structreg.core.modules import make_convnet, make_mlp
from sklearn_structreg.core.options import Training
from sklearn_structreg.core.rate_finder import LearningRateDisplay
from sklearn_structreg.core.regressor import StructuredRegressor
from sklearn_structreg.core.regularizer import Regularizer
from sklearn_structreg.core.regularizer_callback import RegularizerCallback
from sklearn_structreg.core.size_display import SizeDisplay

__all__ = [
    "ExportReport",
    "LearningRateDisplay",
    "Regularizer",
    "RegularizerCallback",
    "SizeDisplay",
    "StructuredClassifier",
    "StructuredRegressor",
    "Training",
    "as_rows",
    "count_multiply_adds",
    "export",
    "insert_layer",
    "make_convnet",
    "make_mlp",
    "remove_layers",
]
