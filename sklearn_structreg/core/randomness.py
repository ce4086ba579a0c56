"""Random numbers of a training's own, whatever other threads draw.

Layers of this package draw from `own_generator`. All other code draws from torch's
global generators. These hold a training's own state for as long as such code runs, in
one thread at a time, and their former state after it.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = [
    "GLOBAL_LOCK",
    "Draws",
    "derive_seed",
    "kept_global_state",
    "own_generator",
    "seed_globals",
    "seeded",
]

GLOBAL_LOCK = threading.RLock()
"""Held by a thread that has changed something global for a while."""

LONGEST_STEP = 10.0  # seconds that a fork waits for other threads
MASK = 2**64 - 1

# Of these no class draws from the global generators,
PACKAGES = (f"{__name__.partition('.')[0]}.", "skorch.", "torch.optim.")
NO_DRAWS = {
    f"torch.nn.{name}"
    for name in (
        "functional",
        *(f"modules.{part}" for part in ("activation", "batchnorm", "channelshuffle")),
        *(f"modules.{part}" for part in ("container", "conv", "flatten", "fold")),
        *(f"modules.{part}" for part in ("instancenorm", "linear", "loss")),
        *(f"modules.{part}" for part in ("normalization", "padding", "pixelshuffle")),
        *(f"modules.{part}" for part in ("pooling", "upsampling")),
    )
}
# but for these.
DRAWING = ("FractionalMaxPool2d", "FractionalMaxPool3d", "MultiheadAttention", "RReLU")


class _Thread(threading.local):
    generators: dict[str, torch.Generator] | None = None
    forking = False  # whether it holds the lock for the moment of a fork


_thread = _Thread()


def _before_fork() -> None:
    """Let the step of another thread end: a child has no thread to end it."""
    _thread.forking = GLOBAL_LOCK.acquire(timeout=LONGEST_STEP)


def _after_fork() -> None:
    if _thread.forking:
        GLOBAL_LOCK.release()


def _after_fork_in_child() -> None:
    if _thread.forking:
        GLOBAL_LOCK.release()
    else:  # its owner does not exist here
        GLOBAL_LOCK._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork,
        after_in_child=_after_fork_in_child,
    )


def derive_seed(*parts: int) -> int:
    """Mix non-negative integers into one seed, as independent as their seeds are."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1


def own_generator(device: torch.device) -> torch.Generator | None:
    """Return the generator of the training that runs in this thread.

    Outside of one it is None, which stands for torch's global generator.
    """
    return None if _thread.generators is None else _thread.generators.get(device.type)


class Draws:
    """A context in which draws go on from a seed, or from where the last one ended.

    Parameters
    ----------
    seed : int
        The draws on the CPU and on `device` begin here.
    device : torch.device
        Of the layers.
    parts : iterable or None
        All that may draw: layers, losses, callbacks. If none of them draws from torch's
        global generators, these stay as they are, and other threads go on beside this
        one. None is anything.
    """

    def __init__(
        self, seed: int, device: torch.device, parts: Iterable[Any] | None = None
    ) -> None:
        self._global = {"cpu": torch.default_generator}
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
            index = (
                torch.cuda.current_device() if device.index is None else device.index
            )
            self._global["cuda"] = torch.cuda.default_generators[index]
        self._own = {
            kind: torch.Generator(generator.device).manual_seed(seed)
            for kind, generator in self._global.items()
        }
        self._shared = parts is None or any(map(_may_draw, parts))

    def __enter__(self) -> None:
        if self._shared:
            GLOBAL_LOCK.acquire()
            self._exchange()
        self._outer = _thread.generators
        _thread.generators = None if self._shared else self._own

    def __exit__(self, *error: object) -> None:
        _thread.generators = self._outer
        if self._shared:
            self._exchange()
            GLOBAL_LOCK.release()

    def _exchange(self) -> None:
        """Exchange the states of torch's generators and of the own ones."""
        for kind, generator in self._global.items():
            state = generator.get_state()
            generator.set_state(self._own[kind].get_state())
            self._own[kind].set_state(state)


def seeded(seed: int, device: torch.device) -> Draws:
    """Seed torch's generators of the CPU and of `device`, and restore them after."""
    return Draws(seed, device)


@contextmanager
def kept_global_state() -> Iterator[None]:
    """Restore the generators of torch, numpy and Python in the end."""
    with GLOBAL_LOCK:
        states = (
            torch.default_generator.get_state(),
            np.random.get_state(),  # noqa: NPY002 (the one that others' code draws from)
            random.getstate(),
        )
        try:
            yield
        finally:
            torch.default_generator.set_state(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            random.setstate(states[2])


def seed_globals(seed: int, row: int) -> None:
    """Seed the generators of torch, numpy and Python for a row."""
    mixed = (seed + (row + 1) * 0x9E3779B97F4A7C15) & MASK  # SplitMix64: fast
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & MASK
    mixed ^= mixed >> 31
    torch.default_generator.manual_seed(mixed)
    np.random.seed(mixed >> 32)  # noqa: NPY002
    random.seed(mixed)


def _may_draw(part: Any) -> bool:
    """Whether an object is not known to leave torch's global generators alone."""
    kind = part if isinstance(part, type | FunctionType) else type(part)
    if kind.__name__ in DRAWING or not _is_known(kind.__module__):
        return True
    if not isinstance(part, nn.Module):
        return False
    hooks = *part._forward_hooks.values(), *part._forward_pre_hooks.values()
    forward = vars(part).get("forward")
    replaced = forward and getattr(forward, "__func__", None) is not type(part).forward
    return bool(replaced) or any(map(_may_draw, hooks))


def _is_known(module: str) -> bool:
    return module in NO_DRAWS or module.startswith(PACKAGES)
