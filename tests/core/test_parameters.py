"""Parameters declared once: constructor, constraints, help, nested names."""

import inspect
import re

import numpy as np
import pytest
from rooms import ESTIMATORS, REGULARIZERS
from sklearn.base import BaseEstimator, clone
from sklearn.utils._param_validation import make_constraint

from sklearn_structreg.baselines import L2SP, Dropout
from sklearn_structreg.core import StructuredClassifier, Training
from sklearn_structreg.core.parameters import component, parameter, parameter_of


@component
class Shared(BaseEstimator):
    """Shared.

    Parameters
    ----------
    {parameters}

    Notes
    -----
    The end.
    """

    first: str = parameter("a", [str], "str", "The first.", kw_only=False)
    rate: float = parameter(0.5, [float], "float", "A rate\n        of things.")


@component
class Extended(Shared):
    """Extended.

    Parameters
    ----------
    {parameters}
    """

    second: int = parameter(2, [int], "int", "The second.", kw_only=False)
    rate: float = parameter_of(Shared, "rate", default=0.25)


def test_constructor_constraints_and_help_follow_from_the_declaration():
    assert str(inspect.signature(Extended)) == (
        "(first: str = 'a', second: int = 2, *, rate: float = 0.25) -> None"
    )
    assert Extended._parameter_constraints["rate"] == [float]
    assert " ".join(Extended.__doc__.split()) == (
        'Extended. Parameters ---------- first : str, default="a" The first. second : '
        "int, default=2 The second. rate : float, default=0.25 A rate of things."
    )
    assert Shared.__doc__.rstrip().endswith("The end.")
    assert not hasattr(Extended, "rate")
    model = clone(Extended("b", rate=0.1))
    assert model.get_params() == {"first": "b", "second": 2, "rate": 0.1}
    assert model != clone(model)


@pytest.mark.parametrize("cls", [*ESTIMATORS, *REGULARIZERS], ids=lambda c: c.__name__)
def test_every_parameter_is_described_in_the_help_of_every_class(cls):
    described = re.findall(r"^(\w+) : .*default=", inspect.getdoc(cls), re.MULTILINE)
    assert sorted(described) == cls._get_param_names()
    assert "{parameters}" not in cls.__doc__


@pytest.mark.parametrize(
    "cls", [*ESTIMATORS, *REGULARIZERS, Training], ids=lambda c: c.__name__
)
def test_a_truth_value_is_no_number(cls):
    as_sklearn = {"random_state", "verbose"}
    taken = {
        name
        for name, constraints in cls._parameter_constraints.items()
        for value in (True, np.True_)
        if "boolean" not in constraints
        and any(make_constraint(c).is_satisfied_by(value) for c in constraints)
    }
    assert taken <= as_sklearn


def test_regularizers_are_named_set_and_replaced_as_steps_of_a_pipeline():
    model = StructuredClassifier(
        regularizers=[Dropout(0.1), ("near", L2SP(0.5)), L2SP(), Dropout(0.2)]
    )
    params = model.get_params()
    assert params["regularizers__dropout-1__drop_rate"] == 0.1
    assert params["regularizers__dropout-2"].drop_rate == 0.2
    copy = clone(model).set_params(
        regularizers__near__alpha=2.0, regularizers__l2sp=Dropout(0.3)
    )
    assert copy.get_params()["regularizers__near__alpha"] == 2.0
    assert copy.get_params()["regularizers__l2sp__drop_rate"] == 0.3
    assert model.get_params()["regularizers__near__alpha"] == 0.5
    with pytest.raises(ValueError, match="but no 'cges'"):
        model.set_params(regularizers__cges__alpha=1.0)
    with pytest.raises(ValueError, match="Invalid parameter 'strength'"):
        model.set_params(regularizers__near__strength=1.0)
