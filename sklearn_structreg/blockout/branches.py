"""The physical form of a hardened net: parallel branches, only non-zero blocks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.blockout.memberships import BoolArray, group_nodes

__all__ = ["BranchedLinear", "to_branches"]

Columns = NDArray[np.int64]

ELEMENTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Softplus, nn.Softsign, nn.Tanh, nn.Sigmoid, nn.LogSigmoid),
    *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Identity, nn.Dropout),
)
"""Layers that treat every node alike, so that the order of the nodes is free."""


class BranchedLinear(nn.Module):
    """A block-structured linear layer that computes its non-zero blocks only.

    Outputs in the same clusters form a branch. A branch reads the inputs that share a
    cluster with it: a slice where they lie side by side, or else columns that are
    gathered once for the whole layer. It is an ordinary module: it trains, moves
    between devices and is pickled.

    Parameters
    ----------
    weight : torch.Tensor of shape (d_out, d_in)
        Weights of the dense layer; what lies outside the blocks is not read.
    bias : torch.Tensor of shape (d_out,) or None
        Biases. Not masked: an output that nothing reaches is its bias.
    output_members : ndarray of shape (d_out, k), bool
        C_j.
    input_members : ndarray of shape (d_in, k), bool
        C_{j-1}.
    input_nodes : ndarray of int or None, default=None
        Which input node each column of the incoming data holds; None is the natural
        order, all of them.
    output_nodes : ndarray of int or None, default=None
        Likewise of the outgoing data. In the order of `group_nodes` branches need only
        be put side by side.

    Examples
    --------
    Two clusters with two inputs and one output each:

    >>> import numpy as np, torch
    >>> from sklearn_structreg.blockout import BranchedLinear
    >>> members = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
    >>> layer = BranchedLinear(torch.ones(2, 4), None, members[::2], members)
    >>> layer(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).tolist()
    [[3.0, 7.0]]
    >>> layer.n_multiply_adds
    4
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
        output_nodes: Columns | None = None,
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
        wanted = np.arange(d_out) if output_nodes is None else output_nodes
        self.in_features, self.out_features = len(held), len(wanted)
        self.weights = nn.ParameterList()
        self.inputs: list[tuple[bool, int, int]] = []  # gathered?, start, length
        gathered: list[Columns] = []
        computed: list[Columns] = []
        for pattern, nodes in group_nodes(output_members):
            nodes = nodes[np.isin(nodes, wanted)]
            if not nodes.size:
                continue
            computed.append(nodes)
            read = np.flatnonzero((input_members[held] & pattern).any(axis=1))
            side_by_side = not read.size or read[-1] - read[0] + 1 == read.size
            if side_by_side:
                self.inputs.append((False, int(read[0]) if read.size else 0, read.size))
            else:
                start = sum(map(len, gathered))
                self.inputs.append((True, start, read.size))
                gathered.append(read)
            block = weight.detach().cpu()[nodes][:, held[read]]
            self.weights.append(nn.Parameter(block.to(weight.device)))
        produced = np.concatenate(computed) if computed else np.arange(0)
        place = np.empty(d_out, dtype=np.int64)
        place[produced] = np.arange(produced.size)
        in_order = np.array_equal(place[wanted], np.arange(produced.size))
        self.bias = None
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().cpu()[produced].to(bias.device))
        none = np.arange(0)
        columns = np.concatenate(gathered or [none])
        order = none if in_order else place[wanted]
        for name, index in {"columns": columns, "order": order}.items():
            self.register_buffer(name, torch.from_numpy(index).to(weight.device))

    @property
    def n_multiply_adds(self) -> int:
        """Multiply-adds per sample: the number of weights inside blocks."""
        return sum(weight.numel() for weight in self.weights)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the branches and put them side by side.

        Parameters
        ----------
        x : torch.Tensor of shape (..., in_features)
            Inputs.

        Returns
        -------
        torch.Tensor of shape (..., out_features)
        """
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
        """Return sizes, as torch's layers print them."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"branches={len(self.weights)}, multiply_adds={self.n_multiply_adds}"
        )


def to_branches(
    module: nn.Module, names: Sequence[str], memberships: Sequence[BoolArray]
) -> nn.Module:
    """Replace a chain of Linear layers by branches that compute non-zero blocks only.

    Between two layers of a `torch.nn.Sequential` that only element-wise layers
    separate, nodes stay grouped and dead ones are left out; elsewhere the natural
    order is restored.

    Parameters
    ----------
    module : torch.nn.Module
        With plain Linear layers, as `BlockoutClassifier.fold` returns it; not changed.
    names : sequence of str
        The chain's m Linear layers in forward order.
    memberships : sequence of ndarray of shape (d_j, k), bool
        C_0 to C_m.

    Returns
    -------
    torch.nn.Module
        A copy. Its outputs are those of the dense net with zeros outside the blocks
        (see `mask_blocks`).

    Raises
    ------
    ValueError
        If names and memberships do not fit together.
    """
    layers = chain_layers(module, names, memberships)
    free = [_order_is_free(module, *pair) for pair in pairwise(names)]
    nodes: list[Columns | None] = [None]
    for members, grouped in zip(memberships[1:-1], free, strict=True):
        nodes.append(_live_nodes(members) if grouped else None)
    nodes.append(None)
    result = copy.deepcopy(module)
    for j, (name, layer) in enumerate(zip(names, layers, strict=True)):
        branched = BranchedLinear(
            layer.weight,
            layer.bias,
            memberships[j + 1],
            memberships[j],
            input_nodes=nodes[j],
            output_nodes=nodes[j + 1],
        )
        branched.train(layer.training)
        if not name:
            return branched
        parent, _, attribute = name.rpartition(".")
        setattr(result.get_submodule(parent), attribute, branched)
    return result


def chain_layers(
    module: nn.Module, names: Sequence[str], memberships: Sequence[BoolArray]
) -> list[nn.Linear]:
    """Look up the chain's layers and check them against the memberships."""
    layers = [module.get_submodule(name) for name in names]
    for name, layer in zip(names, layers, strict=True):
        if not isinstance(layer, nn.Linear):
            raise ValueError(
                f"{name!r} is a {type(layer).__name__}; blocks are those of plain "
                "Linear layers, so fold the network first."
            )
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    sizes = [len(members) for members in memberships]
    expected = [linear[0].in_features, *(layer.out_features for layer in linear)]
    if sizes != expected:
        raise ValueError(
            f"The chain {list(names)} has node sets of {expected} nodes, but the "
            f"memberships are of {sizes}; give C_0 to C_m."
        )
    return linear


def _live_nodes(members: BoolArray) -> Columns:
    groups = group_nodes(members)
    live = [nodes for pattern, nodes in groups if pattern.any()]
    return np.concatenate(live) if live else np.arange(0)


def _order_is_free(module: nn.Module, first: str, second: str) -> bool:
    """Return whether only element-wise layers lie between two layers."""
    parent, _, start = first.rpartition(".")
    other, _, stop = second.rpartition(".")
    container = module.get_submodule(parent)
    if parent != other or type(container) is not nn.Sequential:
        return False
    names = list(container._modules)
    between = names[names.index(start) + 1 : names.index(stop)]
    return names.index(start) < names.index(stop) and all(
        type(container.get_submodule(name)) in ELEMENTWISE for name in between
    )
