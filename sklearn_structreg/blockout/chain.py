"""Layers that follow each other: found by running the network with marked nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from sklearn_structreg.core.inspection import find_layer, listening, run_once

__all__ = ["Joined", "join_layers", "normalized_outputs"]

N_PATTERNS = 6  # of marks: two layers of few nodes may have one in common


@dataclass(frozen=True)
class Joined:
    """Layers to convert, and which of them follow each other.

    Attributes
    ----------
    names : list of str
        In forward order.
    before : list of (int or None)
        For each layer the number of the one whose outputs are its inputs.
    left_out : list of str
        Matrices that could not be joined to them.
    """

    names: list[str]
    before: list[int | None]
    left_out: list[str]


@dataclass
class Probe:
    """A layer in a run with some outputs replaced by NaN: the `marks`.

    `arrived`, of shape (..., d_in), are its inputs that were NaN.
    """

    marks: Tensor
    n_calls: int = 0
    arrived: Tensor | None = None


def join_layers(
    module: nn.Module, sample: Any, layers: str | Sequence[str] = "auto"
) -> Joined:
    """Find the layers to convert, and those that follow each other.

    One layer follows another where everything between acts on each node alone: an
    activation, pooling, dropout, batch normalization in evaluation mode. The module is
    run with some outputs of each layer replaced by NaN; where exactly those nodes come
    in as NaN at another layer, the two are neighbours. The nodes of a convolution are
    its channels.

    "auto" takes the last linear layer that runs, all others that lead to no further
    weight, and the linear layers that lead to these: fully-connected heads. "all" takes
    each linear and convolutional layer that runs once. Layers whose weight is computed,
    as by `torch.nn.utils.parametrizations`, and grouped convolutions are left out.
    """
    if any(isinstance(part, LazyModuleMixin) for part in module.modules()):
        run_once(module, sample)  # gives lazy layers their shapes
    plain = {name: part for name, part in module.named_modules() if _is_plain(part)}
    runs = [_probe(module, sample, plain, marks) for marks in _patterns(plain)]

    def leads_to(one: str, two: str) -> bool:
        return all(_passes(probes[one], probes[two]) for probes in runs)

    once = [name for name, probe in runs[0].items() if probe.n_calls == 1]
    if isinstance(layers, str):
        linear = [name for name in once if isinstance(plain[name], nn.Linear)]
        if layers == "all":
            names = once
        else:
            ran = [name for name in runs[0] if isinstance(plain[name], nn.Linear)]
            if not linear or linear[-1] != ran[-1]:
                raise ValueError(
                    "The module runs no torch.nn.Linear layer just once, so there is "
                    "no chain to convert; give a module with a fully-connected head."
                )
            names = []
            for name in reversed(linear):
                leads = any(leads_to(name, other) for other in names)
                is_head = name == linear[-1] or not (
                    any(leads_to(name, other) for other in linear)
                    or _reaches_weights(module, sample, plain[name])
                )
                if leads or is_head:
                    names.insert(0, name)
        if not names:
            raise ValueError(
                "The module runs no torch.nn.Linear or Conv2d layer just once, so "
                "there is nothing to convert."
            )
    else:
        names = list(layers)
        for name in names:
            _check_layer(module, name, runs[0])
    before = [
        next((i for i in reversed(range(j)) if leads_to(names[i], name)), None)
        for j, name in enumerate(names)
    ]
    if not isinstance(layers, str):
        _check_joined(names, before)
    return Joined(names, before, _left_out(module, names, layers))


def _patterns(layers: dict[str, Any]) -> list[dict[str, Tensor]]:
    """Draw marks; the second mark the other nodes, so that mixed nodes show in one."""
    generator = torch.Generator().manual_seed(0)
    patterns = [
        {
            n: torch.rand(len(p.weight), generator=generator) < 0.5
            for n, p in layers.items()
        }
        for _ in range(N_PATTERNS - 1)
    ]
    return [
        patterns[0],
        {name: ~marks for name, marks in patterns[0].items()},
        *patterns[1:],
    ]


def _reaches_weights(module: nn.Module, sample: Any, layer: nn.Module) -> bool:
    """Whether anything of a layer's outputs comes in at a layer with a matrix."""
    reached: list[bool] = []

    def arrive(_: nn.Module, args: tuple[Any, ...], __: Any) -> None:
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        reached.append(any(bool(x.isnan().any()) for x in tensors))

    def leave(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return torch.full_like(output, torch.nan)

    others = [
        part
        for part in module.modules()
        if part is not layer and any(p.ndim > 1 for p in part.parameters(recurse=False))
    ]
    with listening([(layer, "output", leave), *((o, "input", arrive) for o in others)]):
        run_once(module, sample)
    return any(reached)


def _left_out(
    module: nn.Module, names: Sequence[str], layers: str | Sequence[str]
) -> list[str]:
    """Name the matrices that `layers` asks for and that are not in these layers."""
    if not isinstance(layers, str):
        return []
    known = {id(find_layer(module, name).weight) for name in names}
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
        and sum(size > 1 for size in parameter.shape) > 1
        and id(parameter) not in known
        and (layers == "all" or isinstance(_owner(module, name), nn.Linear))
    ]


def _owner(module: nn.Module, name: str) -> nn.Module:
    """Return the layer of a parameter; parametrizations are within theirs."""
    layer = name.split(".parametrizations.")[0]
    return module.get_submodule(layer if layer != name else name.rpartition(".")[0])


def normalized_outputs(module: nn.Module, sample: Any, joined: Joined) -> list[bool]:
    """Return, for each layer, if batch normalization comes before its inputs."""
    layers = [find_layer(module, name) for name in joined.names]
    norms = nn.modules.batchnorm._BatchNorm
    watched = [*layers, *(part for part in module.modules() if isinstance(part, norms))]
    ran: list[nn.Module] = []
    with listening((part, "output", lambda p, *_: ran.append(p)) for part in watched):
        run_once(module, sample)
    at = [ran.index(layer) for layer in layers]
    return [
        i is not None and any(isinstance(p, norms) for p in ran[at[i] : at[j]])
        for j, i in enumerate(joined.before)
    ]


def _is_plain(layer: Any) -> bool:
    if type(layer) is nn.Conv2d:
        known = layer.groups == 1 and layer.padding_mode == "zeros"
    else:
        known = type(layer) is nn.Linear
    return known and isinstance(layer.weight, nn.Parameter)


def _probe(
    module: nn.Module,
    sample: Any,
    layers: dict[str, Any],
    marks: dict[str, Tensor],
) -> dict[str, Probe]:
    """Run the module with marked outputs; the probes come in the order of the calls."""
    probes: dict[str, Probe] = {}
    name_of: dict[nn.Module, str] = {layer: name for name, layer in layers.items()}

    def arrive(layer: nn.Module, args: tuple[Any, ...], _: Any) -> None:
        name = name_of[layer]
        probe = probes.setdefault(name, Probe(marks[name].to(args[0].device)))
        probe.n_calls += 1
        arrived = args[0].isnan()
        is_conv = isinstance(layer, nn.Conv2d)
        probe.arrived = arrived.movedim(-3, -1) if is_conv else arrived

    def leave(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        marked = probes[name_of[layer]].marks
        if isinstance(layer, nn.Conv2d):
            marked = marked[:, None, None]
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
            "torch.nn.Linear layers, and torch.nn.Conv2d without groups, such as "
            f"{sorted(probes)}."
        )
    n_calls = probes[name].n_calls if name in probes else 0
    if n_calls != 1:
        raise ValueError(
            f"layers holds {name!r}, which runs {n_calls} times in one forward pass; a "
            "chain takes layers that run once."
        )


def _check_joined(names: Sequence[str], before: Sequence[int | None]) -> None:
    if not names:
        raise ValueError("layers is empty; name at least one linear layer.")
    for one, two, i in zip(names, names[1:], before[1:], strict=False):
        if i is None:
            raise ValueError(
                f"layers={list(names)} do not form a chain: the inputs of {two!r} are "
                f"not the outputs of {one!r} node by node; name layers that follow "
                "each other with nothing but elementwise layers between."
            )
