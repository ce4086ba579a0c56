"""One optimizer for the weights of a stack, by the settings of every member's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.optimizers import begin_momentum
from sklearn_structreg.core.regularizer import learning_rates
from sklearn_structreg.core.stacked_layers import Bound

__all__ = ["BY_ENTRY", "StackedOptimizer"]

BY_ENTRY = (  # each entry of a weight moves by its own gradients
    *(torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam),
    *(torch.optim.RAdam, torch.optim.RMSprop, torch.optim.Adagrad),
    *(torch.optim.Adadelta, torch.optim.Adamax),
)


@dataclass
class _Piece:
    """Weights of neighbours with the same settings, which move as one."""

    weight: nn.Parameter
    parts: Sequence[Tensor]
    nets: Sequence[StructuredNet]
    settings: dict[str, Any]  # the first member's group, followed from epoch to epoch


class StackedOptimizer:
    """Steps of a stack's weights.

    The optimizer of a member takes no steps, but has the state of its part of them:
    proximal operators, callbacks and schedules find what they look for.

    Parameters
    ----------
    nets : sequence of StructuredNet
        The members.
    bound : sequence of Bound
        Their weights, by layer.
    """

    def __init__(self, nets: Sequence[StructuredNet], bound: Sequence[Bound]) -> None:
        self.nets = list(nets)
        owners: dict[int, tuple[StructuredNet, dict[str, Any]]] = {}
        for net in nets:
            groups = learning_rates(net.optimizer_)
            owners |= {key: (net, group) for key, group in groups.items()}
            net.optimizer_._opt_called = True  # torch's schedulers look for steps
        learned = [
            each
            for each in bound
            if each.whole.requires_grad and id(each.parts[0]) in owners
        ]
        self.pieces = [piece for each in learned for piece in _cut(each, owners)]
        self._sources: list[dict[str, Any]] = []
        self._is_seen = False
        self.optimizer = self._make(nets[0].recipe.optimizer)

    def _make(self, kind: type[Optimizer]) -> Optimizer:
        groups: dict[str, dict[str, Any]] = {}
        for piece in self.pieces:
            settings = _settings(piece.settings)
            key = repr(sorted(settings.items()))
            if key not in groups:
                groups[key] = {**settings, "params": []}
                self._sources.append(piece.settings)
            groups[key]["params"].append(piece.weight)
        made = kind(list(groups.values()))  # type: ignore[call-arg]
        for piece in self.pieces:
            of_parts = zip(piece.nets, piece.parts, strict=True)
            states = [net.optimizer_.state.get(part, {}) for net, part in of_parts]
            for name, value in states[0].items():
                if _is_for(piece.parts[0], name, value):
                    value = torch.stack([state[name] for state in states])
                made.state[piece.weight][name] = value
        begin_momentum(made)
        return made

    def begin_epoch(self) -> None:
        """Follow the settings of the members, which schedules have changed."""
        groups = self.optimizer.param_groups
        for group, source in zip(groups, self._sources, strict=True):
            group.update(_settings(source))

    def step(self) -> None:
        """Take a step, and let the members' optimizers see its state."""
        self.optimizer.step()
        if self._is_seen:
            return
        self._is_seen = True
        for piece in self.pieces:
            whole = self.optimizer.state[piece.weight]
            for number, net in enumerate(piece.nets):
                net.optimizer_.state[piece.parts[number]] = {
                    name: value[number] if _is_for(piece.weight, name, value) else value
                    for name, value in whole.items()
                }


def _cut(
    bound: Bound, owners: dict[int, tuple[StructuredNet, dict[str, Any]]]
) -> Iterator[_Piece]:
    """Cut the weights of a layer where the settings of the members change."""
    nets, groups = zip(*(owners[id(part)] for part in bound.parts), strict=True)
    first = 0
    for end in range(1, len(nets) + 1):
        if end < len(nets) and _settings(groups[end]) == _settings(groups[first]):
            continue
        weight = nn.Parameter(bound.whole.data[first:end])
        weight.grad = bound.whole.grad[first:end]  # type: ignore[index]
        yield _Piece(weight, bound.parts[first:end], nets[first:end], groups[first])
        first = end


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _is_for(weight: Tensor, name: str, value: Any) -> bool:
    """Whether an entry of the state has a number for each of a weight."""
    return name != "step" and isinstance(value, Tensor) and value.shape == weight.shape
