"""CGES: proximal steps on the weights of every layer that has some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from sklearn_structreg.cges._compiled import BoundWeight
from sklearn_structreg.cges.layers import (
    SparsityRecorder,
    find_weights,
    other_weights,
    warn_of_other_weights,
)
from sklearn_structreg.cges.parameters import CGESParameters
from sklearn_structreg.cges.phases import Phases
from sklearn_structreg.cges.proximal import prox_cges, prox_l1, prox_l2
from sklearn_structreg.cges.schedule import mu_schedule
from sklearn_structreg.cges.stacked import shrink_stack
from sklearn_structreg.cges.steps import step_sizes
from sklearn_structreg.cges.targets import (
    ReachTarget,
    TargetParameters,
    check_target,
    example_of,
    resume_target,
    target_of,
)
from sklearn_structreg.cges.terms import LayerPenalty, measured_scale
from sklearn_structreg.core import Regularizer
from sklearn_structreg.core.parameters import component
from sklearn_structreg.core.regularizer import learning_rates, same_value
from sklearn_structreg.core.weights import batch_norms, weight_layout

if TYPE_CHECKING:
    from sklearn_structreg.core.stacked_optimizer import StackedOptimizer

__all__ = ["CGES"]


# The parameter `penalty` hides the hook of that name, which CGES does not need.
@component
class CGES(CGESParameters, TargetParameters, Regularizer):  # type: ignore[misc]
    r"""Combined group and exclusive sparsity, as a regularizer.

    After every step of the optimizer the penalty's proximal operators shrink the
    weights of all linear, convolutional, recurrent and attention layers, in the
    optimizer's own metric: by the size of its step, at the learning rate of each
    parameter group, times alpha.
    :class:`CGESClassifier` states the objective.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    layers_ : list of LayerPenalty
        The weights' names in forward order, with the dimensions of their groups and the
        constants of the two terms.
    reached_ : float or None
        The share of the multiply-adds, or of the latency, that a target has led to.
    left_out_ : list of str
        Names of the other matrices to train, which stay as they are.

    Warns
    -----
    UserWarning
        If there are such matrices: embeddings, bilinear layers, weights that are
        computed from other parameters, layers that do not run, layers of your own.

    See Also
    --------
    CGESClassifier, CGESRegressor : Estimators with this penalty.
    RegularizerCallback : Trains a skorch net with this penalty.

    Notes
    -----
    Biases and normalization layers are not penalised (section 4 of the thesis), nor is
    a weight while it is frozen (``requires_grad=False``) or not in the optimizer.
    Right behind a layer batch normalization undoes the scale of its weights: there the
    penalty, unless it is "l2", falls on the weights times the scale of the norm.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.cges import CGES
    >>> from sklearn_structreg.core import StructuredClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = StructuredClassifier(
    ...     regularizers=[CGES(0.3)], max_epochs=20, random_state=0).fit(X, y)
    >>> bool((net.module_[0].weight == 0).any())
    True
    """

    zeroes_weights = True

    def attach(self, module: nn.Module, sample: Any) -> nn.Module:
        """Look up the weights; the network stays as it is."""
        self.start_, self.strength_ = 0.0, float(self.alpha)
        self.layers_: list[LayerPenalty] = []
        self.fixed_: dict[str, Tensor] = {}
        self.reached_: float | None = None
        self.epoch_, self.brake_ = 0, 1.0
        self.example_ = example_of(sample)
        names = find_weights(module, sample)
        self.batch_norms_ = batch_norms(module, sample, names)
        self._share_out(module, names)
        return module

    def resume(self, previous: Any, module: nn.Module) -> nn.Module:
        """Keep names and measured constants; the parameters of now take effect."""
        self.start_, self.strength_ = float(previous.alpha), float(self.alpha)
        self.fixed_ = {}
        resume_target(self, previous, module)
        self.batch_norms_ = dict(previous.batch_norms_)
        self._share_out(module, previous.names, warned=previous.alpha > 0)
        same = ("penalty", "exclusivity", "groups", "layer_scale")
        if all(same_value(getattr(self, n), getattr(previous, n)) for n in same):
            constants = ("group", "exclusive", "is_measured")
            self.layers_ = [
                replace(new, **{name: getattr(old, name) for name in constants})
                for new, old in zip(self.layers_, previous.layers_, strict=True)
            ]
        return module

    def callbacks(self) -> list[tuple[str, Callback]]:
        """Lead the strength through the epochs, and record every layer's sparsity."""
        recorder = ("sparsity", SparsityRecorder(self.names))
        phases = [("phases", Phases(self))] if self.alpha > 0 else []
        target = [("target", ReachTarget(self))] if target_of(self) else []
        return [recorder, *phases, *target]

    def after_step(self, module: nn.Module, optimizer: Optimizer) -> None:
        """Apply the proximal operators to all weights that are being trained."""
        if not all(layer.is_measured for layer in self.layers_):
            self._measure(module)  # also for an alpha to come
        if self.alpha == 0 and not self.fixed_:
            return
        pull = self.strength_ * self.brake_
        with torch.no_grad():
            for weight, layer, group in self._bind(module, optimizer):
                if not weight.w.requires_grad:
                    continue
                if layer.is_measured and pull > 0:
                    step, metric = step_sizes(optimizer, group, weight.w)
                    if layer.norm:
                        norm = module.get_submodule(layer.norm)
                        self._shrink_folded(weight, layer, step * pull, metric, norm)
                    else:
                        self._shrink(weight, layer, step * pull, metric)
                if layer.name in self.fixed_:
                    weight.w.masked_fill_(self._zeros(layer.name, weight.w), 0.0)

    @classmethod
    def after_stacked_step(
        cls, members: Sequence[CGES], optimizer: StackedOptimizer
    ) -> bool:
        """Shrink a layer of all members at once, once all constants are measured."""
        return shrink_stack(members, optimizer)

    def remedy(self) -> str | None:
        """Leave more channels, or lower the strength."""
        target = target_of(self)
        return f"raise {target[0]}={target[1]:g}" if target else super().remedy()

    def penalty_value(self, module: nn.Module) -> float:
        """Return the value of the penalty at its present strength."""
        total = 0.0
        for layer in self.layers_ if self.strength_ > 0 else ():
            w, dims = layer.folded(module), layer.group_dims
            if not layer.is_measured:
                continue
            if self.penalty == "l1":
                total += layer.group * float(w.abs().sum())
            elif self.penalty == "l2":
                total += layer.group / 2 * float(w.square().sum())
            else:
                total += layer.group * float(
                    torch.linalg.vector_norm(w, dim=dims).sum()
                )
                total += layer.exclusive / 2 * float(w.abs().sum(dims).square().sum())
        return float(self.strength_ * self.brake_ * total)

    def left_out(self) -> list[str]:
        """Name the matrices that are not penalised."""
        return list(self.left_out_)

    def fitted_state(self) -> dict[str, Any]:
        """Return the layers as dictionaries."""
        layers = [asdict(layer) for layer in self.layers_]
        return super().fitted_state() | {"layers_": layers}

    def restore(self, state: dict[str, Any]) -> None:
        """Make the layers of dictionaries."""
        super().restore(state)
        self.layers_ = [LayerPenalty(**layer) for layer in state["layers_"]]

    @property
    def names(self) -> list[str]:
        """The parameter names of the weights, in forward order."""
        return [layer.name for layer in self.layers_]

    def _share_out(
        self, module: nn.Module, names: list[str], *, warned: bool = False
    ) -> None:
        """Work out every weight's share of the penalty."""
        if self.ramp + self.refit > 1:
            raise ValueError(
                f"ramp={self.ramp:g} and refit={self.refit:g} are shares of the same "
                "epochs; together they must be at most 1."
            )
        check_target(self)
        layouts = [weight_layout(module, name) for name in names]
        members = "to" if self.groups == "feature" else "tik"
        shares = {
            "cges": mu_schedule(len(names), self.exclusivity),
            "exclusive": [1.0] * len(names),
        }.get(self.penalty, [0.0] * len(names))
        scales = self._scales(len(names))
        terms = zip(names, layouts, shares, scales, strict=True)
        measured = not isinstance(self.layer_scale, str) or self.penalty == "l2"
        self.layers_ = [
            LayerPenalty(
                name,
                layout.dims(members),
                (1 - mu) * a,
                mu * b,
                measured,
                layout.split,
                layout.size("ik"),
                "" if self.penalty == "l2" else self.batch_norms_.get(name, ""),
                layout.sizes("go"),
            )
            for name, layout, mu, (a, b) in terms
        ]
        self.left_out_ = other_weights(module, names) if self.alpha > 0 else []
        if not warned:
            warn_of_other_weights(self.left_out_, "penalised")

    def _scales(self, n_weights: int) -> list[tuple[float, float]]:
        """Return the constants of the two terms, as given; ones by default."""
        if self.layer_scale is None or isinstance(self.layer_scale, str):
            return [(1.0, 1.0)] * n_weights
        if self.penalty in ("l1", "l2"):
            return [(1.0, 1.0)] * n_weights
        scales = [_pair(scale) for scale in self.layer_scale]
        if len(scales) != n_weights:
            raise ValueError(
                f"layer_scale has {len(scales)} entries, but the network has "
                f"{n_weights} weights to penalise; give one constant, or a pair "
                "(group, exclusive), for each."
            )
        return scales

    def _measure(self, module: nn.Module) -> None:
        """Multiply the shares by constants, as soon as a layer has gradients."""
        layers = []
        for layer in self.layers_:
            gradient = module.get_parameter(layer.name).grad
            if not layer.is_measured and gradient is not None and gradient.any():
                dims, fan_in = layer.group_dims, layer.fan_in
                gradient = layer.view(gradient)
                if layer.norm:  # with respect to the weight times the scale
                    norm = module.get_submodule(layer.norm)
                    gradient = gradient / layer.scale(norm)
                a, b = measured_scale(gradient, dims, self.penalty, fan_in)
                layer = replace(
                    layer,
                    group=a * layer.group,
                    exclusive=b * layer.exclusive,
                    is_measured=True,
                )
            layers.append(layer)
        if layers != self.layers_:  # a frozen one stays unmeasured
            self.layers_ = layers
            self.__dict__.pop("_bound", None)

    def _zeros(self, name: str, weight: Tensor) -> Tensor:
        """Return the mask of the fixed zeros, on the device of the weight."""
        if self.fixed_[name].device != weight.device:
            self.fixed_[name] = self.fixed_[name].to(weight.device)
        return self.fixed_[name]

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
                (
                    BoundWeight(weight, layer.group_dims, layer.split),
                    layer,
                    known[id(weight)],
                )
                for weight, layer in weights
                if id(weight) in known
            ]
            bound = self._bound = (module, groups, len(groups), trained)
        return bound[3]

    def _shrink(
        self,
        weight: BoundWeight,
        layer: LayerPenalty,
        strength: float,
        metric: Tensor | None,
    ) -> None:
        w, exact = weight.w, self.prox == "exact"
        group, exclusive = strength * layer.group, strength * layer.exclusive
        if self.penalty == "l1":
            prox_l1(w, group, metric=metric, out=w)
        elif self.penalty == "l2":
            prox_l2(w, group, metric=metric, out=w)
        elif not weight.shrink(group, exclusive, exact, metric):
            v, dims = layer.view(w.detach()), layer.group_dims
            metric = None if metric is None else layer.view(metric)
            prox_cges(v, group, exclusive, dims, exact, metric=metric, out=v)

    def _shrink_folded(
        self,
        weight: BoundWeight,
        layer: LayerPenalty,
        strength: float,
        metric: Tensor | None,
        norm: nn.Module,
    ) -> None:
        """Shrink the weight times the scale behind it, which decides what it does.

        The steps of the product are larger by the square of the scale. Afterwards the
        weight has its norm again: shrinking it as a whole changes nothing but the
        effect of the next gradient steps, which would grow without bound.
        """
        w, scale = layer.view(weight.w.detach()), layer.scale(norm)
        metric = torch.ones_like(w) if metric is None else layer.view(metric)
        metric = (metric / scale.square()).reshape(weight.w.shape)
        before = torch.linalg.vector_norm(w)
        w.mul_(scale)
        self._shrink(weight, layer, strength, metric)
        w.div_(scale)
        after = torch.linalg.vector_norm(w)
        w.mul_(torch.where(after > 0, before / after, 0.0))

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {
            k: value for k, value in state.items() if k not in ("_bound", "_stacked")
        }


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
            "a pair (group, exclusive), for each weight."
        )
    group, exclusive = np.broadcast_to(constants, 2)
    return float(group), float(exclusive)
