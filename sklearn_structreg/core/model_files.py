"""Networks in files that need nothing of this package: ONNX, torch.export, weights."""

from __future__ import annotations

import copy
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sklearn_structreg.core.messages import explaining

__all__ = ["FORMATS", "INPUT", "Format", "check_packages"]

INPUT = "X"
ONNX = ("onnx", "onnxscript", "onnxruntime")
Metadata = Mapping[str, str]
Runner = Callable[[Tensor], Sequence[Tensor]]


class Format(NamedTuple):
    """How to write a network to a file, and how to run that file."""

    write: Callable[[Any, Tensor, Metadata], bytes]
    load: Callable[[Path, Any], Runner]
    packages: tuple[str, ...] = ()


def check_packages(form: str) -> None:
    """Refuse a format whose packages are not installed."""
    for name in FORMATS[form].packages:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"format={form!r} needs the package {name}: run "
                'pip install "sklearn-structreg[export]".'
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the notes of torch's exporters, which are for their developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)


def _traced(module: nn.Module, sample: Tensor) -> Any:
    """Return the network as a program of torch.export, for batches of any size."""
    sizes = {INPUT: {0: torch.export.Dim("batch")}}
    with explaining("The network cannot be exported, as torch.export says: {}."):
        program = torch.export.export(
            module, (sample,), dynamic_shapes=sizes, strict=False
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of this machine
    return program


def _as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


# ---- torch.export ------------------------------------------------------------------


def _write_pt2(module: nn.Module, sample: Tensor, metadata: Metadata) -> bytes:
    file = io.BytesIO()
    with _quiet():
        program = _traced(module, sample)
        torch.export.save(program, file, extra_files={"metadata": json.dumps(metadata)})
    return file.getvalue()


def _load_pt2(path: Path, module: nn.Module) -> Runner:
    with path.open("rb") as file, _quiet():
        loaded = torch.export.load(file).module()
    return lambda rows: _as_tuple(loaded(rows))


# ---- ONNX --------------------------------------------------------------------------


def _write_onnx(module: Any, sample: Tensor, metadata: Metadata) -> bytes:
    import onnx

    with _quiet(), explaining("The network cannot be written as ONNX: {}."):
        written: Any = torch.onnx.export(
            _traced(module, sample),
            (),
            input_names=[INPUT],
            output_names=list(module.outputs),
            dynamo=True,
            verbose=False,
        )
    proto = written.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # notes on the tracing
    onnx.helper.set_model_props(proto, dict(metadata))
    serialized: bytes = proto.SerializeToString()
    return serialized


def _load_onnx(path: Path, module: nn.Module) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda rows: [
        torch.from_numpy(each) for each in session.run(None, {INPUT: rows.numpy()})
    ]


# ---- weights -----------------------------------------------------------------------


def _write_weights(module: Any, sample: Tensor, metadata: Metadata) -> bytes:
    tensors = {n: t.clone().contiguous() for n, t in module.state_dict().items()}
    layers = _layout(module.network)
    layout = {"layers": json.dumps(layers)} if layers else {}
    return save(tensors, {**metadata, **layout})


def _layout(network: nn.Module) -> list[dict[str, str]] | None:
    """List the layers of a chain of torch's own, with their arguments."""
    if not isinstance(network, nn.Sequential):
        return None
    found = []
    for name, layer in network.named_children():
        if not type(layer).__module__.startswith("torch.nn.") or any(layer.children()):
            return None
        kind, settings = type(layer).__name__, layer.extra_repr()
        found.append({"name": f"network.{name}", "class": kind, "settings": settings})
    return found


def _load_weights(path: Path, module: nn.Module) -> Runner:
    twin = copy.deepcopy(module)
    for tensor in twin.state_dict().values():
        tensor.zero_()
    twin.load_state_dict(load_file(path))
    return lambda rows: _as_tuple(twin(rows))


FORMATS = {
    "onnx": Format(_write_onnx, _load_onnx, ONNX),
    "pt2": Format(_write_pt2, _load_pt2),
    "safetensors": Format(_write_weights, _load_weights),
}
