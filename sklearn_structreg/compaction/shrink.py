"""Take channels out of the layers of a network, in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_structreg.compaction.channels import Bools, Floats
from sklearn_structreg.compaction.flow import (
    Flow,
    LayerUse,
    MapUse,
    RecurrentUse,
    contribution,
)
from sklearn_structreg.compaction.liveness import Liveness
from sklearn_structreg.compaction.recurrent import GATES
from sklearn_structreg.compaction.replacements import Attention, ColumnsLinear

__all__ = ["shrink"]

IN = ("in_features", "in_channels", "num_features", "num_channels")
OUT = ("out_features", "out_channels", "embedding_dim")
MOST_READ = 0.5  # of the network's input columns, beyond which a layer is given all
GROUPS = ("groups", "num_groups")


def shrink(network: nn.Module, flow: Flow, liveness: Liveness) -> None:
    """Remove the other channels and fold constants; layers stay the same objects."""
    for name, use in flow.maps.items():
        layer = network.get_submodule(name)
        _shrink_map(layer, use, liveness, reads_all=name in flow.readers)
    for name, alone in flow.channelwise.items():
        _shrink_channelwise(network.get_submodule(name), alone, liveness)
    for name, chosen in flow.selected.items():
        _shrink_selection(network.get_submodule(name), chosen, liveness)
    for name, heads in flow.heads.items():
        _shrink_heads(network, network.get_submodule(name), liveness.kept[heads])
    for name, sides in flow.recurrent.items():
        _shrink_recurrent(network.get_submodule(name), sides, liveness)


def _shrink_map(
    layer: Any, use: MapUse, liveness: Liveness, *, reads_all: bool
) -> None:
    rows, columns = liveness.kept[use.out_ids], liveness.kept[use.in_ids]
    gone = ~liveness.needed[use.in_ids]
    if rows.all() and not gone.any():
        return
    needed_rows = liveness.needed[use.out_ids]
    folded = contribution(layer.weight, np.where(gone, use.constant, 0.0))
    _add_to_bias(layer, np.where(needed_rows, folded, 0.0))
    with torch.no_grad():  # placeholders read nothing, and nothing reads them
        layer.weight[_indices(~needed_rows, layer.weight)] = 0.0
        layer.weight[:, _indices(gone, layer.weight)] = 0.0
        if layer.bias is not None:
            layer.bias[_indices(~needed_rows, layer.bias)] = 0.0
    if reads_all and columns.mean() > MOST_READ:  # to take them would cost more
        columns = np.ones_like(columns)
    elif reads_all:
        everything = np.ones_like(columns)
        ColumnsLinear.take_over(layer, _indices(everything, layer.weight))
    _select(layer, "columns", columns)
    _select(layer, "weight", rows, dim=0)
    _select(layer, "weight", columns, dim=1)
    _select(layer, "bias", rows)
    _set_width(layer, IN, columns)
    _set_width(layer, OUT, rows)


def _shrink_channelwise(layer: Any, use: LayerUse, liveness: Liveness) -> None:
    entries, outputs = liveness.kept[use.in_ids], liveness.kept[use.out_ids]
    if entries.all():
        return
    for name in ("weight", "bias", "running_mean", "running_var"):
        _select(layer, name, outputs, dim=int(isinstance(layer, nn.Embedding)))
    for name in GROUPS:
        if hasattr(layer, name):
            n_groups = getattr(layer, name) * int(entries.sum()) // len(entries)
            setattr(layer, name, n_groups)
    _set_width(layer, IN, entries)
    _set_width(layer, OUT, outputs)
    if isinstance(layer, nn.PReLU):
        layer.num_parameters = int(entries.sum())


def _shrink_selection(layer: Any, use: LayerUse, liveness: Liveness) -> None:
    kept = liveness.kept[use.in_ids]
    numbers = torch.from_numpy(kept.cumsum() - 1).to(layer.index)
    chosen = layer.index[_indices(liveness.kept[use.out_ids], layer.index)]
    layer.index = numbers[chosen]


def _shrink_heads(network: nn.Module, layer: Any, kept: Bools) -> None:
    """Remove heads from an attention; torch's own cannot do with fewer."""
    if kept.all():
        return
    smaller: Any = layer if isinstance(layer, Attention) else Attention(layer)
    smaller.keep_heads(torch.from_numpy(kept))
    smaller.train(layer.training)
    for module in list(network.modules()):
        for name, part in module._modules.items():
            if part is layer:
                module._modules[name] = smaller


def _shrink_recurrent(layer: Any, use: RecurrentUse, liveness: Liveness) -> None:
    n_gates = GATES[layer.mode][0]
    for side in use.sides:
        rows = np.tile(liveness.kept[side.hidden.in_ids], n_gates)
        dead = np.tile(~liveness.needed[side.hidden.in_ids], n_gates)
        for kind, reads in (("ih", side.inputs), ("hh", side.hidden)):
            weight = getattr(layer, f"weight_{kind}{side.suffix}")
            bias = getattr(layer, f"bias_{kind}{side.suffix}", None)
            gone = ~liveness.needed[reads.in_ids]
            folded = contribution(weight, np.where(gone, reads.constant, 0.0))
            with torch.no_grad():
                weight[:, _indices(gone, weight)] = 0.0
                weight[_indices(dead, weight)] = 0.0
                if bias is not None:
                    bias += torch.from_numpy(folded).to(bias)
                    bias[_indices(dead, bias)] = 0.0
            _select(layer, f"weight_{kind}{side.suffix}", rows)
            columns = liveness.kept[reads.in_ids]
            _select(layer, f"weight_{kind}{side.suffix}", columns, dim=1)
            _select(layer, f"bias_{kind}{side.suffix}", rows)
    layer.hidden_size = int(liveness.kept[use.sides[0].hidden.in_ids].sum())
    layer.input_size = int(liveness.kept[use.sides[0].inputs.in_ids].sum())
    layer.flatten_parameters()


def _select(layer: Any, name: str, kept: Bools, dim: int = 0) -> None:
    """Take the kept entries of a parameter or buffer, where the layer has it."""
    tensor = getattr(layer, name, None)
    if tensor is None or kept.all():
        return
    part = tensor.detach().index_select(dim, _indices(kept, tensor))
    if isinstance(tensor, nn.Parameter):
        part = nn.Parameter(part, requires_grad=tensor.requires_grad)
    setattr(layer, name, part)


def _add_to_bias(layer: Any, amount: Floats) -> None:
    """Add to the bias of a layer; one without gets one if there is need."""
    if not amount.any():
        return
    weight = layer.weight
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    total = torch.as_tensor(bias).to("cpu", torch.float64) + torch.from_numpy(amount)
    layer.bias = nn.Parameter(
        total.to(weight.device, weight.dtype), requires_grad=weight.requires_grad
    )


def _set_width(layer: Any, names: tuple[str, ...], kept: Bools) -> None:
    for name in names:
        if hasattr(layer, name):
            setattr(layer, name, int(kept.sum()))


def _indices(chosen: Bools, tensor: Tensor) -> Tensor:
    return torch.from_numpy(np.flatnonzero(chosen)).to(tensor.device)
