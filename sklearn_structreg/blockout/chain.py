"""Linear layers that form a chain: found by running the network with marked nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from sklearn_structreg.core.inspection import find_layer, listening, run_once

__all__ = ["linear_chain", "normalized_outputs"]


@dataclass
class Probe:
    """A linear layer in a run with some outputs replaced by NaN: the `marks`.

    `arrived`, of shape (..., d_in), are its inputs that were NaN.
    """

    marks: Tensor
    n_calls: int = 0
    arrived: Tensor | None = None


def linear_chain(
    module: nn.Module, sample: Any, layers: str | Sequence[str] = "auto"
) -> list[str]:
    """Return the names of a chain's linear layers, in forward order.

    Two layers follow each other in a chain where everything between acts on each node
    alone: an activation, dropout, batch normalization in evaluation mode. The module
    is run twice with some outputs of each layer replaced by NaN; where exactly those
    nodes come in as NaN at another layer, the two are neighbours.

    "auto" takes the last layer that runs and all that lead to it, the fully-connected
    head. Layers whose weight is computed, as by `torch.nn.utils.parametrizations`, are
    left out.
    """
    if any(isinstance(part, LazyModuleMixin) for part in module.modules()):
        run_once(module, sample)  # gives lazy layers their shapes
    linears = {name: part for name, part in module.named_modules() if _is_plain(part)}
    generator = torch.Generator().manual_seed(0)
    marks = {
        name: torch.rand(len(layer.weight), generator=generator) < 0.5
        for name, layer in linears.items()
    }
    first = _probe(module, sample, linears, marks)
    # The second run marks the other nodes: nodes that get mixed show in one of the two.
    second = _probe(module, sample, linears, {k: ~v for k, v in marks.items()})

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
        _check_layer(module, name, first)
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
    module: nn.Module, sample: Any, chain: Sequence[str]
) -> list[bool]:
    """Return, for each layer of a chain, if batch normalization precedes the next."""
    layers = [find_layer(module, name) for name in chain]
    norms = nn.modules.batchnorm._BatchNorm
    watched = [*layers, *(part for part in module.modules() if isinstance(part, norms))]
    ran: list[nn.Module] = []
    with listening((part, "output", lambda p, *_: ran.append(p)) for part in watched):
        run_once(module, sample)
    at = [ran.index(layer) for layer in layers]
    return [*(two - one > 1 for one, two in pairwise(at)), False]


def _is_plain(layer: Any) -> bool:
    return type(layer) is nn.Linear and isinstance(layer.weight, nn.Parameter)


def _probe(
    module: nn.Module,
    sample: Any,
    linears: dict[str, Any],
    marks: dict[str, Tensor],
) -> dict[str, Probe]:
    """Run the module with marked outputs; the probes come in the order of the calls."""
    probes: dict[str, Probe] = {}
    name_of: dict[nn.Module, str] = {layer: name for name, layer in linears.items()}

    def arrive(layer: nn.Module, args: tuple[Any, ...], _: Any) -> None:
        name = name_of[layer]
        probe = probes.setdefault(name, Probe(marks[name].to(args[0].device)))
        probe.n_calls += 1
        probe.arrived = args[0].isnan()

    def leave(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        marked = probes[name_of[layer]].marks
        return torch.ones_like(output).masked_fill(marked, torch.nan)

    sides = (("input", arrive), ("output", leave))
    with listening((layer, *side) for layer in name_of for side in sides):
        run_once(module, sample)
    return probes


def _passes(one: Probe, two: Probe) -> bool:
    """Whether exactly the marked outputs of one layer are the marked inputs of two."""
    arrived = two.arrived
    if arrived is None or arrived.shape[-1] != len(one.marks):
        return False
    return bool((arrived == one.marks).all())


def _check_layer(module: nn.Module, name: str, probes: dict[str, Probe]) -> None:
    layer = find_layer(module, name)
    if not _is_plain(layer):
        raise ValueError(
            f"layers holds {name!r}, a {type(layer).__name__}; a chain takes plain "
            f"torch.nn.Linear layers, such as {sorted(probes)}."
        )
    n_calls = probes[name].n_calls if name in probes else 0
    if n_calls != 1:
        raise ValueError(
            f"layers holds {name!r}, which runs {n_calls} times in one forward pass; a "
            "chain takes layers that run once."
        )
