"""Stochastic depth: residual networks that skip whole blocks in training."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from sklearn_structreg.dropcluster.shapes import check_drop_rate

__all__ = ["StochasticDepth", "residual_branches"]

ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


class StochasticDepth(nn.Module):
    """Drop a residual branch in training, for a whole mini-batch at a time.

    Put at the end of the branch, before it is added to the shortcut (Huang et al.,
    "Deep networks with stochastic depth", 2016): the block then passes on its input.
    A branch that stays is scaled by ``1 / (1 - drop_rate)``, so that inference needs no
    change.

    Parameters
    ----------
    drop_rate : float in [0, 1), default=0.1
        Probability to drop the branch.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.dropcluster import StochasticDepth
    >>> layer = StochasticDepth(0.5)
    >>> branch = torch.ones(8, 3)
    >>> sorted({layer(branch).mean().item() for _ in range(50)})
    [0.0, 2.0]
    >>> bool((layer.eval()(branch) == branch).all())
    True
    """

    def __init__(self, drop_rate: float = 0.1) -> None:
        super().__init__()
        self.drop_rate = check_drop_rate(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branch's output, scaled, or zeros.

        Parameters
        ----------
        x : Tensor of any shape
            Output of the branch.

        Returns
        -------
        Tensor of the same shape
        """
        if not self.training or self.drop_rate == 0:
            return x
        stays = torch.rand((), device=x.device) >= self.drop_rate
        return x * (stays.to(x.dtype) / (1 - self.drop_rate))

    def extra_repr(self) -> str:
        """Show the parameter."""
        return f"drop_rate={self.drop_rate}"


def residual_branches(module: nn.Module) -> list[str]:
    """Name the layers that end the residual branches of a network.

    The network is traced by `torch.fx`. Where two tensors are added, the one with more
    weighted layers behind it since they parted is the branch, the other the shortcut.

    Parameters
    ----------
    module : torch.nn.Module
        A residual network.

    Returns
    -------
    list of str
        Names of the last layers of the branches, in forward order, without branches
        that end in a function, such as a product; empty if there are no additions, or
        if the network cannot be traced.

    Examples
    --------
    >>> from torch import nn
    >>> from sklearn_structreg.dropcluster import residual_branches
    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
    ...     def forward(self, x):
    ...         return x + self.second(self.first(x).relu())
    >>> residual_branches(nn.Sequential(Block(), nn.ReLU(), Block()))
    ['0.second', '2.second']
    """
    try:
        graph = fx.Tracer().trace(module)
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
    """Return a node and all that it is computed from."""
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
