"""Parameters as plain values, for files, and back; only known classes have names."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

__all__ = ["from_plain", "known_classes", "to_plain"]

KIND = "__object__"
PLAIN = (bool, int, float, str, np.ndarray, np.generic, torch.Tensor, slice, type(None))
CONTAINERS = (list, tuple, set, frozenset)
MADE = (BaseEstimator, nn.modules.loss._Loss)


@cache
def known_classes() -> dict[str, type]:
    """Return the classes that a file may name: those of this package and of torch."""
    found: dict[str, type] = {}
    package = importlib.import_module(__name__.partition(".")[0])
    for room in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if room.ispkg:
            module = importlib.import_module(room.name)
            found |= {name: getattr(module, name) for name in module.__all__}
    for torch_module in (torch.optim, nn):
        members = vars(torch_module).items()
        found |= {f"{torch_module.__name__}.{name}": v for name, v in members}
    return {name: each for name, each in found.items() if inspect.isclass(each)}


def to_plain(value: Any, place: str) -> Any:
    """Return a parameter as a value that `write_state` takes.

    Raises
    ------
    TypeError
        For a function, or an object of a class that a file cannot name.
    """
    if isinstance(value, PLAIN):
        return value
    if type(value) in CONTAINERS:
        return type(value)(to_plain(item, place) for item in value)
    if isinstance(value, Mapping):
        return {key: to_plain(item, place) for key, item in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, torch.device):
        return {KIND: "device", "name": str(value)}
    if isinstance(value, np.random.RandomState):
        return {KIND: "random state", "state": value.get_state(legacy=False)}
    names = {each: name for name, each in known_classes().items()}
    if inspect.isclass(value) and value in names:
        return {KIND: "class", "name": names[value]}
    kind = type(value)
    if kind not in names or not isinstance(value, MADE):
        raise TypeError(
            f"{place} holds {value!r}, which no file of safetensors and JSON can name; "
            "pickle the estimator instead."
        )
    made_of = {
        name: to_plain(getattr(value, name), f"{place}.{name}")
        for name in inspect.signature(kind).parameters
        if hasattr(value, name)  # losses do not keep their deprecated arguments
    }
    return {KIND: "object", "name": names[kind], "parameters": made_of}


def from_plain(value: Any) -> Any:
    """Return the parameter that `to_plain` was given."""
    if type(value) in CONTAINERS:
        return type(value)(from_plain(item) for item in value)
    if not isinstance(value, dict):
        return value
    kind = value.get(KIND)
    if kind is None:
        return {key: from_plain(item) for key, item in value.items()}
    if kind == "device":
        return torch.device(value["name"])
    if kind == "random state":
        random_state = np.random.RandomState()
        random_state.set_state(value["state"])
        return random_state
    known: Any = known_classes().get(value["name"])
    if known is None or not (kind == "class" or issubclass(known, MADE)):
        raise ValueError(
            f"The file names {value['name']}, which this version makes no object of."
        )
    if kind == "class":
        return known
    return known(**from_plain(value["parameters"]))
