"""The memberships that one forward pass draws, shared by all layers of a chain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sklearn_structreg.blockout.masks import draw_memberships

__all__ = ["Draws"]


class Draws:
    """One draw of each node set in a forward pass, for all layers that read it.

    A pass begins where a layer runs that has run in the last one already. Where
    activation checkpointing runs a layer once more in the backward pass, torch's
    generator is as it was: the layer repeats its own draws, to the same numbers, and
    finds those of other layers still here.
    """

    def __init__(self) -> None:
        self._joined: Draws | None = None
        self._begin()

    def _begin(self) -> None:
        # By number (`id`): modules as keys would keep replaced layers alive.
        self._drawn: dict[int, tuple[int, Tensor]] = {}  # node set: its drawer, draw
        self._ran: set[int] = set()

    def join(self, other: Draws) -> None:
        """Let the node sets of `other` have their passes together with these."""
        one, two = self._shared(), other._shared()
        if one is not two:
            two._joined = one

    def enter(self, layer: nn.Module) -> None:
        """Begin a pass if this layer has run in the present one."""
        shared = self._shared()
        if id(layer) in shared._ran and not _in_backward():
            shared._begin()
        shared._ran.add(id(layer))

    def of(
        self,
        nodes: nn.Module,
        layer: nn.Module,
        probabilities: Tensor,
        shape: tuple[int, ...],
    ) -> Tensor:
        """Return a node set's draw in this pass, for a layer that has entered it."""
        known = self._shared()._drawn
        drawer, drawn = known.get(id(nodes), (id(layer), None))
        if drawn is None or drawer == id(layer):
            drawn = draw_memberships(probabilities, shape)
            known[id(nodes)] = id(layer), drawn
        return drawn

    def _shared(self) -> Draws:
        return self if self._joined is None else self._joined._shared()

    def __getstate__(self) -> dict[str, Any]:
        return {"_joined": self._joined}  # copies and pickles begin with a new pass

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._joined = state["_joined"]
        self._begin()


def _in_backward() -> bool:
    """Whether autograd is running, so that a forward can only be a recomputation."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._current_graph_task_id() != -1
