"""Iterative magnitude pruning: drop the smallest weights, train on, drop more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from sklearn.utils._param_validation import Interval
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from sklearn_structreg.cges.layers import (
    find_weights,
    forget_best,
    other_weights,
    warn_of_other_weights,
)
from sklearn_structreg.core import Regularizer
from sklearn_structreg.core.parameters import component, parameter, parameter_of
from sklearn_structreg.core.regularizer import same_value

__all__ = ["IterativePruning", "PruningParameters"]


@component
class PruningParameters:
    """The parameters of the pruning; off by default, beside a penalty."""

    target_density: float | None = parameter(
        None,
        [Interval(Real, 0, 1, closed="right"), None],
        "float in (0, 1] or None",
        """Share of the weights that iterative pruning leaves, to within one weight;
        None and 1 prune nothing. The smallest weights of all layers together go, but
        the largest of each layer stays; of equal ones the first stay. Pruned weights
        are held at exactly zero from then on.""",
    )
    pruning_rounds: int = parameter(
        10,
        [Interval(Integral, 1, None, closed="left")],
        "int",
        """Number of rounds of pruning, at least 1; each keeps the same share of the
        weights that are left.""",
    )
    pruning_start: float = parameter(
        0.25,
        [Interval(Real, 0, 1, closed="left")],
        "float in [0, 1)",
        """Share of the epochs before the first round. Half of the others come after the
        last round, the other half lies evenly between the rounds. `lr_schedule` begins
        anew with every round.""",
    )


@component
class IterativePruning(PruningParameters, Regularizer):
    """Prune a network while it trains, down to a given density.

    At the start of some epochs the smallest weights of all linear and convolutional
    layers together are set to zero, and held there after every later step of the
    optimizer. From each of these epochs on `lr_schedule` begins anew, over the epochs
    until the next.
    At the start of some epochs the smallest weights of all linear, convolutional,
    recurrent and attention layers together are set to zero, and held there after every
    later step of the optimizer.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    masks_ : dict of str to torch.Tensor of bool
        True where a weight is pruned, by parameter name; empty before the first round.
    names_ : list of str
        The parameter names of the weights, in forward order.
    left_out_ : list of str
        Names of the other matrices to train.

    Warns
    -----
    UserWarning
        If the network holds other matrices to train, such as embeddings.

    See Also
    --------
    CGES : A penalty beside it; list it after the pruning.
    CGESClassifier, CGESRegressor : Estimators with both.
    RegularizerCallback : Prunes a skorch net.

    Notes
    -----
    A round counts and prunes the weights that are not frozen (``requires_grad=False``)
    at that time. Until the last round early stopping starts anew with every epoch, so
    that it neither stops before the density is reached nor brings back denser weights.

    A warm start keeps the pruned weights at zero and prunes on from there, unless
    `target_density` is now larger than the share that is left: then it begins again
    with all weights. `partial_fit` counts its calls as the epochs. A network that has
    been compacted in place keeps the zeros that are left, and is not pruned again for
    the same density.

    References
    ----------
    S. Han, J. Pool, J. Tran, W. J. Dally, "Learning both weights and connections for
    efficient neural networks", NIPS 2015.

    A. Renda, J. Frankle, M. Carbin, "Comparing rewinding and fine-tuning in neural
    network pruning", ICLR 2020: the learning rate begins anew.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.cges import IterativePruning
    >>> from sklearn_structreg.core import StructuredClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = StructuredClassifier(
    ...     regularizers=[IterativePruning(0.1)], max_epochs=5, random_state=0)
    >>> net = net.fit(X, y)
    >>> sum(int((net.module_[i].weight != 0).sum()) for i in (0, 2))
    740
    """

    target_density: float | None = parameter_of(
        PruningParameters, "target_density", default=0.1, kw_only=False
    )

    @property
    def _is_off(self) -> bool:
        """Whether nothing is to be pruned."""
        return self.target_density is None or self.target_density == 1

    def attach(self, module: nn.Module, sample: Any) -> nn.Module:
        """Look up the weights; the network stays as it is."""
        self.names_ = find_weights(module, sample)
        self.masks_: dict[str, Tensor] = {}
        self.compacted_: float | None = None  # the density pruned for before compaction
        self._plan_anew()
        self._check(module)
        self.left_out_ = [] if self._is_off else other_weights(module, self.names_)
        warn_of_other_weights(self.left_out_, "pruned")
        return module

    def remedy(self) -> str | None:
        """Leave more weights."""
        return None if self._is_off else f"raise target_density={self.target_density:g}"

    def resume(self, previous: Any, module: nn.Module) -> nn.Module:
        """Keep the pruned weights at zero; go on with the rounds that are to come."""
        super().resume(previous, module)
        self.masks_ = {} if self._is_off else dict(previous.masks_)
        weights = {name: module.get_parameter(name) for name in self.names_}
        compacted = any(m.shape != weights[n].shape for n, m in self.masks_.items())
        if compacted:
            self.masks_ = {name: w.detach() == 0 for name, w in weights.items()}
            self.compacted_ = previous.target_density
        if compacted or not (self.rounds_ and _same_parameters(self, previous)):
            self._plan_anew()
        self._check(module)
        if self._n_present(module) < self._n_target(module):
            self.masks_ = {}
        self._apply(module)
        return module

    def callbacks(self) -> list[tuple[str, Callback]]:
        """Lead the pruning through the epochs of a training."""
        return [] if self._is_off else [("pruning", PruningRounds(self))]

    def schedule_starts(self, module: nn.Module, max_epochs: int) -> list[int]:
        """Return the epochs of the rounds: each is trained at rates of its own."""
        if self._is_off:
            return []
        self.plan(module, max_epochs)
        return [epoch - self.epoch_ for epoch in self.rounds_ or []]

    def left_out(self) -> list[str]:
        """Name the matrices that are not pruned."""
        return list(self.left_out_)

    def after_step(self, module: nn.Module, optimizer: Optimizer) -> None:
        """Set the pruned weights back to zero."""
        if self.masks_:
            self._apply(module)

    def _plan_anew(self) -> None:
        """Forget the rounds; the weights that each keeps are counted in the first."""
        self.epoch_ = 0
        self.rounds_: list[int] | None = None  # epochs of the rounds still to come
        self.counts_: list[int] | None = None

    def plan(self, module: nn.Module, max_epochs: int) -> None:
        """Fix the epochs of the rounds, unless that is done."""
        if self.rounds_ is None:
            self.rounds_ = []
            if self._n_present(module) != self._n_target(module):
                settings = self.pruning_rounds, self.pruning_start
                self.rounds_ = pruning_epochs(max_epochs, *settings)

    def begin_epoch(self, module: nn.Module) -> bool:
        """Prune if a round is due; return whether one was, or is still to come."""
        rounds = self.rounds_ or []
        n_due = sum(epoch <= self.epoch_ for epoch in rounds)
        self.epoch_ += 1
        self.rounds_ = rounds[n_due:]
        if n_due and (weights := self._trained(module)):
            if self.counts_ is None:
                self._check(module)
                present, target = self._n_present(module), self._n_target(module)
                self.counts_ = kept_counts(present, target, len(rounds))
            n_kept, self.counts_ = self.counts_[n_due - 1], self.counts_[n_due:]
            self._prune(module, weights, n_kept)
        return bool(rounds)

    def _prune(
        self, module: nn.Module, weights: dict[str, nn.Parameter], n_kept: int
    ) -> None:
        """Prune all but `n_kept` of the weights that are not frozen."""
        before = [
            self.masks_.get(name, torch.zeros_like(w, dtype=torch.bool))
            for name, w in weights.items()
        ]
        # Freezing between rounds may have taken some of the counted weights away.
        n_kept = max(len(weights), min(n_kept, self._n_present(module)))
        masks = smallest_weights(list(weights.values()), n_kept, before)
        self.masks_ |= dict(zip(weights, masks, strict=True))
        self._apply(module)

    def _trained(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """Return the weights that are not frozen."""
        weights = {name: module.get_parameter(name) for name in self.names_}
        return {name: w for name, w in weights.items() if w.requires_grad}

    def _n_present(self, module: nn.Module) -> int:
        """Count the weights that are neither frozen nor pruned."""
        weights = self._trained(module)
        n_pruned = sum(int(m.sum()) for n, m in self.masks_.items() if n in weights)
        return sum(w.numel() for w in weights.values()) - n_pruned

    def _n_target(self, module: nn.Module) -> int:
        """Count the weights to keep."""
        if self._is_off or self.compacted_ == self.target_density:
            return self._n_present(module)
        n_weights = sum(w.numel() for w in self._trained(module).values())
        return round((self.target_density or 1) * n_weights)

    def _check(self, module: nn.Module) -> None:
        """Refuse a density that leaves fewer weights than there are layers."""
        weights, n_target = self._trained(module), self._n_target(module)
        n_weights = sum(w.numel() for w in weights.values())
        if n_target < len(weights):
            raise ValueError(
                f"target_density={self.target_density:g} would keep {n_target} of "
                f"{n_weights} weights, not even one for each of {len(weights)} layers: "
                "the network would be pruned away. Keep at least "
                f"{math.ceil(1e6 * len(weights) / n_weights) / 1e6:g}."
            )

    def _apply(self, module: nn.Module) -> None:
        """Set the pruned weights to zero, unless they are frozen."""
        for name, mask in self.masks_.items():
            weight = module.get_parameter(name)
            if not weight.requires_grad:
                continue
            if mask.device != weight.device:
                self.masks_[name] = mask = mask.to(weight.device)
            weight.detach().masked_fill_(mask, 0.0)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "masks_" in state:
            state["masks_"] = {name: m.cpu() for name, m in state["masks_"].items()}
        return state


class PruningRounds(Callback):
    """Lead a pruning through the epochs, and early stopping past its last round."""

    def __init__(self, pruning: IterativePruning) -> None:
        self.pruning = pruning

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Plan the rounds, once."""
        self.pruning.plan(net.module_, net.max_epochs)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Prune where a round is due."""
        if self.pruning.begin_epoch(net.module_):
            forget_best(net)


def smallest_weights(
    weights: Sequence[Tensor], n_kept: int, pruned: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Mark all but the `n_kept` largest magnitudes among the weights of all layers.

    Of equal magnitudes the first stay, and of each layer the largest. `pruned` marks
    those that are gone already.

    >>> smallest_weights([torch.tensor([3.0, -4.0, 1.0]), torch.tensor([0.1, 0.2])], 3)
    [tensor([False, False,  True]), tensor([ True, False])]
    """
    sizes = [w.numel() for w in weights]
    magnitudes = [w.detach().abs().flatten() for w in weights]
    for layer, magnitude in enumerate(magnitudes):
        if pruned is not None:
            magnitude[pruned[layer].flatten().to(magnitude.device)] = -1.0
        magnitude[magnitude.argmax()] = math.inf
    scores = torch.cat(magnitudes)
    threshold = scores.topk(n_kept).values[-1]
    kept = scores > threshold
    ties = (scores == threshold).nonzero().flatten()
    kept[ties[: n_kept - int(kept.sum())]] = True
    masks = torch.split(~kept, sizes)
    return [mask.reshape(w.shape) for mask, w in zip(masks, weights, strict=True)]


def pruning_epochs(max_epochs: int, n_rounds: int, start: float) -> list[int]:
    """Return the epochs, counted from 0, that begin with a round of pruning.

    >>> pruning_epochs(20, n_rounds=4, start=0.2)
    [4, 6, 9, 12]
    """
    first = math.ceil(start * max_epochs)
    if first >= max_epochs:
        raise ValueError(
            f"max_epochs={max_epochs} leaves no epoch to fine-tune in after the first "
            f"round of pruning, at pruning_start={start:g}; train for longer or start "
            "earlier."
        )
    n_between = (max_epochs - first) // 2
    return [first + n_between * i // max(1, n_rounds - 1) for i in range(n_rounds)]


def kept_counts(n_present: int, n_target: int, n_rounds: int) -> list[int]:
    """Return the number of weights left after each round: the same share each time.

    >>> kept_counts(1000, 1, 3)
    [100, 10, 1]
    """
    ratio = n_target / n_present
    shares = [ratio ** ((round_ + 1) / n_rounds) for round_ in range(n_rounds)]
    counts = [max(n_target, round(n_present * share)) for share in shares]
    return [*counts[:-1], n_target]


def _same_parameters(one: IterativePruning, two: IterativePruning) -> bool:
    return all(
        same_value(value, two.get_params()[key])
        for key, value in one.get_params().items()
    )
