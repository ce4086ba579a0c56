"""The forward sweep: channels and constants of every tensor of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from sklearn_structreg.compaction.channels import Bools, Channels, Floats, Ids, Value
from sklearn_structreg.compaction.graph import layer_name, shape_of

__all__ = ["Flow", "LayerUse", "MapUse", "as_array", "bias_of", "contribution"]


@dataclass(frozen=True)
class LayerUse:
    """Channels on both sides of a layer that treats each, or each group, alone."""

    in_ids: Ids
    out_ids: Ids


@dataclass(frozen=True)
class MapUse(LayerUse):
    """A linear map from all channels to all channels: a linear layer, a convolution."""

    nonzero: Bools  # (n_out, n_in): the output reads the input at all
    foldable: Bools  # (n_in,): a constant that contributes a constant
    constant: Floats  # (n_in,): that constant, else 0

    def merged(self, other: MapUse) -> MapUse:
        """Keep the constants that are the same in two calls of the layer."""
        same = self.foldable & other.foldable & (self.constant == other.constant)
        return replace(self, foldable=same, constant=np.where(same, self.constant, 0.0))


class Flow:
    """Channels and layers, in the order in which the network computes them."""

    def __init__(self) -> None:
        self.channels = Channels()
        self.values: dict[fx.Node, Value] = {}  # all other tensors keep their channels
        self.maps: dict[str, MapUse] = {}  # by the layer's name
        self.channelwise: dict[str, LayerUse] = {}  # likewise

    def keep_inputs(self, node: fx.Node) -> None:
        """Keep all channels that a node reads."""
        for source in node.all_input_nodes:
            if source in self.values:
                self.channels.fix(self.values[source].ids)

    def keep_layers(self, names: set[str]) -> None:
        """Keep all channels of the named layers, on both sides."""
        for name, use in self.uses():
            if name in names:
                self.channels.fix(use.in_ids)
                self.channels.fix(use.out_ids)

    def uses(self) -> list[tuple[str, LayerUse]]:
        """List all layers that have parameters per channel, by name."""
        return [*self.maps.items(), *self.channelwise.items()]

    def read(self, source: fx.Node, axis: int) -> Value:
        """Get a node's value along `axis`; channels along another axis must stay."""
        value = self.values.get(source)
        if value is not None:
            if value.axis == axis:
                return value
            self.channels.fix(value.ids)
        ids = self.channels.new(shape_of(source)[axis])
        self.channels.fix(ids)
        return Value.unknown(ids, axis)

    def add_map(self, node: fx.Node, layer: Any, x: Value, zero_padded: bool) -> Value:
        """Follow a linear map of all channels."""
        weight = layer.weight.detach()
        nonzero = (weight != 0).flatten(2).any(2) if weight.ndim > 2 else weight != 0
        foldable = _foldable(x, zero_padded)
        constant = np.where(foldable, x.constant, 0.0)
        out_ids = self.channels.new(len(weight))
        use = MapUse(x.ids, out_ids, nonzero.cpu().numpy(), foldable, constant)
        varies: Any = (use.nonzero & ~foldable).any(1)
        output = Value.unknown(out_ids, x.axis).with_constants(
            ~varies, contribution(weight, constant) + bias_of(layer)
        )
        name = layer_name(node)
        if name in self.maps:
            self._tie_sides(self.maps[name], use)
            use = self.maps[name].merged(use)
        self.maps[name] = use
        return output

    def add_grouped_map(
        self, node: fx.Node, layer: Any, x: Value, zero_padded: bool
    ) -> Value:
        """Follow a grouped convolution, of which whole groups may go."""
        weight = as_array(layer.weight)
        weight = weight.reshape(*weight.shape[:2], -1)
        n_groups, (n_out, n_read) = int(layer.groups), weight.shape[:2]
        groups = self.tie_groups(x.ids, n_groups)
        each = np.repeat(np.arange(n_groups), n_out // n_groups)
        foldable = _foldable(x, zero_padded).reshape(n_groups, n_read)[each]
        constant = np.where(foldable, x.constant.reshape(n_groups, n_read)[each], 0.0)
        output = Value.unknown(groups[each, 0], x.axis).with_constants(
            ~((weight != 0).any(2) & ~foldable).any(1),
            (weight.sum(2) * constant).sum(1) + bias_of(layer),
        )
        self.add_channelwise(node, x.ids, output.ids)
        return output

    def add_channelwise(self, node: fx.Node, in_ids: Ids, out_ids: Ids) -> None:
        """Note a layer with parameters per channel."""
        use = LayerUse(in_ids, out_ids)
        self._tie_sides(self.channelwise.setdefault(layer_name(node), use), use)

    def _tie_sides(self, first: LayerUse, second: LayerUse) -> None:
        """Tie the channels of two calls of a layer."""
        self.channels.tie(first.in_ids, second.in_ids)
        self.channels.tie(first.out_ids, second.out_ids)

    def tie_groups(self, ids: Ids, n_groups: int) -> Ids:
        """Tie the channels of each of several groups of equal size."""
        groups = ids.reshape(n_groups, -1)
        for column in range(1, groups.shape[1]):
            self.channels.tie(groups[:, 0], groups[:, column])
        return groups

    def join(self, values: Sequence[Value]) -> None:
        """Tie the channels of several values."""
        for value in values[1:]:
            self.channels.tie(values[0].ids, value.ids)


def as_array(tensor: Tensor) -> Floats:
    """Convert a tensor to an array in double precision."""
    array: Floats = tensor.detach().cpu().double().numpy()
    return array


def contribution(weight: Tensor, constant: Floats) -> Floats:
    """Sum the contributions of constant inputs to each output of a linear map."""
    columns = np.flatnonzero(constant)
    part = as_array(weight.detach()[:, torch.from_numpy(columns).to(weight.device)])
    total: Floats = part.sum(axis=tuple(range(2, part.ndim))) @ constant[columns]
    return total


def bias_of(layer: Any) -> Floats | float:
    """Get a layer's bias, 0 without one."""
    return 0.0 if layer.bias is None else as_array(layer.bias)


def _foldable(x: Value, zero_padded: bool) -> Bools:
    # at the borders of a zero-padded map only a constant of 0 contributes a constant
    zero: Bools = x.constant == 0.0
    return x.known & zero if zero_padded else x.known
