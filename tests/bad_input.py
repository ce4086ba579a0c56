"""Tables of bad input, and the one check that every case of them goes through."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sklearn
import torch

import sklearn_structreg

OURS = Path(sklearn_structreg.__file__).parent
THEIRS = Path(sklearn.__file__).parent
LONGEST = 300


class Case(NamedTuple):
    """A call, and the error that it must end in."""

    name: str
    words: str  # a regular expression within the message
    call: Callable[..., Any]
    on: Any = None  # an estimator that the call gets, or a function that makes it
    error: type[Exception] = ValueError


def settings(
    table: dict[str, list[Any]],
    make: Callable[..., Any],
    call: Callable[..., Any],
    words: str = "'{name}' parameter of {kind} must be",
) -> list[Case]:
    """Make a case of each wrong value of each parameter."""
    cases = []
    for name, values in table.items():
        for value in values:
            on = make(**{name: value})
            text = words.format(name=name, kind=type(on).__name__)
            cases.append(Case(f"{name}={value!r:.30}", text, call, on))
    return cases


def every(cases: list[Case]) -> pytest.MarkDecorator:
    """Parametrize a test by cases, each named by its own name."""
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), sorted(n for n in names if names.count(n) > 1)
    return pytest.mark.parametrize("case", cases, ids=names)


def check(case: Case) -> None:
    """Check that a case ends in one sentence of its own, and changes nothing."""
    on = [case.on() if inspect.isfunction(case.on) else case.on]
    if on[0] is None:
        on = []
    before = [_state(x) for x in on]
    with pytest.raises(case.error) as caught:
        case.call(*on)
    message = str(caught.value)
    assert re.search(case.words, message), message
    file = Path(traceback.extract_tb(caught.value.__traceback__)[-1].filename)
    assert file.is_relative_to(OURS) or file.is_relative_to(THEIRS), (file, message)
    if file.is_relative_to(OURS):
        assert "\n" not in message, message
        assert len(message) <= LONGEST, message
        assert message.endswith("."), message
    assert [_state(x) for x in on] == before, "the object has changed"


def _state(thing: Any) -> Any:
    """Describe all that an object holds: its attributes, and a network's tensors."""
    state: dict[str, Any] = {key: id(value) for key, value in vars(thing).items()}
    net = getattr(thing, "net_", None)
    if net is not None:
        state["epochs"] = len(net.history)
        tensors = net.module_.state_dict().items()
        state |= {
            f"net.{k}": v.tolist() for k, v in tensors if isinstance(v, torch.Tensor)
        }
    return state
