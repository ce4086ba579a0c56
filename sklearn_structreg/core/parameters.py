"""Parameters declared, checked and documented once, for every class that has them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

import numpy as np
from sklearn.utils._param_validation import Interval, Options

__all__ = ["Number", "component", "parameter", "parameter_of", "strict"]

Class = TypeVar("Class", bound=type)


class Number(Interval):
    """An interval of finite numbers; True and False are none."""

    def is_satisfied_by(self, value: Any) -> bool:
        """Whether a value lies in the interval."""
        if isinstance(value, bool | np.bool_) or not super().is_satisfied_by(value):
            return False
        return math.isfinite(value)


class Choice(Options):
    """One of some numbers; True and False are none."""

    def is_satisfied_by(self, value: Any) -> bool:
        """Whether a value is among the numbers."""
        truth = isinstance(value, bool | np.bool_)
        return not truth and bool(super().is_satisfied_by(value))


def strict(constraints: Sequence[Any]) -> list[Any]:
    """Take no truth value, and nothing infinite, for a number."""
    return [_strict(each) for each in constraints]


def _strict(constraint: Any) -> Any:
    if isinstance(constraint, Interval):
        ends = constraint.left, constraint.right
        return Number(constraint.type, *ends, closed=constraint.closed)
    if type(constraint) is Options:  # a kind of its own has its own rule
        return Choice(constraint.type, constraint.options)
    return constraint


def parameter(
    default: Any,
    constraints: Sequence[Any],
    kind: str,
    doc: str,
    *,
    kw_only: bool = True,
) -> Any:
    """Declare a constructor parameter.

    Parameters
    ----------
    default : object
        Its default; immutable.
    constraints : sequence
        As in scikit-learn's ``_parameter_constraints``.
    kind : str
        Its type as numpydoc shows it, without the default.
    doc : str
        Its description; line breaks do not matter.
    kw_only : bool, default=True
        Whether it is passed by keyword only.
    """
    metadata = {"constraints": list(constraints), "kind": kind, "doc": doc}
    return field(default=default, kw_only=kw_only, metadata=metadata)


def parameter_of(
    owner: type, name: str, *, default: Any = MISSING, kw_only: bool = True
) -> Any:
    """Declare a parameter of another class once more, with another default."""
    known: Field[Any] = owner.__dataclass_fields__[name]  # type: ignore[attr-defined]
    if default is MISSING:
        default = known.default
    return field(default=default, kw_only=kw_only, metadata=known.metadata)


@dataclass_transform()
def component(cls: Class) -> Class:
    """Make a class whose annotated attributes are its constructor's parameters.

    The constructor, scikit-learn's table of constraints, and the entries for the line
    ``{parameters}`` of the docstring all follow from the declarations, inherited ones
    included.

    Parameters
    ----------
    cls : type
        A `BaseEstimator`, or a mixin of parameters.

    Returns
    -------
    type
        `cls`.

    Examples
    --------
    >>> from sklearn.base import BaseEstimator
    >>> from sklearn_structreg.core.parameters import component, parameter
    >>> @component
    ... class Shrinkage(BaseEstimator):
    ...     rate: float = parameter(0.5, [float], "float", "Share.", kw_only=False)
    >>> Shrinkage(0.25)
    Shrinkage(rate=0.25)
    """
    made: Any = dataclass(eq=False, repr=False, match_args=False)(cls)
    declared = _own_first(made)
    made._parameter_constraints = {
        name: strict(each.metadata["constraints"]) for name, each in declared.items()
    }
    if made.__doc__ and "{parameters}" in made.__doc__:
        made.__doc__ = _fill_in(made.__doc__, declared)
    for name in declared:  # a default as a class attribute would look like a value
        if name in vars(made):
            delattr(made, name)
    return cls


def _own_first(cls: type) -> dict[str, Field[Any]]:
    """Sort fields: positional ones, then those of the class itself, then inherited."""
    known = {each.name: each for each in fields(cls)}
    order = [name for name, each in known.items() if not each.kw_only]
    for klass in cls.__mro__:
        order += [n for n in vars(klass).get("__annotations__", ()) if n in known]
    return {name: known[name] for name in dict.fromkeys(order)}


def _fill_in(doc: str, declared: dict[str, Field[Any]]) -> str:
    """Write the parameters' entries in place of the line ``{parameters}``."""
    lines = doc.splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip() == "{parameters}")
    margin = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    entries = [
        entry
        for name, each in declared.items()
        for entry in _entry(name, each.default, each.metadata)
    ]
    return "\n".join([*lines[:at], *(margin + e for e in entries), *lines[at + 1 :]])


def _entry(name: str, default: Any, metadata: Any) -> list[str]:
    shown = f'"{default}"' if isinstance(default, str) else repr(default)
    text = textwrap.wrap(
        " ".join(metadata["doc"].split()),
        width=76,
        break_on_hyphens=False,
        break_long_words=False,
    )
    heading = f"{name} : {metadata['kind']}, default={shown}"
    return [heading, *(f"    {line}" for line in text)]
