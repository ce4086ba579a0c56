"""Ctrl-C in a training: noted at once, acted on after the running step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interruption", "TrainingInterrupted", "noting_interrupts"]


class TrainingInterrupted(Exception):  # noqa: N818 (no error)
    """Raised between two steps; skorch takes `KeyboardInterrupt` for an early stop."""


class Interruption:
    """Whether Ctrl-C has been pressed."""

    def __init__(self) -> None:
        self.requested = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal; a second one interrupts whatever runs."""
        if self.requested:
            signal.default_int_handler(number, frame)
        self.requested = True

    def check(self) -> None:
        """Raise `TrainingInterrupted` if Ctrl-C has been pressed."""
        if self.requested:
            raise TrainingInterrupted


@contextmanager
def noting_interrupts() -> Iterator[Interruption]:
    """Note Ctrl-C inside of this context, and raise `KeyboardInterrupt` at its end.

    A handler of the user's own stays in place, and other threads get no signals.
    """
    interruption = Interruption()
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, interruption.note)
    try:
        yield interruption
    except TrainingInterrupted:
        raise KeyboardInterrupt from None
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if interruption.requested:
        raise KeyboardInterrupt
