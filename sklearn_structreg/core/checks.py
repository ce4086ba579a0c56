"""Checks of arguments that scikit-learn's tables of constraints do not cover."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from torch import nn

from sklearn_structreg.core.messages import shown

__all__ = [
    "check_integer",
    "check_kind",
    "check_network",
    "check_share",
    "check_sizes",
    "check_table",
    "is_integer",
    "is_number",
]


def is_integer(value: Any, least: int = 1) -> bool:
    """Whether a value is an integer of at least `least`; True and False are none."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and int(value) >= least


def check_sizes(name: str, sizes: Any, *, empty: bool = False) -> tuple[int, ...]:
    """Return a sequence of positive integers, or raise."""
    flat = isinstance(sizes, np.ndarray) and sizes.ndim == 1
    several = flat or (isinstance(sizes, Sequence) and not isinstance(sizes, str))
    found = list(sizes) if several else []
    if not (several and (found or empty) and all(map(is_integer, found))):
        raise ValueError(
            f"{name}={shown(sizes)} must be a sequence of positive integers."
        )
    return tuple(map(int, found))


def is_number(value: Any) -> bool:
    """Whether a value is a real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def check_integer(name: str, value: Any, least: int = 1, more: str = "") -> int:
    """Return an integer of at least `least`, or raise; `more` is an alternative."""
    if not is_integer(value, least):
        raise ValueError(
            f"{name}={shown(value)} must be an integer of at least {least}{more}."
        )
    return int(value)


def check_share(name: str, value: Any, *, below_one: bool = False) -> float:
    """Return a number from 0 to 1, or raise."""
    if not (is_number(value) and 0 <= value <= 1 and not (below_one and value == 1)):
        end = "and below 1" if below_one else "and at most 1"
        raise ValueError(f"{name}={shown(value)} must be at least 0 {end}.")
    return float(value)


def check_kind(estimator: Any, member: str, kinds: str) -> None:
    """Raise a `TypeError` for another estimator than those with a certain member."""
    if not hasattr(type(estimator), member):
        raise TypeError(
            f"estimator={shown(estimator)} must be {kinds}; of a pipeline give the "
            "last step."
        )


def check_network(**modules: Any) -> None:
    """Raise a `TypeError` for the first argument that is no torch module."""
    for name, module in modules.items():
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"{name}={shown(module)} must be a torch.nn.Module; of a fitted "
                "estimator pass its module_."
            )


def check_table(values: Any, name: str) -> None:
    """Refuse dates, which numpy would take for numbers, and columns of one name."""
    columns = getattr(values, "columns", ())
    if len(set(columns)) < len(columns):
        raise ValueError(
            f"{name} has columns of the same name; give each column a name of its own."
        )
    kinds: Any = getattr(values, "dtypes", getattr(values, "dtype", None))
    kinds = np.atleast_1d(kinds)
    if any(getattr(kind, "kind", "") in ("m", "M") for kind in kinds):
        raise ValueError(
            f"{name} holds dates or durations; turn them into numbers first, such as "
            "the days since the first."
        )
