"""Entries that change places: splits and shuffles of channels."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from sklearn_structreg.compaction.channels import Bools, Value
from sklearn_structreg.compaction.flow import Choice, Flow, Moved
from sklearn_structreg.compaction.graph import is_number, plain_name, shape_of
from sklearn_structreg.compaction.replacements import Selection

__all__ = ["MOVES", "move", "move_by_layer", "needs_selections", "with_selections"]

NAMES = (
    "chunk flatten movedim narrow permute reshape select split swapaxes swapdims "
    "tensor_split transpose unbind unflatten"
)
MOVES: dict[Any, Any] = {
    **{name: getattr(Tensor, name) for name in NAMES.split()},
    **{getattr(torch, name): getattr(torch, name) for name in NAMES.split()},
    "view": Tensor.reshape,  # of positions, whose strides may differ
    "contiguous": Tensor.contiguous,
    operator.getitem: operator.getitem,
    nn.functional.channel_shuffle: nn.functional.channel_shuffle,
}
"""Functions that only move entries, with the function that moves positions alike."""
UNTOUCHED = operator.getitem, "contiguous"


def move(flow: Flow, node: fx.Node, source: fx.Node) -> Value | None:
    """Follow all entries; where they are whole channels again they make a value."""
    others = [n.meta["result"] for n in node.all_input_nodes if n is not source]
    arguments: Any = fx.map_arg(
        (node.args[1:], node.kwargs), lambda n: n.meta["result"]
    )
    if node.args[:1] != (source,) or any(isinstance(x, Tensor) for x in others):
        return None
    return _moved(flow, node, source, MOVES[node.target], *arguments)


def move_by_layer(flow: Flow, node: fx.Node, source: fx.Node, layer: Any) -> Any:
    """Follow all entries through a layer that only moves them."""
    return _moved(flow, node, source, layer, (), {})


def _moved(
    flow: Flow, node: fx.Node, source: fx.Node, function: Any, args: Any, kwargs: Any
) -> Value | None:
    if source in flow.values:
        anchor, places = source, _places(source)
    elif source in flow.moved:
        anchor, places = flow.moved[source].anchor, flow.moved[source].places
    else:
        return None
    try:
        places = function(places, *args, **kwargs)
    except (RuntimeError, TypeError):  # a view of another dtype
        return None
    flow.moved[node] = Moved(anchor, places)
    return _choice(flow, node) if isinstance(places, Tensor) else None


def _places(node: fx.Node) -> Tensor:
    """Return the number of each entry of a tensor."""
    shape = shape_of(node)
    return torch.arange(math.prod(shape)).reshape(shape)


def _choice(flow: Flow, node: fx.Node) -> Value | None:
    """Recognize a tensor that consists of channels of another one."""
    anchor, places = flow.moved[node].anchor, flow.moved[node].places
    value, shape = flow.values[anchor], shape_of(anchor)
    axis = value.axis
    if places.ndim != len(shape) or not places.numel():
        return None
    first = places.movedim(axis, -1).reshape(-1, places.shape[axis])[0]
    index = first // math.prod(shape[axis + 1 :]) % shape[axis]
    if not torch.equal(places, _places(anchor).index_select(axis, index)):
        return None
    numbers = index.numpy()
    all_in_order = torch.equal(index, torch.arange(shape[axis]))
    if not (all_in_order and node.target in UNTOUCHED):
        flow.choices[node] = Choice(anchor, axis, index)
    return Value(
        value.ids[numbers], value.known[numbers], value.constant[numbers], axis
    )


def needs_selections(flow: Flow, kept: Bools) -> bool:
    """Find out whether a move or a count is of channels of which some go."""
    anchors = [flow.values[choice.anchor].ids for choice in flow.choices.values()]
    return bool(anchors) and not all(
        kept[ids].all() for ids in (*anchors, *flow.counts.values())
    )


def with_selections(network: nn.Module, graph: fx.Graph, flow: Flow) -> fx.GraphModule:
    """Rewrite a network: a `Selection` takes the place of each choice of channels."""
    for node in reversed(list(graph.nodes)):
        if node in flow.choices and node.users:
            layer, anchor = _selection(flow, node)
            name = f"selection_{node.name}"
            while hasattr(network, name):
                name += "_"
            network.add_module(name, layer)
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.call_module(name, (anchor,)))
        idle = node in flow.moved or (node.op != "output" and is_number(node))
        if idle and not node.users:
            graph.erase_node(node)
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            if node.target.startswith("_"):  # a constant that the tracer has met
                network.register_buffer(node.target, node.meta["result"])
            node.target = plain_name(node.target)
        node.meta.clear()
        node.type = None  # an annotation, which would not pickle
    return fx.GraphModule(network, graph, type(network).__name__)


def _selection(flow: Flow, node: fx.Node) -> tuple[Selection, fx.Node]:
    """Make the layer for a choice, of a choice, ... of a layer's result."""
    anchor, axis, index = node, 0, torch.zeros(0)
    while anchor in flow.choices:
        choice = flow.choices[anchor]
        anchor, axis = choice.anchor, choice.axis
        index = choice.index[index] if len(index) else choice.index
    return Selection(index.to(anchor.meta["result"].device), axis), anchor
