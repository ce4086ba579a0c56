"""Recurrent layers: units that their own gates, later layers and readers share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import fx, nn

from sklearn_structreg.compaction.channels import Value
from sklearn_structreg.compaction.flow import (
    Flow,
    MapUse,
    RecurrentUse,
    Side,
    as_array,
)
from sklearn_structreg.compaction.graph import layer_name, shape_of

__all__ = ["GATES", "recurrent"]

GATES = {"LSTM": (4, 2), "GRU": (3, 2), "RNN_TANH": (1, 0), "RNN_RELU": (1, 0)}
"""Number of gates, and the one that brings in new values, by the mode of the layer."""


def recurrent(flow: Flow, node: fx.Node, source: fx.Node, layer: Any) -> None:
    """Follow units from layer to layer, each also read by its own next step.

    A unit whose new values are always zero is a constant of zero.
    """
    name, axis = layer_name(node), len(shape_of(source)) - 1
    if layer.proj_size or axis != 2 or name in flow.recurrent:
        return
    x = flow.read(source, axis)
    sides = []
    for parameters in _by_layer(layer):
        sides.append([_side(flow, layer, suffix, x) for suffix in parameters])
        units = [side.hidden.in_ids for side in sides[-1]]
        zero = np.concatenate([side.hidden.foldable for side in sides[-1]])
        x = Value.unknown(np.concatenate(units), axis).with_constants(zero, 0.0 * zero)
    flow.recurrent[name] = RecurrentUse([side for layer in sides for side in layer])
    last = tuple(
        Value.unknown(side.hidden.in_ids, 1).with_constants(
            side.hidden.foldable, side.hidden.constant
        )
        for side in flow.recurrent[name].sides
    )
    flow.parts[node] = (x, (last, last) if isinstance(layer, nn.LSTM) else last)


def _by_layer(layer: nn.RNNBase) -> Iterator[list[str]]:
    """Name the sides of each layer as its parameters do."""
    for i in range(layer.num_layers):
        yield [f"_l{i}", f"_l{i}_reverse"][: 1 + layer.bidirectional]


def _side(flow: Flow, layer: Any, suffix: str, x: Value) -> Side:
    n_gates, new = GATES[layer.mode]
    names = [f"{kind}{suffix}" for kind in ("weight_ih", "weight_hh")]
    weights = [as_array(getattr(layer, name)) for name in names]
    if layer.bias:
        weights += [
            as_array(getattr(layer, name.replace("weight", "bias")))[:, None]
            for name in names
        ]
    gates = [weight.reshape(n_gates, layer.hidden_size, -1) for weight in weights]
    zero = np.all([(gate[new] == 0).all(1) for gate in gates], axis=0)
    ids = flow.channels.new(layer.hidden_size)
    foldable = x.known & (layer.bias | (x.constant == 0))
    return Side(
        suffix,
        MapUse(
            x.ids,
            ids,
            (gates[0] != 0).any(0),
            foldable,
            np.where(foldable, x.constant, 0.0),
        ),
        MapUse(ids, ids, (gates[1] != 0).any(0), zero, np.zeros(len(ids))),
    )
