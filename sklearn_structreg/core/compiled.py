"""Loops compiled by numba, which is imported on first use."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from types import FunctionType
from typing import Any

PATIENCE = 2.0  # seconds before a compilation is announced

_first = Lock()  # stays locked: one announcement in a process


def compile_loop(
    loop: Callable[..., Any], signature: str, *parts: Callable[..., Any]
) -> Callable[..., Any]:
    """Compile plain loops over arrays, and keep the machine code on disk if possible.

    `signature` has the types in numba's notation; `parts` are functions of the same
    module that `loop` and they call. The result releases the interpreter's lock.
    """
    import numba

    # Only sums may be taken in another order, several terms at a time.
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"reassoc"},
    }
    if parts:
        # A function finds the functions it calls in its globals: here compiled ones.
        names = dict(loop.__globals__)
        for part in parts:
            names[part.__name__] = numba.njit(_with_globals(part, names), **options)
        loop = _with_globals(loop, names)
    compiled: Callable[..., Any]
    with _announced():
        try:
            compiled = numba.njit(signature, cache=True, **options)(loop)
        except Exception:  # nowhere to write, a full disk, a damaged file
            compiled = numba.njit(signature, **options)(loop)
    return compiled


@contextmanager
def _announced() -> Iterator[None]:
    """Announce a compilation that takes long, the first one of the process."""
    from numba.core import event

    message = (
        "Compiling inner loops for this machine; this happens once per installation "
        "and takes some seconds."
    )

    class Clock(event.Listener):
        """Begins to wait where a compilation does, not where code is read."""

        def on_start(self, event: Any) -> None:
            if timer.ident is None:  # of several, one inside of another
                timer.start()

        def on_end(self, event: Any) -> None:
            """Wait on for the others."""

    def announce() -> None:
        if _first.acquire(blocking=False):
            logging.getLogger("sklearn_structreg").warning(message)

    timer = Timer(PATIENCE, announce)
    timer.daemon = True
    with event.install_listener("numba:compile", Clock()):
        try:
            yield
        finally:
            timer.cancel()


def _with_globals(loop: Any, names: dict[str, Any]) -> FunctionType:
    """Copy a function so that it looks up its globals in `names`."""
    return FunctionType(loop.__code__, names, loop.__name__, loop.__defaults__)
