"""Which channels of a network matter: a forward and a backward sweep over its graph."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from sklearn_structreg.compaction.channels import Bools, Ids
from sklearn_structreg.compaction.flow import Flow
from sklearn_structreg.compaction.functions import follow_function, reads_no_channels
from sklearn_structreg.compaction.graph import describe, layer_name, layer_of
from sklearn_structreg.compaction.layers import LAYER_RULES

__all__ = ["Liveness", "follow", "solve"]


@dataclass(frozen=True)
class Liveness:
    """What stays.

    Attributes
    ----------
    needed : ndarray of shape (n_ids,)
        Whether an output of the network depends on the channel.
    kept : ndarray of shape (n_ids,)
        Those, and one placeholder in each layer that would be left without channels.
    """

    needed: Bools
    kept: Bools


def follow(graph: fx.Graph, unsupported: str) -> Flow:
    """Sweep forward: number the channels of every tensor and find the constants.

    Parameters
    ----------
    graph : torch.fx.Graph
        From `trace`.
    unsupported : {"raise", "keep"}
        What to do about a layer that there is no rule for.

    Returns
    -------
    Flow

    Raises
    ------
    ValueError
        Naming the layer that there is no rule for.
    """
    flow = Flow()
    whole: set[str] = set()
    for node in graph.nodes:
        value = None
        if node.op == "call_module":
            layer = layer_of(node)
            assert layer is not None
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
            if value is None:
                whole.add(layer_name(node))
        elif node.op in ("call_function", "call_method"):
            value = follow_function(flow, node)
            if value is None and reads_no_channels(flow, node):
                continue
        if value is None:
            flow.keep_inputs(node)
        else:
            flow.values[node] = value
    flow.keep_layers(whole)  # also where another call of the layer was followed
    return flow


def solve(flow: Flow) -> Liveness:
    """Sweep backward, from the outputs, to a fixed point.

    A channel is needed where a needed output of a layer reads it with a weight that is
    not zero, unless it is a constant that can be folded into the layer's bias. Whatever
    is not reached that way may go, also where some such channels read each other.
    """
    labels, needed = flow.channels.solve()
    uses = list(reversed(flow.maps.values()))
    changed = True
    while changed:
        changed = False
        for use in uses:
            rows = needed[labels[use.out_ids]]
            columns = (use.nonzero[rows] & ~use.foldable).any(0)
            classes = labels[use.in_ids[columns]]
            changed |= not needed[classes].all()
            needed[classes] = True
    kept = needed.copy()
    for ids in _boundaries(flow):
        if len(ids) and not kept[labels[ids]].any():
            kept[labels[ids[0]]] = True
    return Liveness(needed[labels], kept[labels])


def _boundaries(flow: Flow) -> list[Ids]:
    """Return the channels on both sides of every layer with parameters."""
    maps, alone = flow.maps.values(), flow.channelwise.values()
    inputs = [*(use.in_ids for use in maps), *(use.in_ids for use in alone)]
    return [*inputs, *(use.out_ids for use in maps), *(use.out_ids for use in alone)]


def _unsupported(node: fx.Node) -> str:
    """Return why there is no rule for a node's layer; "" where there is one."""
    layer = layer_of(node)
    if type(layer) not in LAYER_RULES:
        return "is of a kind that compaction has no rule for"
    assert layer is not None
    if layer._forward_hooks or layer._forward_pre_hooks:
        return (
            "has hooks, say of torch.nn.utils.prune, that may change what it computes"
        )
    if len(node.all_input_nodes) != 1 or len(node.args) != 1:
        return "is called with something else than one positional argument"
    return ""
