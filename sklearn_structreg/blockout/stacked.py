"""Blockout layers of several networks as one, each with the draws of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sklearn_structreg.blockout.masks import (
    block_mask,
    draw_memberships,
    with_gradient,
)
from sklearn_structreg.core.stacked_layers import StackedLinear, StackedNetwork

__all__ = ["StackedBlockout"]


class _Nodes:
    """The same node set of all members: logits (K, d, k), and their last draw."""

    def __init__(self, logits: Tensor, first: Any, network: StackedNetwork) -> None:
        self.logits, self.network = logits, network
        self.is_drawn, self.gradient = first.is_drawn, first.gradient
        self.drawn = torch.empty(0)

    @property
    def probabilities(self) -> Tensor:
        return torch.sigmoid(self.logits)

    def draw(self) -> None:
        """Draw memberships, or take the probabilities where nothing is drawn."""
        self.drawn = P = self.probabilities
        if self.is_drawn:
            draws = []
            for number, own in enumerate(P.detach().unbind()):
                with self.network.draws(number):
                    draws.append(draw_memberships(own))
            self.drawn = with_gradient(torch.stack(draws), P, self.gradient)


class StackedBlockout(StackedLinear):
    """From (K, d_in, b), or samples (b, d_in) that all share, to (K, d_out, b).

    Parameters
    ----------
    layers : sequence of BlockoutLinear
        That of each member.
    network : StackedNetwork
        The stack; it has one `_Nodes` for a node set of several layers.
    shared : bool
        Whether all are given the same samples.
    """

    def __init__(
        self, layers: Sequence[Any], network: StackedNetwork, shared: bool
    ) -> None:
        super().__init__(network.bind(layers), shared)
        scales = torch.tensor([layer.scale for layer in layers], dtype=torch.float64)
        self.scales = scales.to(self.weight)[:, None, None]
        first = layers[0]
        # The first layer that reads a set draws for all.
        self.draws_for: list[_Nodes] = []
        self.inputs = self._nodes([layer.inputs for layer in layers], network)
        self.outputs = self.inputs
        if first.outputs is not first.inputs:
            self.outputs = self._nodes([layer.outputs for layer in layers], network)

    def _nodes(self, sets: Sequence[Any], network: StackedNetwork) -> _Nodes:
        known = network.notes.get(id(sets[0]))
        if known is None:
            logits = network.bind_tensors([nodes.logits for nodes in sets])
            known = network.notes[id(sets[0])] = _Nodes(logits, sets[0], network)
            self.draws_for.append(known)
        return known

    def current_weight(self) -> Tensor:
        """Return the masked weights: drawn in training, their means else."""
        if self.training:
            for nodes in self.draws_for:
                nodes.draw()
        c_out, c_in = (
            nodes.drawn if self.training else nodes.probabilities
            for nodes in (self.outputs, self.inputs)
        )
        masked: Tensor = self.weight * (block_mask(c_out, c_in) * self.scales)
        return masked
