"""Needed channels of a network: a forward and a backward sweep over its graph."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from sklearn_structreg.compaction.channels import Bools, Ids
from sklearn_structreg.compaction.flow import Flow, MapUse, RecurrentUse
from sklearn_structreg.compaction.functions import count, follow_function
from sklearn_structreg.compaction.graph import describe, is_number, layer_name
from sklearn_structreg.compaction.layers import LAYER_RULES, WITH_MORE_INPUTS

__all__ = ["Liveness", "follow", "solve"]


@dataclass(frozen=True)
class Liveness:
    """The channels that stay."""

    needed: Bools  # an output of the network depends on the channel
    kept: Bools  # those, and one placeholder in each layer that would become empty


def follow(graph: fx.Graph, unsupported: str) -> Flow:
    """Sweep forward: number the channels of every tensor and find the constants."""
    flow = Flow()
    whole: set[str] = set()
    for node in graph.nodes:
        value = None
        if node.op == "call_module":
            layer = node.meta["layer"]
            source = node.args[0] if node.args else None
            reason = _unsupported(node)
            if reason and unsupported == "raise":
                raise ValueError(
                    f"{describe(layer_name(node), layer)} {reason}; pass "
                    "unsupported='keep' to leave it, and all channels that it reads, "
                    "as they are."
                )
            if not reason and not node.meta["bound"] and isinstance(source, fx.Node):
                value = LAYER_RULES[type(layer)](flow, node, source, layer)
            if value is None and node not in flow.parts and node not in flow.moved:
                whole.add(layer_name(node))
        elif node.op in ("call_function", "call_method"):
            if is_number(node):
                count(flow, node)
                continue
            value = follow_function(flow, node)
        followed = node in flow.moved or node in flow.parts
        for source in node.all_input_nodes:
            if not followed and (value is None or source in flow.counts):
                flow.keep(source)
        if value is not None:
            flow.values[node] = value
    flow.keep_layers(whole)  # also where another call of the layer was followed
    return flow


def solve(flow: Flow) -> Liveness:
    """Sweep backward, from the outputs, to a fixed point.

    A channel is needed where a needed output of a layer reads it with a weight other
    than zero, unless it is a constant that can be folded into the layer's bias. The
    rest may go, even channels that read each other.
    """
    labels, needed = flow.channels.solve()
    maps = [use for _, use in flow.uses() if isinstance(use, MapUse)][::-1]
    changed = True
    while changed:
        changed = False
        for use in maps:
            rows = needed[labels[use.out_ids]]
            columns = (use.nonzero[rows] & ~use.foldable).any(0)
            classes = labels[use.in_ids[columns]]
            changed |= not needed[classes].all()
            needed[classes] = True
    kept = needed.copy()
    uses = [use for _, use in flow.uses()]
    for ids in [*(use.in_ids for use in uses), *(use.out_ids for use in uses)]:
        if len(ids) and not kept[labels[ids]].any():
            kept[labels[ids[0]]] = True
    for _ in flow.recurrent:  # layers whose units are tied to each other's
        for layer in flow.recurrent.values():
            _level(layer, labels, kept)
    return Liveness(needed[labels], kept[labels])


def _level(use: RecurrentUse, labels: Ids, kept: Bools) -> None:
    """Let all sides of a recurrent layer keep as many units as the largest one."""
    units = [side.hidden.in_ids for side in use.sides]
    numbers = [int(kept[labels[ids]].sum()) for ids in units]
    for ids, number in zip(units, numbers, strict=True):
        spare = ids[~kept[labels[ids]]]
        kept[labels[spare[: max(numbers) - number]]] = True


def _unsupported(node: fx.Node) -> str:
    """Name the reason for which a node's layer cannot be followed, "" without one."""
    layer = node.meta["layer"]
    if type(layer) not in LAYER_RULES:
        return "is of a kind that compaction has no rule for"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "has hooks, say of torch.nn.utils.prune, that may change its outputs"
    if type(layer) in WITH_MORE_INPUTS:
        return ""
    if len(node.all_input_nodes) != 1 or len(node.args) != 1:
        return "is called with something other than one positional argument"
    return ""
