"""Stochastic depth: residual networks that skip whole blocks in training."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from sklearn_structreg.baselines.insertion import InsertedLayers, rate_parameter
from sklearn_structreg.core.insertion import InsertionPoint, check_drop_rate
from sklearn_structreg.core.parameters import component, parameter
from sklearn_structreg.core.randomness import own_generator

__all__ = ["BranchDropout", "StochasticDepth", "residual_branches"]

ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


@component
class StochasticDepth(InsertedLayers):
    """Drop residual branches in training, each for a whole mini-batch at a time.

    After Huang et al., "Deep networks with stochastic depth", ECCV 2016. A block whose
    branch is dropped passes on its input. A branch that stays is scaled by
    ``1 / (1 - drop_rate)``, so that inference needs no change.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    inserted_ : list of str
        Names of the inserted layers.

    Notes
    -----
    To find the residual branches, `torch.fx` traces the network. Where two tensors are
    added, the branch is the one with more weighted layers behind it since they parted,
    and the other one is the shortcut. Branches that end in a function are left out.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from torch import nn
    >>> from sklearn_structreg.baselines import StochasticDepth
    >>> from sklearn_structreg.core import StructuredClassifier
    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
    ...     def forward(self, x):
    ...         return x + self.second(self.first(x).relu())
    >>> X, y = load_digits(return_X_y=True)
    >>> net = StructuredClassifier(
    ...     nn.Sequential(Block(), Block(), nn.Linear(64, 10)),
    ...     regularizers=[StochasticDepth(0.2)], max_epochs=10)
    >>> net.fit(X / 16, y).regularizers_["stochasticdepth"].inserted_
    ['0.second.inserted_layer', '1.second.inserted_layer']
    """

    drop_rate: float = rate_parameter(0.1, "Probability to drop a branch")
    layers: str | Sequence[str] = parameter(
        "auto",
        [str, "array-like"],
        'str, sequence of str, or "auto"',
        """Names of the last layers of residual branches, as in
        ``module_.named_modules()``. "auto" finds these: see the notes.""",
    )

    _min_pixels: ClassVar[int] = 0

    def _find_point(self, module: nn.Module, name: str, sample: Any) -> InsertionPoint:
        point = super()._find_point(module, name, sample)
        if point.before:
            raise ValueError(
                "StochasticDepth drops residual branches, but the input is none; name "
                "the last layer of every branch as layers=[...]."
            )
        return point

    def _find_auto(self, module: nn.Module, sample: Any) -> list[InsertionPoint]:
        names = residual_branches(module)
        if not names:
            raise ValueError(
                "StochasticDepth finds no residual branch; name the last layer of each "
                "branch as layers=[...]."
            )
        return [self._find_point(module, name, sample) for name in names]

    def _make_layer(self, point: InsertionPoint) -> nn.Module:
        return BranchDropout(self.drop_rate)


class BranchDropout(nn.Module):
    """Multiply a branch by zero, or by 1 / (1 - drop_rate), in training."""

    def __init__(self, drop_rate: float = 0.1) -> None:
        super().__init__()
        self.drop_rate = check_drop_rate(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branch, scaled, or zeros."""
        if not self.training or self.drop_rate == 0:
            return x
        source = own_generator(x.device)
        stays = torch.rand((), device=x.device, generator=source) >= self.drop_rate
        return x * (stays.to(x.dtype) / (1 - self.drop_rate))

    def simplified(self) -> nn.Module:
        """Return the identity: the layer acts in training only."""
        return nn.Identity()

    def extra_repr(self) -> str:
        """Show the parameter."""
        return f"drop_rate={self.drop_rate}"


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = hasattr(m, "simplified")
        return ours or super().is_leaf_module(m, module_qualified_name)


def residual_branches(module: nn.Module) -> list[str]:
    """Return the names of the layers that end residual branches, in forward order."""
    try:
        graph = _Tracer().trace(module)
    except Exception:  # control flow that depends on the data, and much else
        return []
    names: dict[str, None] = {}
    for node in graph.nodes:
        sides = [arg for arg in node.args if isinstance(arg, fx.Node)]
        if node.target not in ADDITIONS or len(sides) != 2:
            continue
        behind = [_ancestors(side) for side in sides]
        own = [behind[i] - behind[1 - i] for i in (0, 1)]
        weights = [sum(_has_weight(module, n) for n in nodes) for nodes in own]
        branch = sides[0] if weights[0] >= weights[1] else sides[1]
        if max(weights) > 0 and branch.op == "call_module":
            names[str(branch.target)] = None
    return list(names)


def _ancestors(node: fx.Node) -> set[fx.Node]:
    """Return a node and all nodes that it is computed from."""
    found, queue = {node}, [node]
    while queue:
        new = set(queue.pop().all_input_nodes) - found
        found |= new
        queue.extend(new)
    return found


def _has_weight(module: nn.Module, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    layer: Any = module.get_submodule(str(node.target))
    return getattr(layer, "weight", None) is not None and layer.weight.ndim > 1
