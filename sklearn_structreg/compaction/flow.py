"""The forward sweep: channels and constants of every tensor of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from sklearn_structreg.compaction.channels import Bools, Channels, Floats, Ids, Value
from sklearn_structreg.compaction.graph import layer_name, shape_of

__all__ = ["ChannelwiseUse", "Flow", "MapUse", "as_array"]


@dataclass(frozen=True)
class MapUse:
    """A linear map from all channels to all channels: a linear layer, a convolution.

    Attributes
    ----------
    in_ids, out_ids : ndarray of shape (n_in,) and (n_out,)
        Channels of the columns and rows of the weight.
    nonzero : ndarray of shape (n_out, n_in)
        Whether an output reads an input at all.
    foldable : ndarray of shape (n_in,)
        Whether the input is a constant whose contribution is one, too.
    constant : ndarray of shape (n_in,)
        That constant, else 0.
    """

    in_ids: Ids
    out_ids: Ids
    nonzero: Bools
    foldable: Bools
    constant: Floats

    def merged(self, other: MapUse) -> MapUse:
        """Return what holds in both of two calls of the same layer."""
        same = self.foldable & other.foldable & (self.constant == other.constant)
        return replace(self, foldable=same, constant=np.where(same, self.constant, 0.0))


@dataclass(frozen=True)
class ChannelwiseUse:
    """A layer with parameters that treats every channel, or group of them, alone."""

    in_ids: Ids
    out_ids: Ids


class Flow:
    """What is known of every tensor, in the order in which the network computes them.

    Attributes
    ----------
    channels : Channels
        All channels of all tensors.
    values : dict of fx.Node to Value
        Tensors whose channels are followed. The channels of all others stay.
    maps : dict of str to MapUse
        By the layer's name, in forward order.
    channelwise : dict of str to ChannelwiseUse
        By the layer's name, in forward order.
    """

    def __init__(self) -> None:
        self.channels = Channels()
        self.values: dict[fx.Node, Value] = {}
        self.maps: dict[str, MapUse] = {}
        self.channelwise: dict[str, ChannelwiseUse] = {}

    def keep_inputs(self, node: fx.Node) -> None:
        """Keep all that a node reads; nothing is known of what comes out."""
        for source in node.all_input_nodes:
            if source in self.values:
                self.channels.fix(self.values[source].ids)

    def keep_layers(self, names: set[str]) -> None:
        """Keep all channels of the named layers, on both sides."""
        for uses in (self.maps, self.channelwise):
            for name in names & uses.keys():
                self.channels.fix(uses[name].in_ids)
                self.channels.fix(uses[name].out_ids)

    def read(self, source: fx.Node, axis: int) -> Value:
        """Return a node's value with its channels along `axis`.

        Where they lie along another one, or are not followed, all are kept and those
        along `axis` are new ones that stay.
        """
        value = self.values.get(source)
        if value is not None:
            if value.axis == axis:
                return value
            self.channels.fix(value.ids)
        shape = shape_of(source)
        assert shape is not None
        ids = self.channels.new(shape[axis])
        self.channels.fix(ids)
        return Value.unknown(ids, axis)

    def add_map(
        self,
        node: fx.Node,
        layer: nn.Module,
        x: Value,
        zero_padded: bool,
    ) -> Value:
        """Follow a linear map of all channels; return its output.

        At the borders of a map that is padded with zeros a constant other than zero
        does not contribute a constant.
        """
        weight = layer.weight.detach()  # type: ignore[operator]
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
            first = self.maps[name]
            self.channels.tie(first.in_ids, use.in_ids)
            self.channels.tie(first.out_ids, use.out_ids)
            use = first.merged(use)
        self.maps[name] = use
        return output

    def add_grouped_map(
        self, node: fx.Node, layer: nn.Module, x: Value, zero_padded: bool
    ) -> Value:
        """Follow a grouped convolution, of which whole groups may go."""
        weight = as_array(layer.weight)  # type: ignore[arg-type]
        weight = weight.reshape(*weight.shape[:2], -1)
        n_groups, (n_out, n_read) = int(layer.groups), weight.shape[:2]  # type: ignore[arg-type]
        groups = x.ids.reshape(n_groups, n_read)
        for column in range(1, n_read):
            self.channels.tie(groups[:, 0], groups[:, column])
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
        name = layer_name(node)
        if name in self.channelwise:
            self.channels.tie(self.channelwise[name].in_ids, in_ids)
            self.channels.tie(self.channelwise[name].out_ids, out_ids)
        else:
            self.channelwise[name] = ChannelwiseUse(in_ids, out_ids)

    def join(self, values: Sequence[Value]) -> None:
        """Tie the channels of several values."""
        for value in values[1:]:
            self.channels.tie(values[0].ids, value.ids)


def as_array(tensor: Tensor) -> Floats:
    """Return a tensor's numbers in double precision."""
    array: Floats = tensor.detach().cpu().double().numpy()
    return array


def contribution(weight: Tensor, constant: Floats) -> Floats:
    """Return what constant inputs add to each output of a linear map.

    Parameters
    ----------
    weight : Tensor of shape (n_out, n_in, ...)
        Of a linear layer or a convolution.
    constant : ndarray of shape (n_in,)
        Inputs of zero cost nothing.
    """
    columns = np.flatnonzero(constant)
    chosen = weight.detach()[:, torch.from_numpy(columns).to(weight.device)]
    part = as_array(chosen)
    total: Floats = part.sum(axis=tuple(range(2, part.ndim))) @ constant[columns]
    return total


def bias_of(layer: nn.Module) -> Floats | float:
    """Return a layer's bias, 0 without one."""
    bias = layer.bias
    return as_array(bias) if isinstance(bias, Tensor) else 0.0


def _foldable(x: Value, zero_padded: bool) -> Bools:
    zero: Bools = x.constant == 0.0
    return x.known & zero if zero_padded else x.known
