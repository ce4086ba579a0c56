"""CGES: proximal steps on the weights of every linear and convolutional layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from skorch.callbacks import Callback
from torch import nn
from torch.optim import Optimizer

from sklearn_structreg.cges._compiled import BoundWeight
from sklearn_structreg.cges.layers import (
    SparsityRecorder,
    find_weights,
    warn_of_other_weights,
)
from sklearn_structreg.cges.proximal import prox_cges, prox_l1, prox_l2
from sklearn_structreg.cges.schedule import mu_schedule
from sklearn_structreg.core import Regularizer
from sklearn_structreg.core.parameters import component, parameter
from sklearn_structreg.core.regularizer import learning_rates

__all__ = ["CGES", "CGESParameters"]

LayerScale = str | Sequence[float] | Sequence[Sequence[float]] | None


@component
class CGESParameters:
    """The parameters of the penalty."""

    alpha: float = parameter(
        1e-4,
        [Interval(Real, 0, math.inf, closed="left")],
        "float",
        """Strength of the penalty, at least 0; with 0 this is the plain network, bit
        for bit. Worth a search on a log scale.""",
        kw_only=False,
    )
    penalty: str = parameter(
        "cges",
        [StrOptions({"cges", "group", "exclusive", "l1", "l2"})],
        '{"cges", "group", "exclusive", "l1", "l2"}',
        r""""group" and "exclusive" are the two terms alone, with :math:`\mu_l` 0 and 1;
        "l1" is :math:`\|w\|_1`, "l2" :math:`\frac12\|w\|_2^2`.""",
    )
    exclusivity: float = parameter(
        0.2,
        [Interval(Real, 0, 1, closed="both")],
        "float in [0, 1]",
        r"""m in :math:`\mu_l = m + (1-2m)\,l/(L-1)`, for "cges": the share of the
        exclusive term at the bottom layer, and of the group term at the top. A network
        with a single linear or convolutional layer gets the top layer's
        :math:`1-m`.""",
    )
    groups: str = parameter(
        "feature",
        [StrOptions({"feature", "filter"})],
        '{"feature", "filter"}',
        """"feature": a group is all weights that leave one input, for convolutions one
        tap of the kernel across all filters. "filter": all weights that enter one unit
        or filter.""",
    )
    prox: str = parameter(
        "exact",
        [StrOptions({"exact", "paper"})],
        '{"exact", "paper"}',
        """The exclusive term's proximal operator: exact, or the paper's Eq. 8, which
        takes the norm before the step and zeroes whole groups once
        ``lr * alpha * mu * b`` reaches one.""",
    )
    layer_scale: LayerScale = parameter(
        "auto",
        [StrOptions({"auto"}), "array-like", None],
        '"auto", None or sequence',
        r"""The constants :math:`a_l` and :math:`b_l`. "auto" takes
        :math:`a_l=\sqrt{n_g}` (a tenth of it for "cges") and :math:`b_l=\sqrt{d}/n_g`
        with n_g weights in a group and d inputs per unit, so that one alpha means a
        similar thing on every layer. None is the bare paper, all ones. A sequence gives
        a constant, or a pair (a, b), for each linear and convolutional layer in forward
        order.""",
    )


@dataclass(frozen=True)
class LayerPenalty:
    """One layer's weight, its groups, and the factors of its two terms on alpha."""

    name: str
    group_dims: tuple[int, ...]
    group: float
    exclusive: float


# The parameter `penalty` hides the hook of that name, which CGES does not need.
@component
class CGES(CGESParameters, Regularizer):  # type: ignore[misc]
    r"""Combined group and exclusive sparsity, as a regularizer.

    After every step of the optimizer the penalty's proximal operators shrink the
    weights of all linear and convolutional layers, each by the learning rate of its own
    parameter group times alpha. :class:`CGESClassifier` states the objective.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    layers_ : list of LayerPenalty
        The weights' names in forward order, with the dimensions of their groups and the
        constants of the two terms.

    Warns
    -----
    UserWarning
        If the network holds other matrices to train, which stay as they are: those of
        recurrent layers, attention projections, transposed convolutions, embeddings,
        or weights that are computed from other parameters.

    See Also
    --------
    CGESClassifier, CGESRegressor : Estimators with this penalty.
    RegularizerCallback : Trains a skorch net with this penalty.

    Notes
    -----
    Biases and normalization layers are not penalised (section 4 of the thesis), nor is
    a weight while it is frozen (``requires_grad=False``) or not in the optimizer.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.cges import CGES
    >>> from sklearn_structreg.core import StructuredClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = StructuredClassifier(
    ...     regularizers=[CGES(0.05)], max_epochs=20, random_state=0).fit(X, y)
    >>> bool((net.module_[0].weight == 0).any())
    True
    """

    zeroes_weights = True

    def attach(self, module: nn.Module, sample: Any) -> nn.Module:
        """Look up the weights; the network stays as it is."""
        self._share_out(module, find_weights(module, sample))
        return module

    def resume(self, previous: Any, module: nn.Module) -> nn.Module:
        """Keep the weights' names; the parameters of now take effect."""
        self._share_out(module, previous.names, warned=previous.alpha > 0)
        return module

    def callbacks(self) -> list[tuple[str, Callback]]:
        """Record the sparsity of every layer in the history."""
        return [("sparsity", SparsityRecorder(self.names))]

    def after_step(self, module: nn.Module, optimizer: Optimizer) -> None:
        """Apply the proximal operators to all weights that are being trained."""
        if self.alpha == 0:
            return
        with torch.no_grad():
            for weight, layer, group in self._bind(module, optimizer):
                if weight.w.requires_grad:
                    self._shrink(weight, layer, self._step_size(group))

    def fitted_state(self) -> dict[str, Any]:
        """Return the layers as dictionaries."""
        return {"layers_": [asdict(layer) for layer in self.layers_]}

    def restore(self, state: dict[str, Any]) -> None:
        """Make the layers of dictionaries."""
        self.layers_ = [LayerPenalty(**layer) for layer in state["layers_"]]

    @property
    def names(self) -> list[str]:
        """The parameter names of the weights, in forward order."""
        return [layer.name for layer in self.layers_]

    def _share_out(
        self, module: nn.Module, names: list[str], *, warned: bool = False
    ) -> None:
        """Work out every layer's share of the penalty."""
        shapes = [module.get_parameter(name).shape for name in names]
        shares = {
            "cges": mu_schedule(len(names), self.exclusivity),
            "exclusive": [1.0] * len(names),
        }.get(self.penalty, [0.0] * len(names))
        terms = zip(names, shapes, shares, self._scales(shapes), strict=True)
        self.layers_ = [
            LayerPenalty(name, group_dims(len(s), self.groups), (1 - mu) * a, mu * b)
            for name, s, mu, (a, b) in terms
        ]
        if self.alpha > 0 and not warned:
            warn_of_other_weights(module, names, "penalised")

    def _scales(self, shapes: list[torch.Size]) -> list[tuple[float, float]]:
        """Return each layer's constants on the group and the exclusive term."""
        if self.layer_scale is None or self.penalty in ("l1", "l2"):
            return [(1.0, 1.0)] * len(shapes)
        if isinstance(self.layer_scale, str):
            return [automatic_scale(s, self.groups, self.penalty) for s in shapes]
        scales = [_pair(scale) for scale in self.layer_scale]
        if len(scales) != len(shapes):
            raise ValueError(
                f"layer_scale has {len(scales)} entries, but the network has "
                f"{len(shapes)} linear and convolutional layers; give one constant, or "
                "a pair (group, exclusive), for each."
            )
        return scales

    def _bind(
        self, module: nn.Module, optimizer: Optimizer
    ) -> list[tuple[BoundWeight, LayerPenalty, dict[str, Any]]]:
        """Pair weights with their parameter groups, once for a module and optimizer."""
        # A new list of groups comes with a new or restored optimizer.
        groups = optimizer.param_groups
        bound = self.__dict__.get("_bound")
        if (
            bound is None
            or bound[0] is not module
            or bound[1] is not groups
            or bound[2] != len(groups)
        ):
            known = learning_rates(optimizer)
            weights = [(module.get_parameter(x.name), x) for x in self.layers_]
            trained = [
                (BoundWeight(weight, layer.group_dims), layer, known[id(weight)])
                for weight, layer in weights
                if id(weight) in known
            ]
            bound = self._bound = (module, groups, len(groups), trained)
        return bound[3]

    def _step_size(self, group: dict[str, Any]) -> float:
        """Length of the proximal step; the metric of an optimizer would enter here."""
        return float(group["lr"]) * float(self.alpha)

    def _shrink(self, weight: BoundWeight, layer: LayerPenalty, step: float) -> None:
        w, exact = weight.w, self.prox == "exact"
        group, exclusive = step * layer.group, step * layer.exclusive
        if self.penalty == "l1":
            prox_l1(w, group, out=w)
        elif self.penalty == "l2":
            prox_l2(w, group, out=w)
        elif not weight.shrink(group, exclusive, exact):
            prox_cges(w, group, exclusive, layer.group_dims, exact, out=w)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key != "_bound"}


def group_dims(n_dims: int, groups: str) -> tuple[int, ...]:
    """Return the dims, counted from the end, that a group of a weight runs over.

    >>> group_dims(2, "feature"), group_dims(4, "filter")
    ((-2,), (-3, -2, -1))
    """
    return (-n_dims,) if groups == "feature" else tuple(range(1 - n_dims, 0))


def automatic_scale(
    shape: Sequence[int], groups: str, penalty: str
) -> tuple[float, float]:
    """Return a layer's constants a and b on the group and the exclusive term.

    >>> automatic_scale((100, 64), "feature", "group")
    (10.0, 0.08)
    """
    # With n weights in a group and d inputs per unit, b = sqrt(d) / n: weights start at
    # a magnitude of about 1 / sqrt(d), so the term pulls at each of them with about
    # alpha, as an L1 penalty would, whatever the layer. Alone the group term gets
    # sqrt(n), which does the same for it; beside the exclusive term a tenth of that, so
    # that it takes away the groups that the competition has emptied and hardly shrinks
    # the others. benchmarks/reproduce/cges_layer_scale.py measures the alternatives.
    fan_in = math.prod(shape[1:])
    size = shape[0] if groups == "feature" else fan_in
    share = 0.1 if penalty == "cges" else 1.0
    return share * math.sqrt(size), math.sqrt(fan_in) / size


def _pair(scale: float | Sequence[float]) -> tuple[float, float]:
    """Return an entry of `layer_scale` as a pair."""
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
            "a pair (group, exclusive), for each linear and convolutional layer."
        )
    group, exclusive = np.broadcast_to(constants, 2)
    return float(group), float(exclusive)
