"""Which linear layers of a network form a chain: found by running it once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from sklearn_structreg.core.modules import run_once

__all__ = ["linear_chain", "normalized_outputs"]


@dataclass
class Probe:
    """What a run with marked nodes shows of one linear layer.

    Attributes
    ----------
    marks : torch.Tensor of shape (d_out,), bool
        Which outputs were replaced by NaN.
    n_calls : int
        How often the layer ran.
    arrived : torch.Tensor of shape (..., d_in), bool, or None
        Which inputs were NaN.
    """

    marks: Tensor
    n_calls: int = 0
    arrived: Tensor | None = field(default=None, repr=False)


def linear_chain(
    module: nn.Module, sample_batch: Tensor, layers: str | Sequence[str] = "auto"
) -> list[str]:
    """Name the linear layers of a chain, in forward order.

    Two layers follow each other in a chain where what lies between acts on each node
    alone: an activation, dropout, batch normalization in evaluation mode. The module
    is run twice with some outputs of each layer replaced by NaN; where exactly those
    nodes come in as NaN at another layer, the two are neighbours.

    Parameters
    ----------
    module : torch.nn.Module
        Run in evaluation mode; its state is left as it was.
    sample_batch : torch.Tensor of shape (n, ...)
        A few samples.
    layers : "auto" or sequence of str, default="auto"
        Names of the chain's layers as in ``module.named_modules()``. "auto" takes the
        last layer that runs and all that lead to it, the fully-connected head. Layers
        whose weight is computed, as by `torch.nn.utils.parametrizations`, are left out.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If the module runs no linear layer, or the names do not form a chain.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.blockout import linear_chain
    >>> from sklearn_structreg.core import make_convnet
    >>> linear_chain(make_convnet((1, 8, 8), 10), torch.zeros(2, 1, 8, 8))
    ['7', '9']
    """
    if any(isinstance(part, LazyModuleMixin) for part in module.modules()):
        run_once(module, sample_batch)  # gives lazy layers their shapes
    linears = {
        name: layer
        for name, layer in module.named_modules()
        if type(layer) is nn.Linear and isinstance(layer.weight, nn.Parameter)
    }
    generator = torch.Generator().manual_seed(0)
    marks = {
        name: torch.rand(layer.out_features, generator=generator) < 0.5
        for name, layer in linears.items()
    }
    first = _probe(module, sample_batch, linears, marks)
    # Once more with the other nodes: a layer that mixes nodes betrays itself in one.
    second = _probe(module, sample_batch, linears, {k: ~v for k, v in marks.items()})

    def leads_to(one: str, two: str) -> bool:
        return all(_passes(probes[one], probes[two]) for probes in (first, second))

    ran = [name for name, probe in first.items() if probe.n_calls]
    if isinstance(layers, str):
        once = [name for name in ran if first[name].n_calls == 1]
        if not once or once[-1] != ran[-1]:
            raise ValueError(
                "The module runs no torch.nn.Linear layer just once, so there is no "
                "chain to convert; give a module with a fully-connected head."
            )
        chain = [once.pop()]
        while before := [name for name in once if leads_to(name, chain[0])]:
            chain.insert(0, before[-1])
            once = once[: once.index(before[-1])]
        return chain
    names = list(layers)
    for name in names:
        _check_name(name, linears, first)
    for one, two in pairwise(names):
        if not leads_to(one, two):
            raise ValueError(
                f"layers={names} do not form a chain: the inputs of {two!r} are not "
                f"the outputs of {one!r} node by node; name layers that follow each "
                "other with nothing but elementwise layers between."
            )
    if not names:
        raise ValueError("layers is empty; name at least one linear layer.")
    return names


def normalized_outputs(
    module: nn.Module, sample_batch: Tensor, chain: Sequence[str]
) -> list[bool]:
    """Tell which layers of a chain have batch normalization before the next one.

    Parameters
    ----------
    module, sample_batch
        As in `linear_chain`.
    chain : sequence of str
        What it returned.

    Returns
    -------
    list of bool
        One for each layer; False for the last.
    """
    ran: list[str] = []

    def watch(name: str, layer: nn.Module) -> Any:
        return layer.register_forward_hook(lambda *_: ran.append(name))

    handles = [
        watch(name, part)
        for name, part in module.named_modules()
        if name in chain or isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    try:
        run_once(module, sample_batch)
    finally:
        for handle in handles:
            handle.remove()
    at = [ran.index(name) for name in chain]
    return [*(two - one > 1 for one, two in pairwise(at)), False]


def _probe(
    module: nn.Module,
    sample_batch: Tensor,
    linears: dict[str, nn.Linear],
    marks: dict[str, Tensor],
) -> dict[str, Probe]:
    """Run the module with marked outputs; the probes come in the order of the calls."""
    probes: dict[str, Probe] = {}

    def watch(name: str, layer: nn.Linear) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            probe = probes.setdefault(name, Probe(marks[name].to(output.device)))
            probe.n_calls += 1
            probe.arrived = inputs[0].isnan()
            return torch.ones_like(output).masked_fill(probe.marks, torch.nan)

        return layer.register_forward_hook(hook)

    handles = [watch(name, layer) for name, layer in linears.items()]
    try:
        run_once(module, sample_batch)
    finally:
        for handle in handles:
            handle.remove()
    return probes


def _passes(one: Probe, two: Probe) -> bool:
    """Whether exactly the marked outputs of one layer are the marked inputs of two."""
    arrived = two.arrived
    if arrived is None or arrived.shape[-1] != len(one.marks):
        return False
    return bool((arrived == one.marks).all())


def _check_name(
    name: str, linears: dict[str, nn.Linear], probes: dict[str, Probe]
) -> None:
    if name not in linears:
        raise ValueError(
            f"layers holds {name!r}, but the module has no plain torch.nn.Linear of "
            f"that name; it has {sorted(linears)}."
        )
    n_calls = probes[name].n_calls if name in probes else 0
    if n_calls != 1:
        raise ValueError(
            f"layers holds {name!r}, which runs {n_calls} times in one forward pass; a "
            "chain takes layers that run once."
        )
