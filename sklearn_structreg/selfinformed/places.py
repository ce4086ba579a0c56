"""Find the places that heads can read, and the layer that classifies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_structreg.core.inspection import find_layer, listening, run_once
from sklearn_structreg.selfinformed.attachment import AttachmentPoint, Place
from sklearn_structreg.selfinformed.ends import first_tensor, link_of, same_end

__all__ = ["find_attachment_point"]

N_TRIED = 16
Event = tuple[str, str, Tensor]
"""A layer's name, "input" or "output", and the tensor."""


def find_attachment_point(
    module: nn.Module,
    sample: Tensor,
    n_outputs: int,
    layer: str | Sequence[str] | None,
    kernel_size: int | None = None,
) -> AttachmentPoint:
    """Run the network and find the places where heads attach, one for each layer named.

    Without a layer it is the input of the first fully-connected one. With a kernel size
    it has to hold maps.
    """
    run = Run(module, sample, *_watch(module, sample), n_outputs)
    wanted = [layer] if isinstance(layer, str | None) else layer
    places = tuple(run.place(name, kernel_size) for name in wanted)
    if run.classifier is not None:
        read = run.events[run.deadline][2]
        return AttachmentPoint(places, run.classifier, read.shape[1])
    link = link_of(first_tensor(run_once(module, run.rows)))
    return AttachmentPoint(places, None, n_outputs, link)


def _watch(module: nn.Module, sample: Tensor) -> tuple[list[Event], Any]:
    """Run the module; list its layers' inputs and outputs in order, and its result."""
    events: list[Event] = []
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise ValueError(
            "The network is compiled by torch.jit.script or trace, which hides the "
            "values that heads read; give the module that it was made of."
        )

    def note(name: str, side: str) -> Callable[..., None]:
        def listener(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            value = next(iter(args), None) if side == "input" else output
            if isinstance(value, Tensor):
                events.append((name, side, value.clone()))

        return listener

    hooks = [
        (layer, side, note(name, side))
        for name, layer in module.named_modules()
        for side in ("input", "output")
    ]
    try:
        with listening(hooks):
            return events, run_once(module, sample)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"The network does not take samples of shape {tuple(sample.shape[1:])}: "
            f"{reason}. Give X as the estimator was given it, or image_shape if X's "
            "rows are images."
        ) from error


@dataclass
class Run:
    """A run of a network: what went into its layers and came out, in order."""

    module: nn.Module
    sample: Tensor
    events: list[Event]
    result: Any
    n_outputs: int

    def __post_init__(self) -> None:
        """Find the layer that classifies, the end of all that heads can read."""
        self.layers = dict(self.module.named_modules())
        result = first_tensor(self.result)
        shape = len(self.sample), self.n_outputs
        if not isinstance(result, Tensor) or result.shape != shape:
            given = tuple(getattr(result, "shape", ())) or type(result).__name__
            raise ValueError(
                f"The network returns {given} for {shape[0]} samples, but heads add to "
                f"a logit for each of the {self.n_outputs} classes, {shape}."
            )
        self.classifier: str | None = None
        self.deadline = len(self.events)
        for name, moment in reversed(self._linear()):
            outputs = [e[2] for e in self.events[moment:] if e[:2] == (name, "output")]
            if len(self._moments(name, "input")) == 1 and same_end(outputs[0], result):
                self.classifier, self.deadline = name, moment
                break

    def place(self, layer: str | None, kernel_size: int | None) -> Place:
        """Return the place that a layer's name, "auto" or None stands for."""
        if layer is None:
            name, side = self._linear()[0][0], "input"
        elif layer == "auto":
            name, side = self._best_place(maps=kernel_size is not None)
        else:
            name, side = self._first_name(layer), "output"
            if not name or (name, side) not in [e[:2] for e in self._before]:
                raise ValueError(
                    f"layer={layer!r} has no tensor to read before the classifier "
                    "layer; name a layer that runs earlier in the network, or use "
                    "'auto'."
                )
        # Of a layer that runs more than once, the last time before the end counts.
        read = self.events[self._moments(name, side)[-1]][2]
        if kernel_size is not None and not _is_map(read):
            raise ValueError(
                f"layer={layer!r} gives {tuple(read.shape[1:])} for a sample, but with "
                f"head_kernel_size={kernel_size} heads read maps of several positions, "
                "(channels, ...); name a layer that gives some, or set "
                "head_kernel_size=None."
            )
        return Place(name, side, tuple(read.shape[1:]))

    @property
    def _before(self) -> list[Event]:
        return self.events[: self.deadline]

    def _moments(self, name: str, side: str) -> list[int]:
        """List the moments of an event, up to the input of the classifier layer."""
        last = getattr(self, "deadline", len(self.events)) + 1
        return [i for i, e in enumerate(self.events[:last]) if e[:2] == (name, side)]

    def _linear(self) -> list[tuple[str, int]]:
        """List the fully-connected layers that read a row per sample."""
        return [
            (name, moment)
            for moment, (name, side, value) in enumerate(self.events)
            if side == "input"
            and isinstance(self.layers[name], nn.Linear)
            and value.ndim == 2
        ]

    def _first_name(self, name: str) -> str:
        """Find the first name of a layer that may have several."""
        layer = find_layer(self.module, name)
        names: dict[int, str] = {id(part): key for key, part in self.layers.items()}
        return names[id(layer)]

    # ---- places that all computation passes through ------------------------------

    @cached_property
    def rows(self) -> Tensor:
        """Samples that differ: noise, or a mixture where the network takes no noise."""
        generator = torch.Generator().manual_seed(0)
        shape = N_TRIED, *self.sample.shape[1:]
        noise = torch.randn(shape, generator=generator).to(self.sample)
        rows = self.sample[:1] + noise * (1 + self.sample[:1].abs())
        with suppress(ValueError):
            run_once(self.module, rows)
            return rows
        return torch.where(noise > 0, self.sample[:1], self.sample[-1:])

    def _best_place(self, *, maps: bool) -> tuple[str, str]:
        """Find a place that all computation passes through, never the samples."""
        kinds = [event[:2] for event in self._before]
        mixing = [(n, s) for n, s in dict.fromkeys(kinds) if self._mixes(n)]
        begin = next((kinds.index(e) for e in mixing if e[1] == "output"), len(kinds))
        mixing = [e for e in mixing if e[1] == "input" and kinds.index(e) > begin]
        outputs = [e for e in reversed(self._before) if e[0] and e[1] == "output"]
        if maps:
            found = [(n, s) for n, s, x in outputs if _is_map(x)]
            return self._first_bottleneck(found, "maps of several positions")
        linear = [(name, "input") for name, _ in self._linear()]
        linear = [event for event in linear if event in mixing]
        if self.classifier is not None:
            return self._first_bottleneck([*linear, (self.classifier, "input")])
        ends = self.sample, first_tensor(self.result)
        others = [
            (n, s)
            for n, s, x in outputs
            if not any(_same_values(x, end) for end in ends)
            and (begin == len(kinds) or kinds.index((n, s)) >= begin)
        ]
        return self._first_bottleneck([*linear, *reversed(mixing), *others])

    def _mixes(self, name: str) -> bool:
        """Whether a layer mixes its inputs by weights of its own."""
        weights = self.layers[name].parameters(recurse=False)
        parametrized = hasattr(self.layers[name], "parametrizations")
        return parametrized or any(weight.ndim > 1 for weight in weights)

    def _first_bottleneck(
        self, places: Sequence[tuple[str, str]], kind: str = "layer"
    ) -> tuple[str, str]:
        # A squeeze-and-excitation layer, or one in a residual block, is by the way:
        # with the same output for all samples, the end still reads different values.
        for place in dict.fromkeys(places):
            if place == (self.classifier, "input") or self._is_bottleneck(*place):
                return place
        raise ValueError(
            f"The network has no {kind} that all computation passes through, for heads "
            "to read; name a place in `layer`, or make a layer (torch.nn.Module) of a "
            "part of the network."
        )

    def _is_bottleneck(self, name: str, side: str) -> bool:
        """Whether a place that holds the same for all samples makes the end equal."""

        def level(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if output is None:
                return args[0][:1].expand_as(args[0]), *args[1:]
            return output[:1].expand_as(output)

        with suppress(ValueError):
            held = self._end([(self.layers[name], side, level)])
            free = self._free
            return not _all_equal(free) and _all_equal(held)
        return False

    @cached_property
    def _free(self) -> Tensor:
        return self._end([])

    def _end(self, changes: list[tuple[nn.Module, str, Callable[..., Any]]]) -> Tensor:
        """Return the input of the classifier layer, else the result."""
        read: list[Tensor] = []

        def listen(_: nn.Module, args: tuple[Any, ...], __: Any) -> None:
            read.append(args[0].clone())

        hooks = [*changes]
        if self.classifier is not None:
            hooks.append((self.layers[self.classifier], "input", listen))
        with listening(hooks):
            result = run_once(self.module, self.rows)
        return read[-1] if read else first_tensor(result)


def _is_map(value: Tensor) -> bool:
    """Whether a tensor has channels and several positions."""
    return 3 <= value.ndim <= 5 and value.shape[2:].numel() > 1


def _same_values(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.flatten(), other.flatten())


def _all_equal(rows: Tensor) -> bool:
    return torch.equal(rows, rows[:1].expand_as(rows))
