"""Nested values with arrays and tensors in one file: safetensors and JSON, no pickle.

Reading such a file never runs code, writing it is atomic, and a changed bit is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = [
    *("STATE", "add_tensor", "decode", "encode", "is_plain", "read_metadata"),
    *("read_state", "replacing", "write_state"),
]

KIND, STATE = "__kind__", "state"
PLAIN = (type(None), bool, int, float, str, Tensor, np.generic)


def write_state(path: str | os.PathLike[str], state: Any) -> None:
    """Write a nested value; an earlier file stays whole until the new one is.

    The new file has the earlier one's permissions. A link stays one.

    Parameters
    ----------
    path : path-like
        The file. Its folder exists.
    state : dict, list, tuple, set, None, bool, number, str, ndarray, Tensor, slice
        Nested in any way; a dictionary's keys likewise.

    Raises
    ------
    TypeError
        For a value of another type; it names its place.
    OSError
        If the file cannot be written, as on a full disk.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(encode(state, tensors))
    metadata = {STATE: text, "digest": _digest(text, tensors)}
    with replacing(path) as unfinished:
        save_file(tensors, unfinished, metadata)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a file to write; it takes the place of `path` unless there is an error."""
    path = Path(path).resolve()
    own = f"{os.getpid()}-{threading.get_ident()}"
    unfinished = path.with_name(f".{path.name}.{own}.unfinished")
    try:
        unfinished.touch()
        mode = (path if path.exists() else unfinished).stat().st_mode
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.chmod(mode)  # safetensors would let nobody else read it
        os.replace(unfinished, path)
    except (OSError, SafetensorError) as error:
        kind = type(error) if isinstance(error, OSError) else OSError
        reason = getattr(error, "strerror", None) or error
        raise kind(f"{str(path)!r} cannot be written: {reason}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def read_state(path: str | os.PathLike[str]) -> Any:
    """Read what `write_state` wrote; tensors come on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        text = metadata[STATE]
        if _digest(text, tensors) != metadata["digest"]:
            raise ValueError("its checksum is another one")
        return decode(json.loads(text), tensors)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"The file {str(path)!r} is damaged or was not written by save() "
            f"({str(error).splitlines()[0]}); take another copy of it."
        ) from error


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the strings in the head of a safetensors file; none of any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def encode(value: Any, tensors: dict[str, Tensor], place: str = "state") -> Any:
    """Return `value` as JSON can hold it, and put its arrays into `tensors`.

    Raises
    ------
    TypeError
        For a value of another type than `write_state` takes.
    """

    def inner(items: Any) -> list[Any]:
        return [encode(x, tensors, f"{place}[{i}]") for i, x in enumerate(items)]

    def tagged(kind: str, **content: Any) -> dict[str, Any]:
        return {KIND: kind, **content}

    if isinstance(value, Tensor):
        return tagged("tensor", key=_put(value, tensors))
    if isinstance(value, np.generic):
        return tagged("scalar", array=encode(np.asarray(value), tensors, place))
    for base in (bool, int, float, str):
        if isinstance(value, base):
            return base(value)
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
            native = np.ascontiguousarray(value, value.dtype.newbyteorder("="))
            tensor = torch.from_numpy(native.reshape(value.shape).copy())
            return tagged("array", key=_put(tensor, tensors))
        if value.dtype.kind in "UO":
            items, dtype = inner(value.ravel().tolist()), value.dtype.str
            return tagged("items", items=items, dtype=dtype, shape=list(value.shape))
    if type(value) is list:
        return inner(value)
    if type(value) in (tuple, set, frozenset):
        return tagged(type(value).__name__, items=inner(value))
    if isinstance(value, slice):
        return tagged("slice", items=inner((value.start, value.stop, value.step)))
    if isinstance(value, Mapping):
        if all(type(key) is str and key != KIND for key in value):
            return {k: encode(v, tensors, f"{place}[{k!r}]") for k, v in value.items()}
        return tagged("pairs", items=inner(map(list, value.items())))
    dtype = f" of dtype {value.dtype}" if isinstance(value, np.ndarray) else ""
    raise TypeError(
        f"{place} is of type {type(value).__name__}{dtype}, which no file of "
        "safetensors and JSON can hold."
    )


def is_plain(value: Any) -> bool:
    """Whether `encode` takes a value, arrays of objects left out."""
    if isinstance(value, Mapping):
        return all(map(is_plain, [*value.keys(), *value.values()]))
    if type(value) in (list, tuple, set, frozenset):
        return all(map(is_plain, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufU"
    return isinstance(value, PLAIN)


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the value that `encode` has turned into JSON and tensors."""
    if isinstance(value, list):
        return [decode(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if KIND not in value:
        return {key: decode(part, tensors) for key, part in value.items()}
    kind, items = (
        value[KIND],
        [decode(part, tensors) for part in value.get("items", ())],
    )
    if kind == "items":
        array = np.empty(len(items), value["dtype"])
        array[:] = items
        return array.reshape(value["shape"])
    if kind == "tensor":
        return tensors[value["key"]]
    if kind == "array":
        return tensors[value["key"]].numpy()
    if kind == "scalar":
        return decode(value["array"], tensors)[()]
    return CONTAINERS[kind](items)


CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "pairs": dict,
    "slice": lambda items: slice(*items),
}


def _put(tensor: Tensor, tensors: dict[str, Tensor]) -> str:
    key = f"tensor{len(tensors)}"
    tensors[key] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return key


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Return a checksum of the text, and of every tensor's name, type, shape, bits."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} ".encode())
        add_tensor(digest, tensors[name])
    return digest.hexdigest()


def add_tensor(digest: Any, tensor: Tensor) -> None:
    """Add the type, shape and bits of a tensor on the CPU to a digest."""
    digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.flatten().view(torch.uint8).numpy())
