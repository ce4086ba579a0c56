"""The proximal steps of networks that are trained as one, a layer of all at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sklearn_structreg.cges._compiled import BoundWeight
from sklearn_structreg.cges.proximal import prox_cges, prox_l1, prox_l2
from sklearn_structreg.cges.steps import step_sizes

if TYPE_CHECKING:
    from sklearn_structreg.cges.regularizer import CGES

__all__ = ["shrink_stack"]


@dataclass
class _Weight:
    """A weight of neighbouring members, and the masks of their fixed zeros."""

    name: str
    piece: Any
    members: Sequence[CGES]
    bound: BoundWeight
    n_fixed: int = 0
    mask: Tensor | None = None


def shrink_stack(members: Sequence[CGES], optimizer: Any) -> bool:
    """Shrink all weights of a stack, or return False where they need their own steps.

    `optimizer` is the stack's, `core.stacked_optimizer.StackedOptimizer`.
    """
    first = members[0]
    alike = all((m.penalty, m.prox) == (first.penalty, first.prox) for m in members)
    if not alike or not all(_is_plain(member) for member in members):
        return False
    known = first.__dict__.get("_stacked")
    if known is None or known[0] is not optimizer:
        known = optimizer, list(_bind(members, optimizer))
        first.__dict__["_stacked"] = known
    with torch.no_grad():
        for weight in known[1]:
            _shrink(weight, optimizer.optimizer)
            _keep_zeros(weight)
    return True


def _is_plain(member: CGES) -> bool:
    return all(layer.is_measured and not layer.norm for layer in member.layers_)


def _bind(members: Sequence[CGES], optimizer: Any) -> Iterator[_Weight]:
    """Find the weights of the stack that are penalised."""
    numbers = {id(net): number for number, net in enumerate(optimizer.nets)}
    for piece in optimizer.pieces:
        net, part = piece.nets[0], piece.parts[0]
        name = next(n for n, p in net.module_.named_parameters() if p is part)
        its = [members[numbers[id(net)]] for net in piece.nets]
        layer = next((x for x in its[0].layers_ if x.name == name), None)
        if layer is not None:
            dims, split = layer.group_dims, layer.split
            bound = BoundWeight(piece.weight, dims, split, n_stacked=len(its))
            yield _Weight(name, piece, its, bound)


def _shrink(weight: _Weight, optimizer: torch.optim.Optimizer) -> None:
    members, piece = weight.members, weight.piece
    pulls = np.array([member.strength_ * member.brake_ for member in members])
    if not pulls.any():
        return
    layers = [next(x for x in m.layers_ if x.name == weight.name) for m in members]
    step, metric = step_sizes(optimizer, piece.settings, piece.weight)
    group = step * pulls * [layer.group for layer in layers]
    exclusive = step * pulls * [layer.exclusive for layer in layers]
    w, penalty, exact = piece.weight, members[0].penalty, members[0].prox == "exact"
    if penalty in ("l1", "l2"):
        prox = prox_l1 if penalty == "l1" else prox_l2
        strengths = torch.from_numpy(group).view(-1, *[1] * (w.ndim - 1))
        prox(w, strengths, metric=metric, out=w)
    elif not weight.bound.shrink(group, exclusive, exact, metric):
        for number, layer in enumerate(layers):
            v, dims = layer.view(w[number].detach()), layer.group_dims
            its = None if metric is None else layer.view(metric[number])
            a, b = float(group[number]), float(exclusive[number])
            prox_cges(v, a, b, dims, exact, metric=its, out=v)


def _keep_zeros(weight: _Weight) -> None:
    """Keep the zeros of members that are in their refit."""
    fixed = [member.fixed_.get(weight.name) for member in weight.members]
    n_fixed = sum(mask is not None for mask in fixed)
    if n_fixed != weight.n_fixed:
        w = weight.piece.weight
        none = torch.zeros(w.shape[1:], dtype=torch.bool, device=w.device)
        masks = [none if mask is None else mask.to(w.device) for mask in fixed]
        weight.n_fixed, weight.mask = n_fixed, torch.stack(masks)
    if n_fixed and weight.mask is not None:
        weight.piece.weight.masked_fill_(weight.mask, 0.0)
