"""The network as a graph of operations, followed by `torch.fx`."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from sklearn_structreg.compaction.replacements import Attention, Selection

__all__ = [
    "describe",
    "is_batch_size",
    "is_number",
    "layer_name",
    "rounding",
    "same_outputs",
    "shape_of",
    "trace",
]

ROOT = "network"
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, Attention, Selection)
CONTAINERS = (nn.Sequential, nn.TransformerEncoder, nn.TransformerEncoderLayer)


class Root(nn.Module):
    """Calls the network with one argument, so that the others keep their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """Run the network."""
        return self.network(x)


class Tracer(fx.Tracer):
    """Goes into modules down to torch's own layers and remembers the path."""

    def __init__(self) -> None:
        super().__init__()
        self.path = [ROOT]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Stop at torch's own layers, and at layers derived from those with weights."""
        own = type(m).__module__.startswith(("torch.nn", "torch.ao"))
        return isinstance(m, LAYERS) or (own and not isinstance(m, CONTAINERS))

    def call_module(self, m: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Follow a call; after an exception `path` ends at the module that raised."""
        self.path.append(self.path_of_module(m))
        if type(m) is nn.TransformerEncoder:
            args = partial(_encode, m), *args[1:]
        result = super().call_module(m, *args, **kwargs)
        self.path.pop()
        return result


def _encode(
    encoder: Any,
    src: Any,
    mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool | None = None,  # a hint that changes nothing
) -> Any:
    """Do as a transformer encoder does, without looking at the data."""
    for layer in encoder.layers:
        src = layer(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask)
    return src if encoder.norm is None else encoder.norm(src)


class Recorder(fx.Interpreter):
    """Runs a graph and notes every node's result and the tensors it wrote to."""

    def run_node(self, n: fx.Node) -> Any:
        """Run one operation."""
        inputs = [self.env[node] for node in n.all_input_nodes]
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        before = [x._version for x in tensors]
        result = super().run_node(n)
        n.meta["result"] = result
        is_layer = n.op == "call_module"
        n.meta["layer"] = self.fetch_attr(str(n.target)) if is_layer else None
        n.meta["written"] = {
            x.untyped_storage().data_ptr()
            for x, version in zip(tensors, before, strict=True)
            if x._version != version
        }
        return result


def trace(network: nn.Module, sample: Tensor) -> fx.Graph:
    """Follow a network in evaluation mode; ``meta["result"]`` holds its tensors."""
    root, tracer = Root(network), Tracer()
    try:
        expected = network(sample.clone())
    except Exception as error:
        raise ValueError(
            f"The network does not take samples of shape {tuple(sample.shape)} and "
            f"type {sample.dtype}: {_first_line(error)}. Pass a batch of the shape "
            "and type that it takes."
        ) from error
    try:
        with _unfused():
            graph = tracer.trace(root)
        recorder = Recorder(root, garbage_collect_values=False, graph=graph)
        result = recorder.run(sample.clone())
    except Exception as error:
        path = tracer.path[-1]
        where = describe(plain_name(path), root.get_submodule(path))
        if "'len' is not supported" in str(error):
            raise ValueError(
                f"{where} cannot be followed by torch.fx: it takes the len() of a "
                "tensor; write x.shape[0] in place of len(x)."
            ) from error
        raise ValueError(
            f"{where} cannot be followed by torch.fx: {_first_line(error)}. A network "
            "can be compacted if no branch or loop of its forward pass depends on data."
        ) from error
    _check_in_place(graph)
    if not same_outputs(expected, result, rounding(sample.dtype)):
        raise ValueError(
            "The network cannot be compacted: followed by torch.fx it computes other "
            "outputs than when it is called. Does it write to a tensor in place that "
            "it reads again, or draw random numbers in evaluation mode?"
        )
    _mark_bound_layers(root, graph)
    return graph


@contextmanager
def _unfused() -> Iterator[None]:
    """Let torch's transformer layers call their parts."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _check_in_place(graph: fx.Graph) -> None:
    """Refuse operations that write to a tensor that another one reads later."""
    nodes = list(graph.nodes)
    position = {node: i for i, node in enumerate(nodes)}
    for i, node in enumerate(nodes):
        for earlier in nodes[:i] if node.meta["written"] else ():
            result = earlier.meta["result"]
            if (
                isinstance(result, Tensor)
                and result.untyped_storage().data_ptr() in node.meta["written"]
                and any(position[user] > i for user in earlier.users)
            ):
                name = getattr(node.target, "__name__", node.target)
                layer = node.meta["layer"]
                where = describe(layer_name(node), layer) if layer is not None else ""
                raise ValueError(
                    f"{where or f'The operation {name!r}'} works in place on a tensor "
                    "that is read again afterwards, so the network cannot be "
                    "compacted; use the operation that makes a new tensor."
                )


def _mark_bound_layers(root: nn.Module, graph: fx.Graph) -> None:
    """Note the calls of layers whose parameters are used elsewhere, too."""
    owners = Counter(
        id(tensor)
        for module in root.modules()
        for tensor in (*module._parameters.values(), *module._buffers.values())
    )
    for node in graph.nodes:
        if node.op == "get_attr":
            owners[id(node.meta["result"])] += 1
    for node in graph.nodes:
        layer = node.meta["layer"]
        tensors = () if layer is None else (*layer.parameters(), *layer.buffers())
        node.meta["bound"] = any(owners[id(tensor)] > 1 for tensor in tensors)


def plain_name(path: str) -> str:
    """Turn a module's name in the graph into its name in the network."""
    return path.removeprefix(ROOT).removeprefix(".")


def layer_name(node: fx.Node) -> str:
    """Name the layer that a node calls, as the network does."""
    return plain_name(str(node.target))


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Get the shape of a node's result, () where it is no tensor."""
    result = node.meta["result"]
    return tuple(result.shape) if isinstance(result, Tensor) else ()


def is_number(node: fx.Node) -> bool:
    """Recognize a result that holds no tensor: a size, a type, a number."""
    result = node.meta["result"]
    parts = result if isinstance(result, tuple | list) else (result,)
    return not any(isinstance(part, Tensor | tuple) for part in parts)


def describe(name: str, layer: nn.Module) -> str:
    """Name a layer, for errors; the network itself has the name ""."""
    kind = type(layer).__name__
    return f"The layer {name!r} ({kind})" if name else f"The network ({kind})"


def is_batch_size(argument: Any) -> bool:
    """Recognize the number of samples: ``x.size(0)``, ``x.shape[0]``."""
    if not isinstance(argument, fx.Node):
        return False
    if argument.op == "call_method" and argument.target == "size":
        return bool(argument.args[1:] == (0,))
    return bool(
        argument.target is operator.getitem
        and argument.args[1] == 0
        and isinstance(argument.args[0], fx.Node)
        and isinstance(argument.args[0].meta["result"], torch.Size)
    )


def rounding(dtype: torch.dtype) -> float:
    """Bound the relative difference that rounding alone can make, generously."""
    return torch.finfo(dtype).eps ** 0.5 if dtype.is_floating_point else 1e-3


def same_outputs(a: Any, b: Any, tolerance: float) -> bool:
    """Compare tensors, or tuples, lists and dicts of them, relative to the largest."""
    if isinstance(a, Tensor):
        if not isinstance(b, Tensor) or a.shape != b.shape or a.dtype != b.dtype:
            return False
        if not a.is_floating_point() or not a.numel():
            return bool(torch.equal(a, b))
        a, b = torch.nan_to_num(a), torch.nan_to_num(b)
        error, scale = (a - b).abs().max(), a.abs().max()
        return bool(error.item() <= tolerance * scale.item())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(
            same_outputs(a[key], b[key], tolerance) for key in a
        )
    if isinstance(a, tuple | list):
        pairs = zip(a, b, strict=True)
        return len(a) == len(b) and all(same_outputs(*p, tolerance) for p in pairs)
    return bool(a == b)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip(".")
