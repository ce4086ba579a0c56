"""A hardened net as parallel branches, which compute non-zero blocks only."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.blockout.memberships import BoolArray, group_nodes
from sklearn_structreg.core.insertion import insertions, transfer_layers
from sklearn_structreg.core.inspection import find_layer, replace_layer

__all__ = ["BranchedLinear", "to_branches"]

Columns = NDArray[np.int64]
Joins = Sequence[tuple[int, int]]
"""For each layer the numbers of the node sets of its inputs and its outputs."""

ELEMENTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Softplus, nn.Softsign, nn.Tanh, nn.Sigmoid, nn.LogSigmoid),
    *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Identity, nn.Dropout),
)
"""Layers that treat every node alike, so that the order of the nodes is free."""

BRANCH_COST = 2000  # of starting one more product, in multiply-adds per row
COLUMN_COST = 50  # of gathering a column, likewise


class BranchedLinear(nn.Module):
    """A block-structured linear layer that computes its non-zero blocks only.

    Outputs in the same clusters form a branch. A branch reads the inputs that share a
    cluster with it: a slice where they lie side by side, or else columns that are
    gathered once for the whole layer. An output that nothing reaches is its bias.

    `input_nodes` are those that the columns of the incoming data hold (None: all, in
    the natural order), `output_nodes` those of the outgoing data. With `grouped` these
    stay in the order of the branches, without dead ones. `merge` joins branches where
    a product with some zeros is estimated to take less time than two without.

    >>> members = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
    >>> layer = BranchedLinear(torch.ones(2, 4), None, members[::2], members)
    >>> layer(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).tolist(), layer.n_multiply_adds
    ([[3.0, 7.0]], 4)
    """

    columns: Tensor
    order: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        output_members: BoolArray,
        input_members: BoolArray,
        *,
        input_nodes: Columns | None = None,
        grouped: bool = False,
        merge: bool = False,
    ) -> None:
        super().__init__()
        d_out, d_in = weight.shape
        if len(output_members) != d_out or len(input_members) != d_in:
            raise ValueError(
                f"A weight of shape {(d_out, d_in)} needs as many outputs and inputs; "
                f"the memberships are of {len(output_members)} and "
                f"{len(input_members)} nodes."
            )
        held = np.arange(d_in) if input_nodes is None else input_nodes
        wanted = np.ones(d_out, dtype=bool)
        if grouped:
            wanted &= output_members.any(axis=1)
        self.weights = nn.ParameterList()
        self.inputs: list[tuple[bool, int, int]] = []  # gathered?, start, length
        gathered: list[Columns] = []
        computed: list[Columns] = []
        for nodes, reads in _plan(output_members, wanted, input_members[held], merge):
            computed.append(nodes)
            read = np.flatnonzero(reads)
            side_by_side = not read.size or read[-1] - read[0] + 1 == read.size
            if side_by_side:
                self.inputs.append((False, int(read[0]) if read.size else 0, read.size))
            else:
                start = sum(map(len, gathered))
                self.inputs.append((True, start, read.size))
                gathered.append(read)
            block = weight.detach().cpu()[nodes][:, held[read]]
            if merge:
                shared = output_members[nodes].astype(int) @ input_members[held[read]].T
                block = block * torch.from_numpy(shared > 0)
            self.weights.append(nn.Parameter(block.to(weight.device)))
        none = np.arange(0)
        produced = np.concatenate(computed or [none])
        self.in_features, self.out_features = len(held), len(produced)
        self.output_nodes = produced if grouped else np.arange(d_out)
        self.bias = None
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().cpu()[produced].to(bias.device))
        columns = np.concatenate(gathered or [none])
        in_order = grouped or np.array_equal(produced, np.arange(d_out))
        order = none if in_order else np.argsort(produced)
        for name, index in {"columns": columns, "order": order}.items():
            self.register_buffer(name, torch.from_numpy(index).to(weight.device))

    @property
    def n_multiply_adds(self) -> int:
        """Multiply-adds per sample: the number of weights inside blocks."""
        return sum(weight.numel() for weight in self.weights)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the branches and put them side by side."""
        columns = x.index_select(-1, self.columns) if self.columns.numel() else x
        sizes = [len(weight) for weight in self.weights]
        biases: Sequence[Any] = [None] * len(sizes)
        if self.bias is not None:
            biases = torch.split(self.bias, sizes)
        parts = [x.new_empty(*x.shape[:-1], 0)] if not sizes else []
        branches = zip(self.inputs, self.weights, biases, strict=True)
        for (gathered, start, length), weight, bias in branches:
            part = (columns if gathered else x).narrow(-1, start, length)
            parts.append(functional.linear(part, weight, bias))
        y = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return y.index_select(-1, self.order) if self.order.numel() else y

    def extra_repr(self) -> str:
        """Describe the layer."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        n_branches, n = len(self.weights), self.n_multiply_adds
        return f"{sizes}, branches={n_branches}, multiply_adds={n}"


def to_branches(
    module: nn.Module,
    names: Sequence[str],
    memberships: Sequence[BoolArray],
    joins: Joins | None = None,
    *,
    merge: bool = False,
) -> nn.Module:
    """Copy a network with branches in place of plain Linear layers.

    Its outputs are those of `mask_blocks`. Between two layers of a
    `torch.nn.Sequential` that only element-wise layers separate, nodes stay grouped and
    dead ones are left out; elsewhere the natural order is restored. Where nodes are in
    many different sets of clusters, strict blocks are many and small, and take longer
    than the dense layer; `merge` makes fewer of them.
    """
    layers = chain_layers(module, names, memberships, joins)
    pairs = joins or chain(names)
    readers = {
        j: [n for n, (i, _) in zip(names, pairs, strict=True) if i == j]
        for _, j in pairs
    }
    nodes: dict[int, Columns] = {}  # those of a set, where not in their natural order
    result = copy.deepcopy(module)
    for name, layer, (i, j) in zip(names, layers, pairs, strict=True):
        if not isinstance(layer, nn.Linear):
            continue
        alone = len(readers[j]) == 1
        grouped = alone and _order_is_free(module, name, readers[j][0])
        how: Any = {"input_nodes": nodes.get(i), "grouped": grouped, "merge": merge}
        members = memberships[j], memberships[i]
        branched = BranchedLinear(layer.weight, layer.bias, *members, **how)
        nodes[j] = branched.output_nodes
        transfer_layers(find_layer(result, name), branched)
        result = replace_layer(result, name, branched)
    return result


def _plan(
    output_members: BoolArray,
    wanted: BoolArray,
    held_members: BoolArray,
    merge: bool,
) -> list[tuple[Columns, BoolArray]]:
    """Return the branches: their output nodes, and the columns that they read."""
    plan: list[tuple[Columns, Any]] = [
        (nodes, (held_members & pattern).any(axis=1))
        for pattern, nodes in group_nodes(output_members)
        if wanted[nodes].all()
    ]
    while merge and len(plan) > 1:
        rows = np.array([len(nodes) for nodes, _ in plan], dtype=float)
        reads = np.array([read for _, read in plan], dtype=float)
        columns = reads.sum(axis=1)
        union = columns[:, None] + columns - reads @ reads.T
        saved = np.add.outer(*[_cost(rows, columns, len(held_members))] * 2)
        saved -= _cost(rows[:, None] + rows, union, len(held_members))
        np.fill_diagonal(saved, -np.inf)
        a, b = sorted(np.unravel_index(saved.argmax(), saved.shape))
        if saved[a, b] <= 0:
            break
        (one, left), (two, right) = plan[a], plan.pop(b)
        plan[a] = np.concatenate([one, two]), left | right
    n_held = len(held_members)
    for i, (nodes, reads) in enumerate(plan if merge else []):
        n, gathers = len(nodes), _cost(len(nodes), reads.sum(), n_held)
        if _cost(n, n_held, n_held) < gathers:  # by multiplying zeros instead
            plan[i] = nodes, np.ones(n_held, dtype=bool)
    return plan


def _cost(rows: Any, columns: Any, n_held: int) -> Any:
    """Estimate the time of branches, in multiply-adds per row of a batch of 100."""
    gathered = np.where(columns < n_held, COLUMN_COST, 0) * columns
    return rows * columns + gathered + BRANCH_COST


def chain(names: Sequence[str]) -> Joins:
    """Return the joins of layers that follow each other."""
    return [(j, j + 1) for j in range(len(names))]


def chain_layers(
    module: nn.Module,
    names: Sequence[str],
    memberships: Sequence[BoolArray],
    joins: Joins | None = None,
) -> list[nn.Linear | nn.Conv2d]:
    """Look up the layers and check them against the memberships."""
    if not names:
        raise ValueError("names is empty; name at least one Linear layer.")
    layers = [find_layer(module, name) for name in names]
    for name, layer in zip(names, layers, strict=True):
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            raise ValueError(
                f"{name!r} is a {type(layer).__name__}, but blocks need plain Linear "
                "or Conv2d layers; fold the network first."
            )
    plain = [layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]
    sizes = [len(members) for members in memberships]
    known: dict[int, int] = {}
    for layer, (i, j) in zip(plain, joins or chain(names), strict=True):
        known |= {i: layer.weight.shape[1], j: layer.weight.shape[0]}
    expected = [known[i] for i in sorted(known)]
    if sizes != expected:
        raise ValueError(
            f"The chain {list(names)} has node sets of {expected} nodes, but the "
            f"memberships are of {sizes}; give C_0 to C_m."
        )
    if len({np.shape(members)[1:] for members in memberships}) > 1:
        raise ValueError(
            f"The memberships have shapes {[np.shape(C) for C in memberships]}; give "
            "all node sets the same number of clusters."
        )
    return plain


def _order_is_free(module: nn.Module, first: str, second: str) -> bool:
    """Whether only element-wise layers lie between two layers."""
    parent, _, start = first.rpartition(".")
    other, _, stop = second.rpartition(".")
    container = module.get_submodule(parent)
    if parent != other or type(container) is not nn.Sequential:
        return False
    names = list(container._modules)
    if names.index(start) > names.index(stop):
        return False
    run = list(container.children())[names.index(start) : names.index(stop) + 1]
    between = [each.layer for part in run[1:-1] for each in insertions(part)]
    between += [each.layer for each in insertions(run[0]) if not each.before]
    between += [each.layer for each in insertions(run[-1]) if each.before]
    return all(type(part) in ELEMENTWISE for part in [*run[1:-1], *between])
