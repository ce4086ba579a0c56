"""The step sizes of an optimizer, for proximal steps in its own metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

__all__ = ["step_sizes"]


def step_sizes(
    optimizer: Optimizer, group: Mapping[str, Any], weight: Tensor
) -> tuple[float, Tensor | None]:
    """Return the size of the last gradient step on a weight.

    Training stands still where the step by the gradient and the proximal step cancel
    out, so it minimises loss plus penalty only if both have the same size. With
    momentum the steps of a constant gradient add up to ``1 / (1 - momentum)`` times the
    rate. Adam, AdamW, NAdam, RAdam, RMSprop and Adagrad have a size for each weight.

    Returns
    -------
    step : float
        The common size, 1 where there is a metric.
    metric : Tensor or None
        One over each weight's size. It is made anew in every call.
    """
    state = optimizer.state.get(weight, {})
    rate = float(group["lr"])
    momentum = float(group.get("momentum") or 0.0)
    gain = (1.0 - float(group.get("dampening") or 0.0)) / (1.0 - momentum)
    if "exp_avg_sq" in state and "betas" in group:
        squares = state.get("max_exp_avg_sq", state["exp_avg_sq"])
        unbiased = 1.0 - float(group["betas"][1]) ** float(state["step"])
        roots = (squares / unbiased).sqrt_()
    elif "square_avg" in state:
        squares = state["square_avg"]
        if "grad_avg" in state:
            squares = (squares - state["grad_avg"] ** 2).clamp_(min=0.0)
        roots, rate = squares.sqrt(), rate * gain
    elif "sum" in state and "lr_decay" in group:
        roots = state["sum"].sqrt()
        rate /= 1.0 + (float(state["step"]) - 1.0) * float(group["lr_decay"])
    else:
        return rate * gain, None
    if rate == 0.0:
        return 0.0, None
    return 1.0, roots.add_(float(group["eps"])).div_(rate)
