"""Layers: the effect of each kind of torch layer on channels and constants."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from sklearn_structreg.compaction.channels import Bools, Floats, Value
from sklearn_structreg.compaction.flow import Flow, as_array, bias_of
from sklearn_structreg.compaction.graph import layer_name, shape_of
from sklearn_structreg.compaction.moves import move_by_layer
from sklearn_structreg.compaction.recurrent import recurrent
from sklearn_structreg.compaction.replacements import (
    Attention,
    ColumnsLinear,
    Selection,
)

__all__ = ["LAYER_RULES", "WITH_MORE_INPUTS", "LayerRule", "flatten"]

LayerRule = Callable[[Flow, fx.Node, fx.Node, Any], Value | None]
"""Called with flow, node, the node it reads and the layer; None keeps all it reads."""


def linear(flow: Flow, node: fx.Node, source: fx.Node, layer: nn.Linear) -> Value:
    """Map the last axis; what nobody made, as the network's input, may be skipped."""
    axis = len(shape_of(source)) - 1
    called_once = sum(other.target == node.target for other in node.graph.nodes) == 1
    value = flow.values.get(source)
    if not called_once or (value is not None and value.axis == axis):
        x = flow.read(source, axis)
    else:
        flow.keep(source)
        x = Value.unknown(flow.channels.new(shape_of(source)[axis]), axis)
        flow.readers.add(layer_name(node))
    return flow.add_map(layer_name(node), layer, x, zero_padded=False)


def columns_linear(
    flow: Flow, node: fx.Node, source: fx.Node, layer: ColumnsLinear
) -> Value:
    """Map some columns, of which more may be skipped."""
    flow.keep(source)
    x = Value.unknown(flow.channels.new(layer.in_features), len(shape_of(source)) - 1)
    return flow.add_map(layer_name(node), layer, x, zero_padded=False)


def convolution(flow: Flow, node: fx.Node, source: fx.Node, layer: Any) -> Value | None:
    """Map the first axis after the samples."""
    if len(shape_of(source)) != len(layer.kernel_size) + 2:  # no axis of samples
        return None
    x = flow.read(source, 1)
    padded = (
        any(size > 1 for size in layer.kernel_size)
        if layer.padding == "same"
        else layer.padding != "valid" and any(layer.padding)
    )
    zero_padded = padded and layer.padding_mode == "zeros"
    add = flow.add_map if layer.groups == 1 else flow.add_grouped_map
    return add(layer_name(node), layer, x, zero_padded)


def batch_norm(flow: Flow, node: fx.Node, source: fx.Node, layer: Any) -> Value:
    """Scale and shift every channel; a scale of zero makes it a constant."""
    x = flow.read(source, 1)
    flow.add_channelwise(layer_name(node), x.ids, x.ids)
    scale: Floats | float = as_array(layer.weight) if layer.affine else 1.0
    shift = bias_of(layer)
    switched_off: Bools = np.broadcast_to(scale == 0.0, x.known.shape)
    if layer.running_mean is None:  # scaled by the batch's own statistics
        return x.with_constants(switched_off, np.broadcast_to(shift, len(x.ids)))
    deviation = np.sqrt(as_array(layer.running_var) + layer.eps)
    normalized = (x.constant - as_array(layer.running_mean)) / deviation
    return x.with_constants(x.known | switched_off, normalized * scale + shift)


def group_norm(flow: Flow, node: fx.Node, source: fx.Node, layer: Any) -> Value:
    """Normalize groups of channels, of which only whole ones may go."""
    flow.tie_groups(flow.read(source, 1).ids, layer.num_groups)
    return instance_norm(flow, node, source, layer)


def instance_norm(flow: Flow, node: fx.Node, source: fx.Node, layer: Any) -> Value:
    """Normalize every channel by itself."""
    x = flow.read(source, 1)
    flow.add_channelwise(layer_name(node), x.ids, x.ids)
    return x.forgotten()


def layer_norm(flow: Flow, node: fx.Node, source: fx.Node, layer: Any) -> Value | None:
    """Pass channels where the norm runs over other axes; else all must stay."""
    value = flow.values.get(source)
    first_axis = len(shape_of(source)) - len(layer.normalized_shape)
    return None if value is None or value.axis >= first_axis else value.forgotten()


def prelu(flow: Flow, node: fx.Node, source: fx.Node, layer: nn.PReLU) -> Value | None:
    """Apply a slope of its own to every channel, or one to all."""
    if layer.num_parameters == 1:
        return activation(flow, node, source, layer)
    x = flow.read(source, 1)
    flow.add_channelwise(layer_name(node), x.ids, x.ids)
    slope = np.where(x.constant > 0, 1.0, as_array(layer.weight))
    return x.with_constants(x.known, slope * x.constant)


def activation(flow: Flow, node: fx.Node, source: fx.Node, layer: Any) -> Value | None:
    """Apply a function to every entry."""
    value = flow.values.get(source)
    if value is None:
        return None
    function = copy.deepcopy(layer).cpu().double().eval()
    with torch.no_grad():
        constant = function(torch.from_numpy(value.constant.copy())[None])[0]
    return value.with_constants(value.known, as_array(constant))


def unchanged(flow: Flow, node: fx.Node, source: fx.Node, layer: Any) -> Value | None:
    """Pass everything, as dropout does in evaluation mode."""
    return flow.values.get(source)


def pass_through(keep: Callable[[Any], bool | str]) -> LayerRule:
    """Make the rule of a layer that pools or pads every channel by itself.

    `keep(layer)` is True where a constant stays as it is, "zero" where only 0 does.
    """

    def rule(flow: Flow, node: fx.Node, source: fx.Node, layer: Any) -> Value | None:
        if not isinstance(node.meta["result"], torch.Tensor):  # returns indices, too
            return None
        x, kept = flow.read(source, 1), keep(layer)
        return x.forgotten(x.constant == 0.0 if kept == "zero" else bool(kept))

    return rule


def flatten(flow: Flow, node: fx.Node, source: fx.Node, layer: Any) -> Value | None:
    """Give every pixel of a channel's map an entry that belongs to the channel."""
    x, shape = flow.values.get(source), shape_of(source)
    start, end = layer.start_dim % len(shape), layer.end_dim % len(shape)
    if x is None or start == 0:
        return None
    if not start <= x.axis <= end:
        return replace(x, axis=x.axis - (end - start if x.axis > end else 0))
    before, after = shape[start : x.axis], shape[x.axis + 1 : end + 1]
    entries = np.arange(len(x.ids)).repeat(math.prod(after))
    entries = np.tile(entries, math.prod(before))
    return Value(x.ids[entries], x.known[entries], x.constant[entries], start)


def embedding(
    flow: Flow, node: fx.Node, source: fx.Node, layer: nn.Embedding
) -> Value | None:
    """Look entries up; one that is the same in all rows of the table is a constant."""
    if layer.max_norm is not None:  # over all entries of a row
        return None
    table = as_array(layer.weight)
    ids = flow.channels.new(layer.embedding_dim)
    flow.add_channelwise(layer_name(node), ids, ids)
    value = Value.unknown(ids, len(shape_of(node)) - 1)
    return value.with_constants((table == table[0]).all(0), table[0])


def selection(flow: Flow, node: fx.Node, source: fx.Node, layer: Selection) -> Value:
    """Take channels by number."""
    x, index = flow.read(source, layer.axis), layer.index.cpu().numpy()
    flow.add_selection(layer_name(node), x.ids, x.ids[index])
    return Value(x.ids[index], x.known[index], x.constant[index], x.axis)


def attention(flow: Flow, node: fx.Node, source: fx.Node, layer: Any) -> None:
    """Follow the heads to the projection that reads them.

    A head's result is a constant where its values are: their weights add up to one.
    """
    flow.keep_inputs(node)
    result, arguments = node.meta["result"][0], [*node.args[3:], *node.kwargs.values()]
    masks = [a.meta["result"] for a in arguments if isinstance(a, fx.Node)]
    weights_read = any(
        user.target is not operator.getitem or (user.args[1] != 0 and user.users)
        for user in node.users
    )
    more_keys = getattr(layer, "bias_k", None) is not None
    if weights_read or more_keys or getattr(layer, "add_zero_attn", False):
        return
    if any(mask.ndim > 2 for mask in masks):  # one for each head
        return
    name = layer_name(node)
    if name not in flow.heads:
        flow.heads[name] = flow.channels.new(layer.num_heads)
    x = Value.unknown(flow.heads[name].repeat(layer.head_dim), result.ndim - 1)
    if not masks:  # with one, a position may have nothing to look at
        known, constant = _constant_values(layer)
        x = x.with_constants(known, constant)
    output = flow.add_map(f"{name}.out_proj", layer.out_proj, x, zero_padded=False)
    flow.parts[node] = output, None


def _constant_values(layer: Any) -> tuple[Bools, Floats]:
    """Find the entries of an attention's values that are the same for every input."""
    packed, width = layer.in_proj_weight, layer.num_heads * layer.head_dim
    weight = as_array(layer.v_proj_weight if packed is None else packed[-width:])
    bias = layer.in_proj_bias
    constant = np.zeros(width) if bias is None else as_array(bias[-width:])
    return (weight == 0).all(1), constant


def whole(flow: Flow, node: fx.Node, source: fx.Node, layer: nn.Module) -> None:
    """Read all channels together: all of them must stay."""


def _keeps_average(layer: Any) -> bool | str:
    padded = any(np.atleast_1d(layer.padding)) and layer.count_include_pad
    divided = getattr(layer, "divisor_override", None) is not None
    return "zero" if padded or divided else True


def _keeps_maximum(layer: Any) -> bool:
    # a window so dilated that it misses the map would see the padding alone
    padded, dilation = any(np.atleast_1d(layer.padding)), np.atleast_1d(layer.dilation)
    return not padded or bool(np.all(dilation == 1))


RULES: list[tuple[LayerRule, str]] = [
    (linear, "Linear"),
    (convolution, "Conv1d Conv2d Conv3d"),
    (batch_norm, "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm"),
    (group_norm, "GroupNorm"),
    (instance_norm, "InstanceNorm1d InstanceNorm2d InstanceNorm3d"),
    (layer_norm, "LayerNorm RMSNorm"),
    (prelu, "PReLU"),
    (flatten, "Flatten"),
    (
        activation,
        "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid "
        "Mish ReLU ReLU6 RReLU SELU SiLU Sigmoid Softplus Softshrink Softsign Tanh "
        "Tanhshrink Threshold",
    ),
    (unchanged, "Identity Dropout Dropout1d Dropout2d Dropout3d"),
    (unchanged, "AlphaDropout FeatureAlphaDropout"),
    (pass_through(_keeps_average), "AvgPool1d AvgPool2d AvgPool3d"),
    (pass_through(_keeps_maximum), "MaxPool1d MaxPool2d MaxPool3d"),
    (
        pass_through(lambda layer: True),
        "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d "
        "AdaptiveMaxPool2d AdaptiveMaxPool3d ReflectionPad1d ReflectionPad2d "
        "ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d "
        "CircularPad1d CircularPad2d CircularPad3d",
    ),
    (pass_through(lambda layer: "zero"), "ZeroPad1d ZeroPad2d ZeroPad3d Upsample"),
    (pass_through(lambda layer: "zero"), "UpsamplingNearest2d UpsamplingBilinear2d"),
    (
        pass_through(lambda layer: "zero" if layer.value == 0 else False),
        "ConstantPad1d ConstantPad2d ConstantPad3d",
    ),
    (embedding, "Embedding"),
    (attention, "MultiheadAttention"),
    (recurrent, "LSTM GRU RNN"),
    (move_by_layer, "ChannelShuffle PixelShuffle PixelUnshuffle Unflatten"),
    (whole, "Softmax Softmax2d Softmin LogSoftmax GLU LocalResponseNorm"),
]
LAYER_RULES: dict[type[nn.Module], LayerRule] = {
    getattr(nn, name): rule for rule, names in RULES for name in names.split()
}
WITH_MORE_INPUTS = nn.MultiheadAttention, Attention
LAYER_RULES |= {
    Attention: attention,
    ColumnsLinear: columns_linear,
    Selection: selection,
}
