"""Parts of error messages: values and other people's errors in a few words."""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

__all__ = ["explaining", "shown"]

PACKAGE = str(Path(__file__).parents[1])
LONGEST_VALUE, LONGEST_REASON = 60, 110
PLAIN = (RuntimeError, ValueError, TypeError)


def shown(value: Any) -> str:
    """Return a value as it is written in Python, shortened to one line."""
    return textwrap.shorten(repr(value), LONGEST_VALUE, placeholder="...") or "..."


@contextmanager
def explaining(sentence: str) -> Iterator[None]:
    """Raise any error of a user's own code as a `ValueError` of one sentence.

    The place of ``{}`` in `sentence` is taken by the error's first line. An error of
    this package says enough by itself.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        if isinstance(error, ValueError | ConnectionError) and _is_ours(error):
            raise
        lines = str(error).strip().splitlines() or ["no reason given"]
        reason = textwrap.shorten(lines[0], LONGEST_REASON, placeholder="...")
        # NotImplementedError is a RuntimeError, but its own name says more.
        if not isinstance(error, PLAIN) or isinstance(error, NotImplementedError):
            reason = f"{type(error).__name__}, {reason}"
        raise ValueError(sentence.replace("{}", reason.rstrip("."))) from error


def _is_ours(error: Exception) -> bool:
    """Whether this package has raised an error."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename.startswith(PACKAGE) and "raise" in (last.line or "")
