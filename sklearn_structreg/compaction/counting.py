"""How large a network is, layer by layer, and how long it takes."""

from __future__ import annotations

import copy
import statistics
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

__all__ = [
    "LayerCount",
    "check_call",
    "count_bytes",
    "count_layers",
    "count_multiply_adds",
    "measure_latencies",
    "uncompiled",
]

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def count_multiply_adds(module: nn.Module, sample_batch: Tensor) -> int:
    """Count the multiply-adds that one sample costs at prediction.

    A copy of the module runs once under `torch.utils.flop_counter`, which counts matrix
    products and convolutions (two floating-point operations per multiply-add) and
    leaves out element-wise work: activations, norms, biases, pooling.

    Parameters
    ----------
    module : torch.nn.Module
        Not changed; counted in evaluation mode.
    sample_batch : torch.Tensor of shape (n, ...)
        At least one sample, as the module takes it.

    Returns
    -------
    int
        Multiply-adds per sample.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.core import count_multiply_adds, make_mlp
    >>> count_multiply_adds(make_mlp(64, 10, (100,)), torch.zeros(1, 64))
    7400
    """
    check_call(module, sample_batch)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        try:
            copy.deepcopy(uncompiled(module)).eval()(sample_batch)
        except Exception as error:
            reason = f"{type(error).__name__}, {error}".splitlines()[0]
            raise ValueError(
                "The module does not take samples of shape "
                f"{tuple(sample_batch.shape)}: {reason[:120]}."
            ) from error
    return int(counter.get_total_flops() // (2 * len(sample_batch)))


def uncompiled(module: nn.Module) -> nn.Module:
    """Return the network that `torch.compile` has compiled; any other as it is."""
    compiled = type(module).__name__ == "OptimizedModule"
    return module.get_submodule("_orig_mod") if compiled else module


def check_call(module: Any, sample_batch: Any, name: str = "module") -> None:
    """Check a network and the samples to call it with."""
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"{name} must be a torch.nn.Module, not a {type(module).__name__}; of a "
            "fitted estimator pass its module_."
        )
    dense = isinstance(sample_batch, Tensor) and sample_batch.layout is torch.strided
    if not (dense and sample_batch.ndim and sample_batch.numel()):
        raise ValueError(
            "sample_batch must be a dense tensor of at least one sample, as the module "
            "takes it."
        )


@dataclass(frozen=True)
class LayerCount:
    """Parameters of a layer; operations per sample, two for each use of a weight."""

    kind: str
    n_parameters: int
    n_nonzero: int
    flops: int
    nonzero_flops: int


def count_layers(module: nn.Module, sample_batch: Tensor) -> dict[str, LayerCount]:
    """Count parameters and operations; shared parameters belong to the first layer."""
    uses = _count_uses(module, sample_batch)
    counts: dict[str, LayerCount] = {}
    seen: set[int] = set()
    for name, layer in module.named_modules():
        own = [p for p in layer._parameters.values() if p is not None]
        new = [p for p in own if id(p) not in seen]
        seen.update(id(p) for p in own)
        if not own:
            continue
        weights = [layer.get_parameter("weight")] if name in uses else []
        operations = 2 * uses[name] // len(sample_batch)
        sizes = [
            factor * sum(count(p) for p in parameters)
            for parameters, factor in ((new, 1), (weights, operations))
            for count in (torch.numel, lambda p: int(p.count_nonzero()))
        ]
        counts[name] = LayerCount(type(layer).__name__, *sizes)
    return counts


def _count_uses(module: nn.Module, batch: Tensor) -> dict[str, int]:
    """Count the uses of each layer's weights: one per sample and position."""
    uses: dict[str, int] = defaultdict(int)

    def note(name: str, layer: Any, _: Any, output: Tensor) -> None:
        uses[name] += output.numel() // len(layer.weight)

    twin = copy.deepcopy(module).eval()
    for name, layer in twin.named_modules():
        if isinstance(layer, WEIGHTED):
            layer.register_forward_hook(partial(note, name))
    with torch.no_grad():
        twin(batch)
    return uses


def measure_latencies(
    modules: list[nn.Module], batch: Tensor, n_repeats: int
) -> list[float]:
    """Measure the median seconds of a forward pass; the modules take turns."""
    timers = [
        Timer(
            "module(batch)",
            globals={"module": copy.deepcopy(module).eval(), "batch": batch},
            num_threads=torch.get_num_threads(),
        )
        for module in modules
    ]
    with torch.inference_mode():  # in turns: noise falls on all alike
        turns = [[timer.timeit(1).median for timer in timers] for _ in range(n_repeats)]
    return [statistics.median(times) for times in zip(*turns, strict=True)]


def count_bytes(module: nn.Module) -> int:
    """Count the bytes of a safetensors file of the weights."""
    return len(save({n: t.cpu().clone() for n, t in module.state_dict().items()}))
