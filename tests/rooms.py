"""The rooms of the house and the classes in them, found by looking."""

import importlib
import inspect
import pkgutil

import sklearn_structreg
from sklearn_structreg.core import Regularizer
from sklearn_structreg.core.estimator import StructuredEstimator


def rooms():
    """Return the packages of the house by name."""
    names = [
        m.name for m in pkgutil.iter_modules(sklearn_structreg.__path__) if m.ispkg
    ]
    return {n: importlib.import_module(f"sklearn_structreg.{n}") for n in sorted(names)}


def public_classes(base):
    """Return the public classes that derive from `base`."""
    return [
        cls
        for room in rooms().values()
        for name in room.__all__
        if inspect.isclass(cls := getattr(room, name)) and issubclass(cls, base)
    ]


ESTIMATORS = public_classes(StructuredEstimator)
REGULARIZERS = [r for r in public_classes(Regularizer) if r is not Regularizer]
