"""The moving average of a network's weights, which replaces them between epochs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MovingAverage"]

FIRST_STEPS = 10  # the decay of step t is at most (1 + t) / (FIRST_STEPS + t)


class MovingAverage:
    """An exponential moving average over the steps of an optimizer.

    Between epochs the network has the average, and this keeps the weights of the last
    step. What others change there, elementwise, is taken over into these.

    Parameters
    ----------
    decay : float
        Weight of the past in every step, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        self.decay, self.n_steps = decay, 0
        self.last: dict[str, Tensor] = {}  # after the last step
        self.left: dict[str, Tensor] = {}  # the average, as the network got it
        self._weights: list[Tensor] = []
        self._average: list[Tensor] = []

    @torch.no_grad()
    def begin_epoch(self, module: nn.Module) -> None:
        """Give the network the weights to go on from."""
        names = [name for name, p in module.named_parameters() if p.requires_grad]
        self._weights = [module.get_parameter(name).detach() for name in names]
        self._average = [weight.clone() for weight in self._weights]
        for name, weight in zip(names, self._weights, strict=True):
            last, left = self.last.get(name), self.left.get(name)
            if last is not None and left is not None and last.shape == weight.shape:
                weight.copy_(torch.where(weight == left, last, weight))

    @torch.no_grad()
    def after_step(self) -> None:
        """Take a step of the average towards the weights."""
        decay = min(self.decay, (1 + self.n_steps) / (FIRST_STEPS + self.n_steps))
        torch._foreach_lerp_(self._average, self._weights, 1 - decay)
        self.n_steps += 1

    @torch.no_grad()
    def end_epoch(self, module: nn.Module) -> None:
        """Give the network the average, with the zeros of the weights."""
        self.last, self.left = {}, {}
        names = [name for name, p in module.named_parameters() if p.requires_grad]
        each = zip(names, self._weights, self._average, strict=True)
        for name, weight, average in each:
            self.last[name] = weight.clone()
            weight.copy_(average.masked_fill_(weight == 0, 0))
            self.left[name] = average
        self._weights, self._average = [], []

    def state_dict(self) -> dict[str, Any]:
        """Return the state between two epochs."""
        return {"n_steps": self.n_steps, "last": self.last, "left": self.left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.n_steps = state["n_steps"]
        self.last, self.left = dict(state["last"]), dict(state["left"])
