"""The learning rate that "auto" stands for."""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer

__all__ = ["resolve_learning_rate"]

RATES: dict[type[Optimizer], float] = {
    torch.optim.SGD: 0.05,
    torch.optim.Adam: 1e-3,
    torch.optim.AdamW: 1e-3,
}
MANY_INPUTS = 500  # from here on a step moves the first layer's outputs too far


def resolve_learning_rate(
    learning_rate: float | str, optimizer: type[Optimizer], n_inputs: int
) -> float:
    """Return the rate itself, or the one that suits an optimizer and so many inputs.

    Inputs are the features of a flat row or the channels of an image. Where all their
    weights move by one step, the outputs of the first layer move in proportion to their
    number. benchmarks/value/learning_rate.py measures the constants.
    """
    if not isinstance(learning_rate, str):
        return float(learning_rate)
    if optimizer in RATES:
        return RATES[optimizer] * min(1.0, MANY_INPUTS / n_inputs)
    rate = inspect.signature(optimizer).parameters.get("lr")
    if rate is None or not isinstance(rate.default, int | float):
        raise ValueError(
            f"learning_rate='auto' has no rate for {optimizer.__name__}, whose "
            "own has no default; pass a number."
        )
    return float(rate.default)
