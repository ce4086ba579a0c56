"""The heads of a round in a few products over all of them, for predictions."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sklearn_structreg.selfinformed.heads import HeadRound

__all__ = ["BatchedHeads", "batched"]

MOST_PADDED = 2  # rows of a product by those that stand for something


class BatchedHeads:
    """Copies of the weights of a round's heads, padded with zeros to one width."""

    # Zeros add nothing: a unit beyond a head's own is relu(0) and is read with weights
    # of zero. Outputs beyond a group's go to a column after the last class.

    def __init__(self, heads: HeadRound) -> None:
        stacks = [_linear_layers(head.get_submodule("hidden")) for head in heads.heads]
        outputs = [head.get_submodule("output") for head in heads.heads]
        layers = [*zip(*stacks, strict=True), outputs]
        self.weights = [_stacked([_weight(part).T for part in same]) for same in layers]
        self.biases = [
            _stacked([part.bias.detach()[None] for part in same])
            for same in layers[:-1]
        ]
        n_classes, width = heads.columns.numel(), self.weights[-1].shape[2]
        members = torch.full((len(heads.groups), width), n_classes)
        for row, group in zip(members, heads.groups, strict=True):
            row[: len(group)] = torch.tensor(group)
        self.members = members.to(heads.columns.device)
        flat = self.members.flatten()
        self.columns = flat.argsort()[:n_classes]
        self.n_groups = len(members)

    def __call__(self, features: Tensor) -> Tensor:
        """Compute the addition to the logits, (n, n_classes)."""
        added = self._run(features.expand(len(self.members), *features.shape))
        return added.transpose(0, 1).flatten(1).index_select(1, self.columns)

    def add_some(self, logits: Tensor, features: Tensor, wanted: Tensor) -> None:
        """Add to logits (n, n_classes + 1) what the wanted heads (n, n_groups) do."""
        groups, rows = wanted.T.nonzero(as_tuple=True)
        counts = wanted.sum(dim=0)
        most = int(counts.max())
        if len(counts) * most > MOST_PADDED * len(rows):
            self._add_one_by_one(logits, features, wanted)
            return
        place = torch.arange(len(rows), device=rows.device)
        place -= (counts.cumsum(0) - counts)[groups]
        table = rows.new_zeros(len(counts), most)
        table[groups, place] = rows
        added = self._run(features[table])[groups, place]
        where = rows[:, None], self.members[groups]
        logits.index_put_(where, added, accumulate=True)

    def _add_one_by_one(self, logits: Tensor, features: Tensor, wanted: Tensor) -> None:
        """Do the same where most rows want the same head."""
        for group in wanted.any(dim=0).nonzero().flatten().tolist():
            rows = wanted[:, group].nonzero()
            values = features[rows.squeeze(1)]
            for weight, bias in zip(self.weights, self.biases, strict=False):
                values = torch.addmm(bias[group], values, weight[group]).relu_()
            logits[rows, self.members[group]] += values @ self.weights[-1][group]

    def _run(self, values: Tensor) -> Tensor:
        """Run each head on its own rows, (n_groups, n, n_features)."""
        for weight, bias in zip(self.weights, self.biases, strict=False):
            values = torch.baddbmm(bias, values, weight).relu_()
        return torch.bmm(values, self.weights[-1])


_packed: WeakKeyDictionary[HeadRound, tuple[object, BatchedHeads | None]] = (
    WeakKeyDictionary()
)


def batched(heads: HeadRound) -> BatchedHeads | None:
    """Return the heads in one product; None if they are not all alike.

    The copies are kept for as long as the weights stay as they are.
    """
    key = [(p.data_ptr(), p._version, p.dtype) for p in heads.parameters()]
    known, found = _packed.get(heads, (None, None))
    if known != key:
        stacks = [head.get_submodule("hidden") for head in heads.heads]
        found = BatchedHeads(heads) if _are_plain(stacks) else None
        _packed[heads] = key, found
    return found


def _are_plain(stacks: Sequence[nn.Module]) -> bool:
    """Whether stacks are of as many linear and ReLU layers, to which nobody listens."""
    kinds = {tuple(type(part) for part in stack.children()) for stack in stacks}
    parts = [part for stack in stacks for part in stack.modules()]
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in parts)
    depth = len(next(iter(kinds))) // 2
    return kinds == {(nn.Linear, nn.ReLU) * depth} and not hooked


def _linear_layers(hidden: nn.Module) -> list[nn.Module]:
    return [part for part in hidden.children() if isinstance(part, nn.Linear)]


def _weight(layer: nn.Module) -> Tensor:
    return layer.get_parameter("weight").detach()


def _stacked(matrices: Sequence[Tensor]) -> Tensor:
    """Stack matrices, each filled up with zeros to the size of the largest."""
    shape = [max(sizes) for sizes in zip(*(m.shape for m in matrices), strict=True)]
    stack = matrices[0].new_zeros(len(matrices), *shape)
    for place, matrix in zip(stack, matrices, strict=True):
        place[: matrix.shape[0], : matrix.shape[1]] = matrix
    return stack
