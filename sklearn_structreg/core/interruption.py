"""Ctrl-C in a training: noted at once, acted on after the running step."""

from __future__ import annotations

import builtins
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = [
    "Interruption",
    "TrainingInterrupted",
    "called_at_prompt",
    "noting_interrupts",
]

OWN_MODULES = ("sklearn_structreg.core.estimator", "sklearn.base")


class TrainingInterrupted(Exception):  # noqa: N818 (no error)
    """Raised between two steps; skorch takes `KeyboardInterrupt` for an early stop."""


class Interruption:
    """Whether Ctrl-C has been pressed.

    With `keep` the epochs before are kept, so that the interruption ends here. With
    `at_once` it is raised in the midst of a step, for a training of others, which does
    not `check`.
    """

    def __init__(self, *, keep: bool = False, at_once: bool = False) -> None:
        self.keep, self.at_once = keep, at_once
        self.requested = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal; a second one interrupts whatever runs."""
        if self.requested:
            signal.default_int_handler(number, frame)
        self.requested = True
        if self.at_once:
            raise TrainingInterrupted

    def check(self) -> None:
        """Raise `TrainingInterrupted` if Ctrl-C has been pressed."""
        if self.requested:
            raise TrainingInterrupted


@contextmanager
def noting_interrupts(
    *, keep: bool = False, at_once: bool = False
) -> Iterator[Interruption]:
    """Note Ctrl-C inside of this context, and raise `KeyboardInterrupt` at its end.

    With `keep` it is not raised if all goes well. A handler of the user's own stays in
    place, and other threads get no signals.
    """
    interruption = Interruption(keep=keep, at_once=at_once)
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
    if interruption.requested and not keep:
        raise KeyboardInterrupt


def called_at_prompt() -> bool:
    """Whether a line at a prompt, or of a notebook's cell, has called `fit` itself.

    Then an interrupted training may end as a shorter one. Whatever else calls `fit`, a
    grid search, a pipeline or a function, would take it for a whole one.
    """
    if not (hasattr(sys, "ps1") or hasattr(builtins, "__IPYTHON__")):
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame and frame.f_globals.get("__name__") in OWN_MODULES:
        frame = frame.f_back
    return (
        frame is not None
        and frame.f_locals is frame.f_globals  # no function
        and frame.f_globals.get("__name__") == "__main__"
    )
