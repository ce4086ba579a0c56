"""torch's optimizers: their classes and rates, parameter groups and states."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = [
    "OPTIMIZERS",
    "begin_momentum",
    "load_exactly",
    "move",
    "regroup",
    "resolve_learning_rate",
    "resolve_optimizer",
    "with_rates",
]

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
RATES: dict[type[Optimizer], float] = {
    torch.optim.SGD: 0.05,
    torch.optim.Adam: 1e-3,
    torch.optim.AdamW: 1e-3,
}
MANY_INPUTS = 500  # from here on a step moves the first layer's outputs too far


def resolve_optimizer(optimizer: Any) -> type[Optimizer]:
    """Return the class that the `optimizer` parameter stands for."""
    found: Any = OPTIMIZERS.get(optimizer, optimizer)
    known = inspect.isclass(found) and issubclass(found, Optimizer)
    if not known or found is torch.optim.SparseAdam:
        kinds = "for sparse gradients only" if known else "no torch optimizer class"
        raise ValueError(
            f"optimizer={optimizer!r} is {kinds}; pass another one, such as "
            f"torch.optim.RMSprop, or one of {sorted(OPTIMIZERS)}."
        )
    kind: type[Optimizer] = found
    return kind


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


# ---- parameter groups --------------------------------------------------------------


def with_rates(
    groups: list[dict[str, Any]], lr: float, optimizer: type[Optimizer]
) -> list[dict[str, Any]]:
    """Turn each group's ``lr_factor`` into a learning rate."""
    adaptive = not issubclass(optimizer, torch.optim.SGD)
    result = []
    for group in groups:
        rest = dict(group)
        factor = rest.pop("lr_factor", None)
        own = rest.pop("adaptive_lr_factor", factor)
        if factor is not None:
            rest["lr"] = lr * (own if adaptive else factor)
        result.append(rest)
    return result


def regroup(
    optimizer: Optimizer, module: nn.Module, special: Iterable[dict[str, Any]]
) -> None:
    """Give a running optimizer the parameters of a changed module.

    Parameters that have gone leave their groups; those of `special` get groups of
    their own; any other new ones join the first group.
    """
    special = list(special)
    learned = {id(p): p for p in module.parameters() if p.requires_grad}
    taken = {id(p) for group in special for p in group["params"]}
    present = {id(p) for p in module.parameters()} - taken
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) in present]
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    new = [p for key, p in learned.items() if key not in known | taken]
    optimizer.param_groups[0]["params"].extend(new)
    for group in special:
        optimizer.add_param_group(group)


# ---- states ------------------------------------------------------------------------


def begin_momentum(optimizer: Optimizer) -> None:
    """Begin with zeros: fused steps fail where some parameters have no momentum."""
    sgd = isinstance(optimizer, torch.optim.SGD)
    for group in optimizer.param_groups if sgd else ():
        # With dampening torch's first step is another one.
        starts = group["momentum"] and not group["dampening"]
        for parameter in group["params"] if starts else ():
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def load_exactly(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load a state in the precision that it was saved in."""
    optimizer.load_state_dict(state)
    # torch casts to the precision of the parameters; the numbers may have had another.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, saved in state["state"].items():
        held = optimizer.state[parameters[index]]
        for key, value in saved.items():
            if isinstance(value, Tensor) and value.dtype != held[key].dtype:
                held[key] = value.to(held[key].device)


def move(
    optimizer: Optimizer, device: torch.device, dtype: torch.dtype | None = None
) -> None:
    """Move the state of an optimizer whose parameters have moved."""
    for state in optimizer.state.values():
        for key, value in state.items():
            # Adam keeps its step counts on the CPU unless it is fused; leave them.
            if isinstance(value, Tensor) and value.ndim:
                state[key] = value.to(device, dtype)
