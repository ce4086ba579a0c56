"""Functions and methods: their effect on channels and constants."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import replace
from types import EllipsisType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from sklearn_structreg.compaction.channels import Value
from sklearn_structreg.compaction.flow import Flow, as_array
from sklearn_structreg.compaction.graph import is_batch_size, shape_of
from sklearn_structreg.compaction.layers import LAYER_RULES, flatten
from sklearn_structreg.compaction.moves import MOVES, move

__all__ = ["count", "follow_function"]

ACTIVATIONS = (
    "celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu logsigmoid "
    "mish relu relu_ relu6 selu silu sigmoid softplus softshrink softsign tanh "
    "tanhshrink threshold"
)
ELEMENTWISE = {
    *(getattr(functional, name) for name in ACTIVATIONS.split()),
    *(torch.relu, torch.relu_, torch.tanh, torch.sigmoid, torch.clamp, torch.abs),
    *(torch.neg, operator.neg),
    *("relu", "relu_", "tanh", "tanh_", "sigmoid", "sigmoid_", "clamp", "clamp_"),
    *("abs", "neg", "contiguous", "clone"),
}
DROPOUTS = {
    *(functional.dropout, functional.dropout1d, functional.dropout2d),
    *(functional.dropout3d, functional.alpha_dropout),
}
ARITHMETIC: dict[Any, str] = {
    operator.add: "+", operator.iadd: "+", torch.add: "+", "add": "+", "add_": "+",
    operator.sub: "-", operator.isub: "-", torch.sub: "-", "sub": "-", "sub_": "-",
    operator.mul: "*", operator.imul: "*", torch.mul: "*", "mul": "*", "mul_": "*",
    operator.truediv: "/", operator.itruediv: "/", torch.div: "/", "div": "/",
}  # fmt: skip
POOLINGS: dict[Any, type[nn.Module]] = {
    getattr(functional, f"{kind.lower()}pool{n}d"): getattr(
        nn, f"{kind.replace('_', '')}Pool{n}d"
    )
    for n in (1, 2, 3)
    for kind in ("Max_", "Avg_", "Adaptive_Max_", "Adaptive_Avg_")
}
REDUCTIONS: dict[Any, bool] = {
    torch.mean: True, torch.amax: True, torch.amin: True, torch.sum: False,
    "mean": True, "amax": True, "amin": True, "sum": False,
}  # fmt: skip
"""Reductions over positions: True for those that leave a constant as it is."""


def follow_function(flow: Flow, node: fx.Node) -> Value | None:
    """Follow a function or method; None keeps all channels that it reads."""
    rule = FUNCTION_RULES.get(node.target)
    sources = [n for n in node.all_input_nodes if n in flow.values or n in flow.moved]
    if not sources:
        return part(flow, node)
    one_input = len(node.all_input_nodes) == 1
    value = None
    if rule and sources[0] in flow.values and (one_input or rule in SEVERAL_INPUTS):
        value = rule(flow, node, sources[0])
    if value is None and node.target in MOVES:
        value = move(flow, node, sources[0])
    return value


def part(flow: Flow, node: fx.Node) -> Value | None:
    """Take one of several results of a layer."""
    source: Any = node.args[0] if node.args else None
    if node.target is not operator.getitem or source not in flow.parts:
        return None
    parts, number = flow.parts[source], node.args[1]
    if not isinstance(parts, tuple) or not isinstance(number, int):
        return None
    if not isinstance(parts[number], Value):
        flow.parts[node] = parts[number]
        return None
    value: Value = parts[number]
    return value


def count(flow: Flow, node: fx.Node) -> None:
    """Note a number, such as a size, that may depend on how many channels stay."""
    source = node.args[0] if node.args else None
    name = node.args[1] if node.target is getattr else node.target
    if name in HARMLESS or _is_other_size(flow, node, source):
        return
    ids = [flow.channels_of(n) for n in node.all_input_nodes]
    flow.counts[node] = np.concatenate([*ids, np.zeros(0, np.int64)])


def _is_other_size(flow: Flow, node: fx.Node, source: Any) -> bool:
    """Recognize ``x.size(k)`` and ``x.shape[k]`` of another axis than the channels'."""
    if node.target is operator.getitem and isinstance(source, fx.Node):
        source = source.args[0] if source.target in ("size", getattr) else None
    elif node.target != "size":
        return False
    value, index = flow.values.get(source), node.args[1:]
    if value is None or len(index) != 1 or not isinstance(index[0], int):
        return False
    return index[0] % len(shape_of(source)) != value.axis


def elementwise(flow: Flow, node: fx.Node, source: fx.Node) -> Value:
    """Apply the function itself to the constants."""
    value, target = flow.values[source], node.target
    constants = torch.from_numpy(value.constant.copy())
    arguments: Any = fx.map_arg((node.args, node.kwargs), lambda _: constants)
    function: Any = getattr(Tensor, target) if isinstance(target, str) else target
    result = function(*arguments[0], **arguments[1])
    return value.with_constants(value.known, as_array(result))


def dropout(flow: Flow, node: fx.Node, source: fx.Node) -> Value | None:
    """Pass everything, unless dropout stays on in evaluation mode."""
    training = node.kwargs.get("training", node.args[2] if node.args[2:] else True)
    return None if training else flow.values[source]


def pooling(flow: Flow, node: fx.Node, source: fx.Node) -> Value | None:
    """Follow a pooling function by the rule of the layer that does the same."""
    if len(node.args) > 5 or node.kwargs.get("return_indices"):
        return None  # from there on the orders of the arguments differ

    def known(argument: Any) -> Any:  # a size, say of the whole map
        return argument.meta["result"] if isinstance(argument, fx.Node) else argument

    arguments: Any = fx.map_arg((node.args[1:], node.kwargs), known)
    layer = POOLINGS[node.target](*arguments[0], **arguments[1])
    return LAYER_RULES[type(layer)](flow, node, source, layer)


def flattening(flow: Flow, node: fx.Node, source: fx.Node) -> Value | None:
    """Follow the function by the rule of the layer."""
    arguments: dict[str, Any] = {"start_dim": 0, "end_dim": -1}
    arguments |= dict(zip(arguments, node.args[1:], strict=False)) | node.kwargs
    return flatten(flow, node, source, nn.Flatten(**arguments))


def arithmetic(flow: Flow, node: fx.Node, source: fx.Node) -> Value | None:
    """Follow a sum, difference or product of values, or of a value and a number."""
    sign = ARITHMETIC[node.target]
    arguments = [a for a in node.args if isinstance(a, fx.Node)]
    if len(node.args) != 2 or node.kwargs:
        return None
    if len(arguments) == 1:
        number = next(a for a in node.args if not isinstance(a, fx.Node))
        plain = isinstance(number, int | float) and (sign != "/" or number != 0)
        if not plain or (sign == "/" and node.args[0] is number):
            return None
        return elementwise(flow, node, arguments[0])
    if sign == "/" or not all(a in flow.values for a in arguments):
        return None
    a, b = (flow.values[argument] for argument in arguments)
    shapes = [shape_of(argument) for argument in arguments]
    if a.axis != b.axis or len(a.ids) != len(b.ids) or len(shapes[0]) != len(shapes[1]):
        return None
    flow.join([a, b])
    if sign == "*":
        zero = (a.known & (a.constant == 0)) | (b.known & (b.constant == 0))
        return a.with_constants((a.known & b.known) | zero, a.constant * b.constant)
    constant = a.constant + (b.constant if sign == "+" else -b.constant)
    return a.with_constants(a.known & b.known, constant)


def concatenation(flow: Flow, node: fx.Node, source: fx.Node) -> Value | None:
    """Put channels side by side, or maps of the same channels."""
    dim = node.kwargs.get("dim", node.args[1] if node.args[1:] else 0)
    parts: Any = node.args[0] if node.args else node.kwargs.get("tensors")
    if not isinstance(dim, int) or not isinstance(parts, tuple | list):
        return None
    shape = shape_of(node)
    axes = {flow.values[part].axis for part in parts if part in flow.values}
    if len(axes) != 1:
        return None
    axis, dim = axes.pop(), dim % len(shape)
    values = [flow.read(part, axis) for part in parts]
    if dim == axis:
        columns = zip(*((v.ids, v.known, v.constant) for v in values), strict=True)
        ids, known, constant = (np.concatenate(column) for column in columns)
        return Value(ids, known, constant, axis)
    if dim == 0:
        return None
    flow.join(values)
    first = values[0]
    same = [v.known & (v.constant == first.constant) for v in values]
    return first.forgotten(np.logical_and.reduce(same))


def reduction(flow: Flow, node: fx.Node, source: fx.Node) -> Value | None:
    """Reduce every channel's map, say to its mean."""
    names = dict(zip(("dim", "keepdim"), node.args[1:], strict=False)) | node.kwargs
    value, n_dims = flow.values[source], len(shape_of(source))
    dims = names.pop("dim", None)
    keepdim = names.pop("keepdim", False)
    dims = [dims] if isinstance(dims, int) else dims
    if names or not isinstance(dims, list | tuple) or not dims:
        return None
    reduced = {int(dim) % n_dims for dim in dims}
    if 0 in reduced or value.axis in reduced:
        return None
    axis = value.axis if keepdim else value.axis - sum(d < value.axis for d in reduced)
    kept = REDUCTIONS[node.target] or value.constant == 0
    return replace(value.forgotten(kept), axis=axis)


def new_axes(flow: Flow, node: fx.Node, source: fx.Node) -> Value | None:
    """Follow ``x[:, :, None]``, ``x[:, -1]`` and ``x.unsqueeze(-1)``."""
    value, shape = flow.values[source], shape_of(source)
    if node.target is operator.getitem:
        index: Any = node.args[1] if isinstance(node.args[1], tuple) else node.args[1:]
    else:
        dim = node.kwargs.get("dim", node.args[1] if node.args[1:] else None)
        if not isinstance(dim, int):
            return None
        index = [slice(None)] * len(shape)
        index.insert(dim % (len(shape) + 1), None)
    if index.count(...) > 1 or not all(
        isinstance(i, int | slice | None | EllipsisType) for i in index
    ):
        return None
    if ... in index:
        place = list(index).index(...)
        n_missing = len(shape) + 1 - sum(i is not None for i in index)
        index = *index[:place], *[slice(None)] * n_missing, *index[place + 1 :]
    axis, old = 0, 0
    for i in index:
        if i is not None:
            if old == value.axis:
                break
            old += 1
        axis += not isinstance(i, int)
    axis += value.axis - old  # those that the index leaves out
    whole = [i for i in index if i is not None][value.axis : value.axis + 1]
    return replace(value, axis=axis) if axis and whole in ([slice(None)], []) else None


def permutation(flow: Flow, node: fx.Node, source: fx.Node) -> Value | None:
    """Follow the axis of channels to its new place."""
    value, n_dims = flow.values[source], len(shape_of(source))
    rest = list(node.args[1:])
    dims: Any = rest[0] if rest and isinstance(rest[0], list | tuple) else rest
    if node.kwargs or not all(isinstance(dim, int) for dim in dims):
        return None
    order = [dim % n_dims for dim in dims]
    if node.target in (torch.transpose, "transpose"):
        i, j = order
        order = list(range(n_dims))
        order[i], order[j] = j, i
    axis = order.index(value.axis)
    return replace(value, axis=axis) if axis else None


def reshape(flow: Flow, node: fx.Node, source: fx.Node) -> Value | None:
    """Follow ``x.view(x.size(0), -1)``; sizes written as numbers must stay right."""
    sizes = list(node.args[1:])
    if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
        sizes = list(sizes[0])
    if node.kwargs or len(sizes) != 2 or sizes[1] != -1 or not is_batch_size(sizes[0]):
        return None
    n, *rest = shape_of(source)
    flat = shape_of(node) == (n, math.prod(rest))
    return flatten(flow, node, source, nn.Flatten()) if flat else None


FunctionRule = Callable[[Flow, fx.Node, fx.Node], Value | None]
"""Called with flow, node and the (first) node that it reads."""

FUNCTION_RULES: dict[Any, FunctionRule] = {
    target: rule
    for rule, targets in [
        (arithmetic, ARITHMETIC),
        (concatenation, (torch.cat, torch.concat)),
        (elementwise, ELEMENTWISE),
        (dropout, DROPOUTS),
        (flattening, (torch.flatten, "flatten")),
        (reduction, REDUCTIONS),
        (new_axes, (operator.getitem, torch.unsqueeze, "unsqueeze")),
        (permutation, (torch.permute, torch.transpose, "permute", "transpose")),
        (pooling, POOLINGS),
        (reshape, ("view", "reshape", torch.reshape)),
    ]
    for target in targets
}
HARMLESS = ("dim", "ndim", "ndimension", "dtype", "device", "is_cuda")
"""Methods and attributes that do not depend on how many channels there are."""
SEVERAL_INPUTS = (arithmetic, concatenation, pooling, reshape)
