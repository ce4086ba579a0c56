"""The heads of a round in a few products over all of them, for predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.selfinformed.attachment import Place
from sklearn_structreg.selfinformed.heads import HeadRound

__all__ = ["BatchedHeads", "batched"]

WEIGHTED = nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d
# Multiply-adds that take as long, on one core, as to sort samples by head, and as to
# call a head by itself.
SORTING, CALLING = 3_000_000, 300_000


class BatchedHeads:
    """Copies of the weights of a round's heads, padded with zeros to one width."""

    # Zeros add nothing: a unit beyond a head's own is relu(0) and is read with weights
    # of zero. Outputs beyond a group's go to a column after the last class.

    def __init__(self, heads: HeadRound) -> None:
        stacks = [_weighted(head.get_submodule("hidden")) for head in heads.heads]
        hidden = [*zip(*stacks, strict=True)]
        self.weights = [_stacked([_weight(part) for part in same]) for same in hidden]
        self.biases = [_stacked([part.bias.detach() for part in s]) for s in hidden]
        outputs = [_weight(head.get_submodule("output")).T for head in heads.heads]
        self.output = _stacked(outputs)
        n_classes, width = heads.columns.numel(), self.output.shape[2]
        members = torch.full((len(heads.groups), width), n_classes)
        for row, group in zip(members, heads.groups, strict=True):
            row[: len(group)] = torch.tensor(group)
        self.members = members.to(heads.columns.device)
        flat = self.members.flatten()
        self.columns = flat.argsort()[:n_classes]
        self.n_groups = len(members)
        n_weights = sum(weight.numel() for weight in self.weights)
        self.cost = self.output.numel() + n_weights * self._n_positions(heads.place)

    @staticmethod
    def _n_positions(place: Place) -> int:
        """Return the number of times that each weight is used for a sample."""
        return 1

    def __call__(self, features: Tensor) -> Tensor:
        """Compute the addition to the logits, (n, n_classes)."""
        added = self._run(features[None], slice(None))
        return added.transpose(0, 1).flatten(1).index_select(1, self.columns)

    def add_some(self, logits: Tensor, features: Tensor, wanted: Tensor) -> None:
        """Add to logits (n, n_classes + 1) what the wanted heads (n, n_groups) do.

        Other heads may add to the logits of their classes, which are not looked at.
        """
        if len(features) * self.cost <= SORTING:
            logits[:, :-1] += self(features)
            return
        groups, rows = wanted.T.nonzero(as_tuple=True)
        counts = wanted.sum(dim=0)
        most = int(counts.max())
        n_padded = self.n_groups * most - len(rows)
        if n_padded * self.cost > self.n_groups**2 * CALLING:
            self._add_one_by_one(logits, features, wanted)
            return
        place = torch.arange(len(rows), device=rows.device)
        place -= (counts.cumsum(0) - counts)[groups]
        table = rows.new_zeros(len(counts), most)
        table[groups, place] = rows
        sorted_rows = features.index_select(0, table.flatten()).view(*table.shape, -1)
        added = self._run(sorted_rows, slice(None))[groups, place]
        where = rows[:, None], self.members[groups]
        logits.index_put_(where, added, accumulate=True)

    def _add_one_by_one(self, logits: Tensor, features: Tensor, wanted: Tensor) -> None:
        """Do the same where most rows want the same head."""
        for group in wanted.any(dim=0).nonzero().flatten().tolist():
            rows = wanted[:, group].nonzero()
            values = features[rows.T]
            added = self._run(values, slice(group, group + 1))[0]
            logits[rows, self.members[group]] += added

    def _run(self, values: Tensor, some: slice) -> Tensor:
        """Run some heads, each on rows of its own, or all on the same (1, n, ...)."""
        n_heads = len(self.output[some])
        for weight, bias in zip(self.weights, self.biases, strict=True):
            part, own = weight[some], bias[some]
            if len(values) == n_heads:
                values = torch.baddbmm(own[:, None], values, part.mT).relu_()
                continue
            # The same rows for all heads: one product of matrices.
            together = functional.linear(values[0], part.flatten(0, 1), own.flatten())
            values = together.relu_().view(len(together), n_heads, -1).transpose(0, 1)
        return torch.matmul(values, self.output[some])


class BatchedConvolutions(BatchedHeads):
    """The same for heads of convolutions, as groups of one convolution."""

    def __init__(self, heads: HeadRound) -> None:
        super().__init__(heads)
        self.shape = heads.place.shape
        functions = functional.conv1d, functional.conv2d, functional.conv3d
        self.convolve = functions[len(self.shape) - 2]

    @staticmethod
    def _n_positions(place: Place) -> int:
        """Return the number of times that each weight is used for a sample."""
        return math.prod(place.shape[1:])

    def _run(self, values: Tensor, some: slice) -> Tensor:
        """Run some heads, each on rows of its own, or all on the same (1, n, ...)."""
        n_heads = len(self.output[some])
        n_sets, n_rows, _ = values.shape
        maps = values.transpose(0, 1).reshape(n_rows, -1, *self.shape[1:])
        for weight, bias in zip(self.weights, self.biases, strict=True):
            kernels, own = weight[some].flatten(0, 1), bias[some].flatten()
            same = weight.shape[-1] // 2
            maps = self.convolve(maps, kernels, own, padding=same, groups=n_sets)
            maps, n_sets = maps.relu_(), n_heads
        means = maps.flatten(2).mean(dim=2).view(n_rows, n_sets, -1)
        return torch.matmul(means.transpose(0, 1), self.output[some])


_packed: WeakKeyDictionary[HeadRound, tuple[object, BatchedHeads | None]] = (
    WeakKeyDictionary()
)


def batched(heads: HeadRound) -> BatchedHeads | None:
    """Return the heads in one product; None if they are not all alike.

    The copies are kept for as long as the weights stay as they are.
    """
    key = [(p.data_ptr(), _version(p), p.dtype) for p in heads.parameters()]
    known, found = _packed.get(heads, (None, None))
    if known != key:
        kind = _kind_of([head.get_submodule("hidden") for head in heads.heads])
        found = None if kind is None else kind(heads)
        _packed[heads] = key, found
    return found


def _version(weights: Tensor) -> object:
    """Return the number of changes; inference tensors count none: never the same."""
    return object() if weights.is_inference() else weights._version


def _kind_of(stacks: Sequence[nn.Module]) -> type[BatchedHeads] | None:
    """Choose by the layers, which are to be alike and to have nobody that listens."""
    kinds = {tuple(type(part) for part in stack.children()) for stack in stacks}
    parts = [part for stack in stacks for part in stack.modules()]
    if len(kinds) > 1 or any(p._forward_hooks or p._forward_pre_hooks for p in parts):
        return None
    kind = next(iter(kinds))
    inner = kind[1:-2] if kind[:1] == (nn.Unflatten,) else kind
    pairs = {*zip(inner[::2], inner[1::2], strict=False)}
    if len(inner) % 2 or not pairs <= {(layer, nn.ReLU) for layer in WEIGHTED}:
        return None
    return BatchedHeads if inner is kind else BatchedConvolutions


def _weighted(hidden: nn.Module) -> list[nn.Module]:
    return [part for part in hidden.children() if hasattr(part, "weight")]


def _weight(layer: nn.Module) -> Tensor:
    return layer.get_parameter("weight").detach()


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors, each filled up with zeros to the size of the largest."""
    shape = [max(sizes) for sizes in zip(*(t.shape for t in tensors), strict=True)]
    stack = tensors[0].new_zeros(len(tensors), *shape)
    for place, tensor in zip(stack, tensors, strict=True):
        place[tuple(slice(size) for size in tensor.shape)] = tensor
    return stack
