"""Fingerprints of parameters and data: equal for equal content, in any process."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import types
from collections.abc import Mapping
from contextlib import suppress
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset

from sklearn_structreg.core.dataset_items import first_sample
from sklearn_structreg.core.randomness import seeded
from sklearn_structreg.core.state_files import add_tensor

__all__ = ["fingerprint", "fingerprint_of_samples"]

SIMPLE = (type(None), bool, int, float, complex, str, bytes, PurePath)
NAMED = (type, types.FunctionType, types.BuiltinFunctionType)
CHANGING = (np.random.RandomState, np.random.Generator, torch.Generator)


def fingerprint(value: Any) -> str:
    """Hash a parameter or an array by its content.

    Networks count with their weights, fitted estimators with their networks, functions
    with their code, and callbacks by their class and simple parameters alone, since a
    training changes them. Of random states only the class counts.

    Examples
    --------
    >>> from sklearn_structreg.core.fingerprint import fingerprint
    >>> fingerprint([1, 2]) == fingerprint([1, 2]) != fingerprint([1, 3])
    True
    """
    digest = hashlib.sha256()
    _feed(digest, value, ())
    return digest.hexdigest()


def fingerprint_of_samples(samples: Any) -> str:
    """Hash an array, or a `Dataset` by its length and by its first item, if that stays.

    A dataset that draws its items anew each time has only the length.
    """
    if not isinstance(samples, Dataset):
        return fingerprint(samples)
    with seeded(0, torch.device("cpu")):
        items = [fingerprint(first_sample(samples)) for _ in range(2)]
    n_samples = len(samples)  # type: ignore[arg-type]
    return fingerprint([n_samples, *(items if items[0] == items[1] else [])])


def _feed(digest: Any, value: Any, inside: tuple[int, ...]) -> None:
    """Add a value to a digest; `inside` are the ids of all that hold it."""

    def add(*parts: Any) -> None:
        for part in parts:
            _feed(digest, part, (*inside, id(value)))

    if isinstance(value, np.generic):
        value = value.item()
    digest.update(f"<{_name(type(value))}>".encode())
    if id(value) in inside or isinstance(value, CHANGING):
        return
    if isinstance(value, SIMPLE):
        text = str(value)
        digest.update(f"{len(text)} {text}".encode())
    elif isinstance(value, Tensor):
        if not is_lazy(value):
            add_tensor(digest, value.detach().cpu().contiguous())
    elif isinstance(value, np.ndarray):
        add(value.shape, value.dtype.str)
        if value.dtype.hasobject:
            add(value.ravel().tolist())
        else:
            digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
    elif issparse(value):  # without its notes on itself, which come and go
        entries: Any = value
        entries = entries.tocoo()
        add(entries.shape, entries.data, entries.row, entries.col)
    elif isinstance(value, NAMED):
        add(*_code_of(value))
    elif isinstance(value, Mapping):
        pairs = [(fingerprint(key), item) for key, item in value.items()]
        add(*sorted(pairs, key=lambda pair: pair[0]))
    elif isinstance(value, set | frozenset):
        add(*sorted(map(fingerprint, value)))
    elif isinstance(value, list | tuple):
        add(len(value), *value)
    else:
        add(*_parts_of_object(value))
    digest.update(b"</>")


def _parts_of_object(value: Any) -> list[Any]:
    """Return the content of an object."""
    if isinstance(value, nn.Module):
        return _parts_of_network(value)
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, Callback):
        return [(name, _constant(x)) for name, x in _parameters_of(value).items()]
    if hasattr(value, "get_params"):
        return [value.get_params(deep=False), getattr(value, "module_", None)]
    if hasattr(value, "__dict__"):
        return [vars(value)]
    return [re.sub(r" at 0x\w+", "", repr(value))]


def _parts_of_network(module: nn.Module) -> list[Any]:
    """Return a network's layers with their simple attributes, and its weights."""
    parts: list[Any] = [
        (name, type(layer), {k: _constant(v) for k, v in sorted(vars(layer).items())})
        for name, layer in module.named_modules()
    ]
    learned = [parameter.requires_grad for parameter in module.parameters()]
    return [*parts, learned, dict(module.state_dict())]


def _parameters_of(callback: Callback) -> dict[str, Any]:
    """Return the constructor's parameters that are kept as attributes."""
    names = inspect.signature(type(callback)).parameters
    found: dict[str, Any] = {
        n: getattr(callback, n) for n in names if hasattr(callback, n)
    }
    for name in [n for n, value in found.items() if isinstance(value, dict)]:
        found |= {f"{name}__{key}": item for key, item in found.pop(name).items()}
    return found


def _constant(value: Any) -> Any:
    """Return a value that nothing changes, or else its class."""
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    return value if isinstance(value, (*SIMPLE, *NAMED)) else type(value)


def _code_of(value: Any) -> list[Any]:
    """Return a function's code, with its defaults and the constants around it.

    Of classes and of functions that are built in, return the name.
    """
    code = getattr(value, "__code__", None)
    if code is None:
        return [_name(value)]
    around = [value.__defaults__ or ()]
    for cell in value.__closure__ or ():
        with suppress(ValueError):  # of a name that has no value yet
            around.append(cell.cell_contents)
    return [*_content_of(code), *map(_constant, around)]


def _content_of(code: types.CodeType) -> list[Any]:
    constants = [
        _content_of(x) if isinstance(x, types.CodeType) else _constant(x)
        for x in code.co_consts
    ]
    return [code.co_code, code.co_names, constants]


def _name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
