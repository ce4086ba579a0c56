"""The weights of a network: which parameters count as such, and their layout."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sklearn_structreg.core.inspection import (
    WEIGHTED,
    Listener,
    listening,
    run_once,
    running_order,
)

__all__ = [
    "WeightLayout",
    "batch_norms",
    "own_weights",
    "running_weights",
    "weight_layout",
]

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
LAYOUTS: tuple[tuple[tuple[type[nn.Module], ...], dict[str, str]], ...] = (
    (WEIGHTED, {"weight": "oi"}),
    (TRANSPOSED, {"weight": "io"}),
    (RECURRENT, {"weight_ih": "oi", "weight_hh": "oi", "weight_hr": "oi"}),
    (
        (nn.MultiheadAttention,),
        {
            "in_proj_weight": "oi",
            "q_proj_weight": "oi",
            "k_proj_weight": "oi",
            "v_proj_weight": "oi",
            "out_proj.weight": "oi",
        },
    ),
)
"""For each kind of layer the names of its weights, with the first axes of each one.

``o`` stands for outputs and ``i`` for inputs; further axes are positions of a kernel.
Names of recurrent layers go on with the number of the layer.
"""


@dataclass(frozen=True)
class WeightLayout:
    """How a weight is seen: its first axis split, and a letter for every axis.

    ``g`` counts groups of channels, which share nothing, ``t`` the gates of a recurrent
    unit, ``o`` outputs, ``i`` inputs and ``k`` positions of a kernel.
    """

    split: tuple[int, ...]
    axes: str
    shape: tuple[int, ...]

    def dims(self, letters: str) -> tuple[int, ...]:
        """Return the axes with one of the letters, counted from the end."""
        n_axes = len(self.axes)
        return tuple(i - n_axes for i in range(n_axes) if self.axes[i] in letters)

    def sizes(self, letters: str) -> tuple[int, ...]:
        """Return the shape that broadcasts along all axes but those of the letters."""
        pairs = zip(self.axes, self.shape, strict=True)
        return tuple(size if axis in letters else 1 for axis, size in pairs)

    def size(self, letters: str) -> int:
        """Return the number of weights along the axes with one of the letters."""
        return math.prod(self.sizes(letters))


def own_weights(layer: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a layer that are parameters, by their names in it.

    Layers of other classes count where these have ``has_linear_weight = True``: their
    weight is of shape (n_outputs, n_inputs).
    """
    known = _first_axes(layer)
    if not known:
        return {}
    parameters = layer.named_parameters()
    return {name: w for name, w in parameters if name.split("_l")[0] in known}


def running_weights(module: nn.Module, sample: Any) -> list[str]:
    """Name the weights of all layers that run, in forward order, shared ones once."""
    layers = {name: part for name, part in module.named_modules() if own_weights(part)}
    found: dict[int, str] = {}
    for name in running_order(module, sample, layers):
        for key, weight in own_weights(layers[name]).items():
            found.setdefault(id(weight), f"{name}.{key}".lstrip("."))
    return list(found.values())


def weight_layout(module: nn.Module, name: str) -> WeightLayout:
    """Return the layout of one of the weights that `running_weights` names.

    >>> weight_layout(nn.Conv2d(6, 4, 3, groups=2), "weight")
    WeightLayout(split=(2, 2), axes='goikk', shape=(2, 2, 3, 3, 3))
    >>> weight_layout(nn.LSTM(5, 7), "weight_ih_l0").axes
    'toi'
    """
    layer: Any = module.get_submodule(name.rpartition(".")[0])
    shape = tuple(module.get_parameter(name).shape)
    key = name.rpartition(".")[2].split("_l")[0]
    axes = _first_axes(layer)[key].ljust(len(shape), "k")
    letter, parts = "g", layer.groups if "k" in axes else 1
    if isinstance(layer, RECURRENT) and key != "weight_hr":
        letter, parts = "t", shape[0] // layer.hidden_size
    if parts == 1:
        return WeightLayout((), axes, shape)
    split = (parts, shape[0] // parts)
    return WeightLayout(split, letter + axes, split + shape[1:])


def batch_norms(module: nn.Module, sample: Any, names: Sequence[str]) -> dict[str, str]:
    """Name the batch normalization behind each weight that has one, and runs once."""
    n_runs: Counter[str] = Counter()
    outputs: dict[int, tuple[str, Tensor]] = {}
    found: dict[str, str] = {}

    def made(name: str) -> Listener:
        def listener(layer: Any, _: Any, output: Any) -> None:
            n_runs[name] += 1
            # Otherwise the norm has its channels in another dimension.
            if isinstance(output, Tensor) and output.ndim == layer.weight.ndim:
                outputs[id(output)] = name, output

        return listener

    def read(norm: str) -> Listener:
        def listener(_: Any, inputs: tuple[Tensor, ...], __: None) -> None:
            name, _ = outputs.get(id(inputs[0]), ("", None))
            found[name] = norm

        return listener

    layers = [name.removesuffix("weight").rstrip(".") for name in names]
    norms = [(name, part) for name, part in module.named_modules() if _scales(part)]
    hooks: list[tuple[nn.Module, str, Listener]] = [
        (module.get_submodule(layer), "output", made(name))
        for layer, name in zip(layers, names, strict=True)
        if name.rpartition(".")[2] == "weight"
    ]
    hooks += [(part, "input", read(name)) for name, part in norms]
    if norms:
        with listening(hooks):
            run_once(module, sample)
    return {name: norm for name, norm in found.items() if n_runs[name] == 1}


def _scales(part: nn.Module) -> bool:
    return isinstance(part, _BatchNorm) and part.running_var is not None


def _first_axes(layer: nn.Module) -> dict[str, str]:
    for kinds, names in LAYOUTS:
        if isinstance(layer, kinds):
            return names
    return {"weight": "oi"} if hasattr(type(layer), "has_linear_weight") else {}
