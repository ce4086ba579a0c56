"""The forward sweep: channels and constants of every tensor of a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from sklearn_structreg.compaction.channels import Bools, Channels, Floats, Ids, Value
from sklearn_structreg.compaction.graph import shape_of

__all__ = [
    "Choice",
    "Flow",
    "LayerUse",
    "MapUse",
    "Moved",
    "RecurrentUse",
    "Side",
    "as_array",
    "bias_of",
    "contribution",
]


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


@dataclass(frozen=True)
class Side:
    """One direction of one layer of a recurrent network: all gates of each unit."""

    suffix: str  # of its parameters
    inputs: MapUse
    hidden: MapUse  # from the units to themselves


@dataclass(frozen=True)
class RecurrentUse:
    """A recurrent layer, whose sides must have equally many units."""

    sides: list[Side]


@dataclass(frozen=True)
class Moved:
    """The entries of a value in other places: the position there of every entry."""

    anchor: fx.Node
    places: Any  # a tensor, or several after a split


@dataclass(frozen=True)
class Choice:
    """A tensor that consists of channels of another one."""

    anchor: fx.Node
    axis: int
    index: Tensor


class Flow:
    """Channels and layers, in the order in which the network computes them."""

    def __init__(self) -> None:
        self.channels = Channels()
        self.values: dict[fx.Node, Value] = {}  # all other tensors keep their channels
        self.maps: dict[str, MapUse] = {}  # by the layer's name
        self.readers: set[str] = set()  # linear layers that can skip what they read
        self.channelwise: dict[str, LayerUse] = {}  # likewise
        self.selected: dict[str, LayerUse] = {}  # likewise
        self.heads: dict[str, Ids] = {}  # of attention; likewise
        self.recurrent: dict[str, RecurrentUse] = {}  # likewise
        self.parts: dict[fx.Node, Any] = {}  # values of layers with several results
        self.moved: dict[fx.Node, Moved] = {}
        self.choices: dict[fx.Node, Choice] = {}
        self.counts: dict[fx.Node, Ids] = {}  # numbers that depend on how many stay

    def keep_inputs(self, node: fx.Node) -> None:
        """Keep all channels that a node reads."""
        for source in node.all_input_nodes:
            self.keep(source)

    def keep(self, source: fx.Node) -> None:
        """Keep all channels of a node's result."""
        self.channels.fix(self.channels_of(source))

    def keep_choices(self) -> None:
        """Keep the channels that are moved or counted by number."""
        for moved in self.moved.values():
            self.keep(moved.anchor)
        for ids in self.counts.values():
            self.channels.fix(ids)

    def channels_of(self, source: fx.Node) -> Ids:
        """List the channels on which a node's result depends."""
        found = [self.counts.get(source, np.zeros(0, np.int64))]
        if source in self.moved:
            source = self.moved[source].anchor
        if source in self.values:
            found.append(self.values[source].ids)
        found += [value.ids for value in _values(self.parts.get(source))]
        return np.concatenate(found)

    def keep_layers(self, names: set[str]) -> None:
        """Keep all channels of the named layers, on both sides."""
        for name, use in (*self.uses(), *self.selected.items()):
            if name in names or name.rpartition(".")[0] in names:  # part of a layer
                self.channels.fix(use.in_ids)
                self.channels.fix(use.out_ids)

    def uses(self) -> list[tuple[str, LayerUse]]:
        """List all layers that have parameters per channel, by name.

        None of them may become empty.
        """
        sides = [
            (name, each)
            for name, use in self.recurrent.items()
            for side in use.sides
            for each in (side.inputs, side.hidden)
        ]
        return [*self.maps.items(), *self.channelwise.items(), *sides]

    def read(self, source: fx.Node, axis: int) -> Value:
        """Get a node's value along `axis`; channels along another axis must stay."""
        value = self.values.get(source)
        if value is not None and value.axis == axis:
            return value
        self.keep(source)
        ids = self.channels.new(shape_of(source)[axis])
        self.channels.fix(ids)
        return Value.unknown(ids, axis)

    def add_map(self, name: str, layer: Any, x: Value, zero_padded: bool) -> Value:
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
        if name in self.maps:
            self._tie_sides(self.maps[name], use)
            use = self.maps[name].merged(use)
        self.maps[name] = use
        return output

    def add_grouped_map(
        self, name: str, layer: Any, x: Value, zero_padded: bool
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
        self.add_channelwise(name, x.ids, output.ids)
        return output

    def add_channelwise(self, name: str, in_ids: Ids, out_ids: Ids) -> None:
        """Note a layer with parameters per channel."""
        use = LayerUse(in_ids, out_ids)
        self._tie_sides(self.channelwise.setdefault(name, use), use)

    def add_selection(self, name: str, in_ids: Ids, out_ids: Ids) -> None:
        """Note a layer that takes channels by number."""
        use = LayerUse(in_ids, out_ids)
        self._tie_sides(self.selected.setdefault(name, use), use)

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


def _values(parts: Any) -> Iterator[Value]:
    if isinstance(parts, Value):
        yield parts
    for part in parts if isinstance(parts, tuple) else ():
        yield from _values(part)


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
