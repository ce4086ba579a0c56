"""How large a network is, layer by layer, and how long it takes."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_structreg.core.modules import run_once

__all__ = ["LayerCount", "count_layers", "measure_latencies"]

MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
N_WARM_UPS = 3


@dataclass(frozen=True)
class LayerCount:
    """The size of one layer.

    Attributes
    ----------
    kind : str
        The class of the layer.
    n_parameters, n_nonzero : int
        Its parameters, and those of them that are not zero.
    flops, nonzero_flops : int
        Floating-point operations per sample, two for each use of a weight, and those
        of weights that are not zero. Linear and convolutional layers have some.
    """

    kind: str
    n_parameters: int
    n_nonzero: int
    flops: int
    nonzero_flops: int


def count_layers(module: nn.Module, sample_batch: Tensor) -> dict[str, LayerCount]:
    """Count the parameters and operations of every layer that has parameters.

    Parameters
    ----------
    module : torch.nn.Module
        Run once in evaluation mode, and left as it was.
    sample_batch : torch.Tensor of shape (n, ...)
        At least one sample.

    Returns
    -------
    dict of str to LayerCount
        By the layer's name, in the order in which the module holds them. A parameter
        that several layers share is counted with the first.
    """
    uses = _count_uses(module, sample_batch)
    counts: dict[str, LayerCount] = {}
    seen: set[int] = set()
    for name, layer in module.named_modules():
        own = [p for p in layer._parameters.values() if p is not None]
        new = [p for p in own if id(p) not in seen]
        seen.update(id(p) for p in own)
        if not own:
            continue
        weight = layer.weight if name in uses else None
        operations = 2 * uses[name] // len(sample_batch)
        counts[name] = LayerCount(
            type(layer).__name__,
            sum(p.numel() for p in new),
            sum(int(p.count_nonzero()) for p in new),
            operations * weight.numel() if isinstance(weight, Tensor) else 0,
            operations * int(weight.count_nonzero())
            if isinstance(weight, Tensor)
            else 0,
        )
    return counts


def _count_uses(module: nn.Module, batch: Tensor) -> dict[str, int]:
    """Count how often each weight of a layer is used: at every sample and position."""
    uses: dict[str, int] = defaultdict(int)

    def counter(name: str) -> Any:
        def hook(layer: nn.Module, _: Any, output: Tensor) -> None:
            uses[name] += output.numel() // len(layer.weight)  # type: ignore[arg-type]

        return hook

    handles = [
        layer.register_forward_hook(counter(name))
        for name, layer in module.named_modules()
        if isinstance(layer, MAPS)
    ]
    try:
        run_once(module, batch)
    finally:
        for handle in handles:
            handle.remove()
    return uses


def measure_latencies(
    modules: list[nn.Module], batch: Tensor, n_repeats: int
) -> list[float]:
    """Measure how long a forward pass takes, in evaluation mode without gradients.

    Parameters
    ----------
    modules : list of torch.nn.Module
        They take turns, so that noise falls on all alike.
    batch : torch.Tensor
        Samples, all at once.
    n_repeats : int
        How many passes of each, after a few to warm up.

    Returns
    -------
    list of float
        The median of each module's times, in seconds per batch.
    """
    times: list[list[float]] = [[] for _ in modules]
    training = [part for net in modules for part in net.modules() if part.training]
    for net in modules:
        net.eval()
    try:
        with torch.inference_mode():
            for _ in range(N_WARM_UPS + n_repeats):
                for net, record in zip(modules, times, strict=True):
                    record.append(_seconds(net, batch))
    finally:
        for part in training:
            part.training = True
    return [statistics.median(record[N_WARM_UPS:]) for record in times]


def _seconds(module: nn.Module, batch: Tensor) -> float:
    if batch.is_cuda:
        torch.cuda.synchronize(batch.device)
    start = time.perf_counter()
    module(batch)
    if batch.is_cuda:
        torch.cuda.synchronize(batch.device)
    return time.perf_counter() - start
