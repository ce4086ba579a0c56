"""Loops compiled by numba, where it is installed. It is imported on first use."""

from collections.abc import Callable
from types import FunctionType
from typing import Any


def compile_loop(
    loop: Callable[..., Any],
    signature: str,
    *parts: Callable[..., Any],
) -> Callable[..., Any] | None:
    """Compile a loop, and keep the machine code on disk where that can be.

    Parameters
    ----------
    loop : function
        Plain loops over arrays, in a module of their own.
    signature : str
        Its types, in numba's notation.
    *parts : functions
        Functions of the same module that `loop` and they call.

    Returns
    -------
    function or None
        The compiled loop, which releases the interpreter's lock; None without numba.
    """
    try:
        import numba
    except ImportError:
        return None
    if getattr(numba.config, "DISABLE_JIT", False):
        return None
    # Only sums may be taken in another order, several terms at a time.
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"reassoc"},
    }
    if parts:
        # What a function calls is looked up in its globals: these hold compiled parts.
        names = dict(loop.__globals__)
        for part in parts:
            names[part.__name__] = numba.njit(_with_globals(part, names), **options)
        loop = _with_globals(loop, names)
    compiled: Callable[..., Any]
    try:
        compiled = numba.njit(signature, cache=True, **options)(loop)
    except Exception:  # nowhere to write, a full disk, a damaged file
        compiled = numba.njit(signature, **options)(loop)
    return compiled


def _with_globals(loop: Any, names: dict[str, Any]) -> FunctionType:
    """Copy a function so that it looks up its globals in `names`."""
    return FunctionType(loop.__code__, names, loop.__name__, loop.__defaults__)
