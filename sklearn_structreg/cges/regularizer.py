"""CGES as a `Regularizer`: proximal steps on every penalised weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import Tensor, nn

from sklearn_structreg.cges.layers import SparsityRecorder, penalised_weights
from sklearn_structreg.cges.proximal import (
    prox_cges,
    prox_exclusive_lasso,
    prox_group_lasso,
    prox_l1,
    prox_l2,
)
from sklearn_structreg.cges.pruning import Pruner, PruningRounds
from sklearn_structreg.cges.schedule import mu_schedule
from sklearn_structreg.core import Regularizer

__all__ = ["CGESRegularizer"]

CHOICES = {
    "penalty": ("cges", "group", "exclusive", "l1", "l2"),
    "groups": ("feature", "filter"),
    "prox": ("exact", "paper"),
}

LayerScale = str | Sequence[float] | Sequence[Sequence[float]] | None


@dataclass(frozen=True)
class LayerPenalty:
    """How the penalty of one layer is shared out.

    Attributes
    ----------
    name : str
        The weight's parameter name.
    group_dims : tuple of int
        The dims, counted from the end, that a group runs over.
    group, exclusive : float
        Factors on ``lr * alpha`` of the two terms of Eq. 5.
    """

    name: str
    group_dims: tuple[int, ...]
    group: float
    exclusive: float


@dataclass(eq=False)
class CGESRegularizer(Regularizer):
    """Apply the penalty's proximal operators after every optimizer step.

    Parameters
    ----------
    alpha, penalty, exclusivity, groups, prox, prox_every, layer_scale
        As in `CGESClassifier`.
    pruner : Pruner or None, default=None
        Prunes the penalised weights on top.

    Attributes
    ----------
    layers_ : list of LayerPenalty
        The penalised layers in forward order, once attached.
    """

    alpha: float = 1e-4
    penalty: str = "cges"
    _: KW_ONLY
    exclusivity: float = 0.2
    groups: str = "feature"
    prox: str = "exact"
    prox_every: int = 1
    layer_scale: LayerScale = "auto"
    pruner: Pruner | None = None
    layers_: list[LayerPenalty] = field(default_factory=list, init=False)
    _pending_lr: float = field(default=0.0, init=False, repr=False)
    _pending_steps: int = field(default=0, init=False, repr=False)
    _bound: tuple[nn.Module, list[nn.Parameter]] | None = field(
        default=None, init=False, repr=False
    )

    def check(self) -> None:
        """Check the parameters that do not depend on the network.

        Raises
        ------
        ValueError
            If one is out of its range.
        """
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} must be one of {choices}."
                )
        if not (isinstance(self.alpha, Real) and 0 <= self.alpha < math.inf):
            raise ValueError(
                f"alpha={self.alpha!r} must be a finite number of at least 0."
            )
        if not (isinstance(self.prox_every, Integral) and self.prox_every >= 1):
            raise ValueError(
                f"prox_every={self.prox_every!r} must be an integer of at least 1."
            )
        scale = self.layer_scale
        if np.isscalar(scale) and scale != "auto":
            raise ValueError(
                f"layer_scale={scale!r} must be 'auto', None, or a sequence with an "
                "entry for each penalised layer."
            )

    def attach(self, module: nn.Module, sample_batch: Tensor) -> nn.Module:
        """Look up the penalised weights; the module itself stays as it is."""
        self.check()
        names = penalised_weights(module, sample_batch)
        if not names:
            raise ValueError(
                "The module runs no Linear or convolutional layer with a weight of its "
                "own to train, so there is nothing to penalise."
            )
        weights = [module.get_parameter(name) for name in names]
        scales = self._scales(weights)
        shares = {
            "cges": mu_schedule(len(names), self.exclusivity),
            "exclusive": [1.0] * len(names),
        }.get(self.penalty, [0.0] * len(names))
        self.layers_ = [
            LayerPenalty(
                name,
                group_dims(weight.ndim, self.groups),
                (1 - mu) * group,
                mu * exclusive,
            )
            for name, weight, mu, (group, exclusive) in zip(
                names, weights, shares, scales, strict=True
            )
        ]
        if self.pruner is not None:
            self.pruner.attach(module, names)
        return module

    def callbacks(self) -> list[tuple[str, Callback]]:
        """Record the sparsity of every layer in the history; prune."""
        recorder = ("sparsity", SparsityRecorder(self.names))
        if self.pruner is None:
            return [recorder]
        return [("pruning", PruningRounds(self.pruner)), recorder]

    @property
    def names(self) -> list[str]:
        """The parameter names of the penalised weights, in forward order."""
        return [layer.name for layer in self.layers_]

    def after_step(self, module: nn.Module, lr: float) -> None:
        """Zero what is pruned; apply the operators every `prox_every` steps."""
        if self.pruner is not None:
            self.pruner.apply(module)
        if self.alpha == 0:
            return
        self._pending_lr += lr
        self._pending_steps += 1
        if self._pending_steps >= self.prox_every:
            self.after_training_epoch(module)

    def after_training_epoch(self, module: nn.Module) -> None:
        """Apply what is pending, so that weights are read right after a prox."""
        if not self._pending_steps:
            return
        step = self._pending_lr * self.alpha
        self._pending_lr, self._pending_steps = 0.0, 0
        with torch.no_grad():
            for weight, layer in zip(self._weights(module), self.layers_, strict=True):
                self._proximal_step(weight, layer, step)

    def _proximal_step(self, w: Tensor, layer: LayerPenalty, step: float) -> None:
        exact, dims = self.prox == "exact", layer.group_dims
        group, exclusive = step * layer.group, step * layer.exclusive
        match self.penalty:
            case "l1":
                prox_l1(w, group, out=w)
            case "l2":
                prox_l2(w, group, out=w)
            case "group":
                prox_group_lasso(w, group, dims, out=w)
            case "exclusive":
                prox_exclusive_lasso(w, exclusive, dims, exact, out=w)
            case _:
                prox_cges(w, group, exclusive, dims, exact, out=w)

    def _scales(self, weights: list[nn.Parameter]) -> list[tuple[float, float]]:
        """Return each layer's constants on the group and the exclusive term."""
        if self.layer_scale is None or self.penalty in ("l1", "l2"):
            return [(1.0, 1.0)] * len(weights)
        if isinstance(self.layer_scale, str):
            return [
                automatic_scale(w.shape, self.groups, self.penalty) for w in weights
            ]
        scales = [_pair(scale) for scale in self.layer_scale]
        if len(scales) != len(weights):
            raise ValueError(
                f"layer_scale has {len(scales)} entries, but the network has "
                f"{len(weights)} penalised layers; give one constant, or a pair "
                "(group, exclusive), for each."
            )
        return scales

    def _weights(self, module: nn.Module) -> list[nn.Parameter]:
        if self._bound is None or self._bound[0] is not module:
            weights = [module.get_parameter(name) for name in self.names]
            self._bound = module, weights
        return self._bound[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bound": None}  # the net pickles the module itself


def group_dims(n_dims: int, groups: str) -> tuple[int, ...]:
    """Return the dims that a group runs over, counted from the end.

    Parameters
    ----------
    n_dims : int
        Of a weight: ``(out, in)`` or ``(out, in, *kernel)``.
    groups : {"feature", "filter"}
        A feature's group is all weights that leave it, across the outputs; a filter's
        is all weights that enter it.

    Returns
    -------
    tuple of int

    Examples
    --------
    >>> from sklearn_structreg.cges.regularizer import group_dims
    >>> group_dims(2, "feature"), group_dims(4, "filter")
    ((-2,), (-3, -2, -1))
    """
    return (-n_dims,) if groups == "feature" else tuple(range(1 - n_dims, 0))


def automatic_scale(
    shape: Sequence[int], groups: str, penalty: str
) -> tuple[float, float]:
    """Return a layer's constants a and b on the group and the exclusive term.

    With n weights in a group and d inputs per unit, b = sqrt(d) / n: weights start at a
    magnitude of about 1 / sqrt(d), so the term pulls at each of them with about alpha,
    as an L1 penalty would, whatever the layer. Alone the group term gets sqrt(n), which
    does the same for it; beside the exclusive term a tenth of that, so that it takes
    away the groups that the competition has emptied and hardly shrinks the others.
    ``benchmarks/reproduce/cges_layer_scale.py`` measures the alternatives.

    Parameters
    ----------
    shape : sequence of int
        Of the weight, ``(out, in, *kernel)``.
    groups : {"feature", "filter"}
        What a group is.
    penalty : str
        As in `CGESClassifier`.

    Returns
    -------
    group, exclusive : float

    Examples
    --------
    >>> from sklearn_structreg.cges.regularizer import automatic_scale
    >>> automatic_scale((100, 64), "feature", "group")
    (10.0, 0.08)
    """
    fan_in = math.prod(shape[1:])
    size = shape[0] if groups == "feature" else fan_in
    share = 0.1 if penalty == "cges" else 1.0
    return share * math.sqrt(size), math.sqrt(fan_in) / size


def _pair(scale: float | Sequence[float]) -> tuple[float, float]:
    """Return one constant of `layer_scale` for both terms, or a pair as it is."""
    try:
        constants = np.asarray(scale, dtype=float)
    except (TypeError, ValueError):
        constants = np.array(np.nan)
    if (
        constants.shape not in ((), (2,))
        or not ((constants >= 0) & np.isfinite(constants)).all()
    ):
        raise ValueError(
            f"layer_scale holds {scale!r}; give one finite, non-negative constant, or "
            "a pair (group, exclusive), for each penalised layer."
        )
    group, exclusive = np.broadcast_to(constants, 2)
    return float(group), float(exclusive)
