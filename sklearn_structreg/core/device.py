"""Where and in which precision to compute."""

from __future__ import annotations

import re
from multiprocessing import current_process

import torch

__all__ = ["dtype_name", "resolve_device", "resolve_dtype"]


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn the `device` parameter into a device that is really there."""
    if device == "auto":
        device = _own_gpu() if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={device!r} is not a device that torch knows; use 'auto', 'cpu', "
            "'cuda' or 'cuda:<index>'."
        ) from error
    found = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "meta": 0,  # holds no numbers
    }
    if (resolved.index or 0) >= found.get(resolved.type, 1):
        raise ValueError(
            f"device={str(device)!r} was asked for, but torch finds "
            f"{found[resolved.type]} {resolved.type} device(s) on this machine; use "
            "device='auto' for the one that is there."
        )
    return resolved


def _own_gpu() -> str:
    """Return the GPU to use: workers of a pool, which are numbered, take turns."""
    number = re.search(r"-(\d+)$", current_process().name)
    n_devices = torch.cuda.device_count()
    return "cuda" if number is None else f"cuda:{int(number[1]) % n_devices}"


def resolve_dtype(name: str) -> torch.dtype:
    """Turn a name, such as the `dtype` parameter, into torch's precision."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a precision, such as "float32"."""
    return str(dtype).removeprefix("torch.")
