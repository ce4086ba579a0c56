"""Random numbers that leave torch's global state as they found it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["BUILD_LOCK", "derive_seed", "seeded"]

# Building a module draws from torch's global generator; two threads that did so at
# once (joblib's threading backend) would get each other's numbers.
BUILD_LOCK = threading.Lock()


def derive_seed(*parts: int) -> int:
    """Mix non-negative integers into one seed, as independent as their seeds are."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators of the CPU and of `device`, and restore them after."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
