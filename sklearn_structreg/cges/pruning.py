"""Iterative magnitude pruning: drop the smallest weights, train on, drop more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn

__all__ = [
    "Pruner",
    "PruningRounds",
    "kept_counts",
    "pruning_epochs",
    "restart_early_stopping",
    "smallest_weights",
]


def smallest_weights(
    weights: Sequence[Tensor], n_kept: int, pruned: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Mark all but the largest magnitudes among the weights of all layers together.

    Parameters
    ----------
    weights : sequence of Tensor
        The weights of each layer.
    n_kept : int
        How many to keep, from one per layer up to all that are not yet pruned.
    pruned : sequence of Tensor of bool, optional
        What is marked already and stays so.

    Returns
    -------
    list of Tensor of bool, shapes as `weights`
        True where a weight goes. Exactly `n_kept` entries are False: of equal
        magnitudes those that come first stay, and the largest of each layer always
        does, so that no layer is emptied.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.cges.pruning import smallest_weights
    >>> smallest_weights([torch.tensor([3.0, -4.0, 1.0]), torch.tensor([0.1, 0.2])], 3)
    [tensor([False, False,  True]), tensor([ True, False])]
    """
    sizes = [w.numel() for w in weights]
    magnitudes = [w.detach().abs().flatten() for w in weights]
    for layer, magnitude in enumerate(magnitudes):
        if pruned is not None:
            magnitude[pruned[layer].flatten()] = -1.0
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

    Parameters
    ----------
    max_epochs, n_rounds : int
        Length of the training and number of rounds, at least 1.
    start : float in [0, 1)
        Share of the epochs before the first round. The others are shared out equally:
        every round is followed by as many epochs of fine-tuning.

    Returns
    -------
    list of int
        One per round; where there are fewer epochs than rounds, some coincide.

    Raises
    ------
    ValueError
        If no epoch is left after the first round.

    Examples
    --------
    >>> from sklearn_structreg.cges.pruning import pruning_epochs
    >>> pruning_epochs(20, n_rounds=4, start=0.4)
    [8, 11, 14, 17]
    """
    first = math.ceil(start * max_epochs)
    if first >= max_epochs:
        raise ValueError(
            f"max_epochs={max_epochs} leaves no epoch to fine-tune in after the first "
            f"round of pruning, at pruning_start={start:g}; train for longer or start "
            "earlier."
        )
    return [
        first + (max_epochs - first) * round_ // n_rounds for round_ in range(n_rounds)
    ]


def kept_counts(n_present: int, n_target: int, n_rounds: int) -> list[int]:
    """Return how many weights are left after each round: the same share each time.

    Parameters
    ----------
    n_present, n_target : int
        Weights before the first round and after the last.
    n_rounds : int
        Number of rounds.

    Returns
    -------
    list of int

    Examples
    --------
    >>> from sklearn_structreg.cges.pruning import kept_counts
    >>> kept_counts(1000, 1, 3)
    [100, 10, 1]
    """
    ratio = n_target / n_present
    shares = [ratio ** ((round_ + 1) / n_rounds) for round_ in range(n_rounds)]
    counts = [max(n_target, round(n_present * share)) for share in shares]
    return [*counts[:-1], n_target]


@dataclass(eq=False)
class Pruner:
    """Which weights are pruned, and when the next ones are.

    Parameters
    ----------
    target_density : float in (0, 1]
        Share of the weights that is left after the last round.
    n_rounds : int
        Number of rounds.
    start : float in [0, 1)
        Share of the epochs before the first round.
    pruned_ : dict of str to Tensor of bool
        True where a weight is pruned, by parameter name; empty before the first round.
    compacted_ : float or None
        The target density for which the network was pruned before it was compacted.
    """

    target_density: float
    n_rounds: int
    start: float
    pruned_: dict[str, Tensor] = field(default_factory=dict)
    compacted_: float | None = None
    _names: list[str] = field(default_factory=list, init=False)
    _n_target: int = field(default=0, init=False)
    _rounds: list[tuple[int, int]] | None = field(default=None, init=False)
    _epoch: int = field(default=0, init=False)

    def check(self) -> None:
        """Check the parameters.

        Raises
        ------
        ValueError
            If one is out of its range.
        """
        density, start = self.target_density, self.start
        if not (isinstance(density, Real) and 0 < density <= 1):
            raise ValueError(
                f"target_density={density!r} must lie in (0, 1], the share of weights "
                "to keep."
            )
        if not (isinstance(self.n_rounds, Integral) and self.n_rounds >= 1):
            raise ValueError(
                f"pruning_rounds={self.n_rounds!r} must be an integer of at least 1."
            )
        if not (isinstance(start, Real) and 0 <= start < 1):
            raise ValueError(
                f"pruning_start={start!r} must lie in [0, 1), a share of the epochs."
            )

    def attach(self, module: nn.Module, names: Sequence[str]) -> None:
        """Check that the density can be had; forget masks that are too sparse for it.

        A network that has been compacted since it was pruned has lost most of its zeros
        with the weights. What zeros are left are held, and it is not pruned again for
        the same target.

        Raises
        ------
        ValueError
            If fewer weights would be left than there are layers.
        """
        self._names = list(names)
        weights = {name: module.get_parameter(name) for name in names}
        if any(
            mask.shape != weights[name].shape for name, mask in self.pruned_.items()
        ):
            self.pruned_ = {name: w.detach() == 0 for name, w in weights.items()}
            self.compacted_ = self.target_density
        if self.compacted_ == self.target_density:
            self._n_target = self._n_present(module)
            return
        n_weights = sum(w.numel() for w in weights.values())
        self._n_target = round(self.target_density * n_weights)
        if self._n_target < len(names):
            raise ValueError(
                f"target_density={self.target_density:g} would keep {self._n_target} "
                f"of {n_weights} weights, not even one for each of {len(names)} "
                "layers: the network would be pruned away. Keep at least "
                f"{math.ceil(1e6 * len(names) / n_weights) / 1e6:g}."
            )
        if self._n_present(module) < self._n_target:
            self.pruned_ = {}
        self.apply(module)

    def plan(self, module: nn.Module, max_epochs: int) -> None:
        """Fix the epoch and the size of every round, unless that is done."""
        if self._rounds is not None:
            return
        n_present = self._n_present(module)
        if n_present == self._n_target:
            self._rounds = []
            return
        epochs = pruning_epochs(max_epochs, self.n_rounds, self.start)
        counts = kept_counts(n_present, self._n_target, self.n_rounds)
        self._rounds = list(zip(epochs, counts, strict=True))

    def begin_epoch(self, module: nn.Module) -> bool:
        """Prune if a round is due; return whether one was, or is still to come."""
        rounds = self._rounds or []
        due = [n_kept for epoch, n_kept in rounds if epoch <= self._epoch]
        self._rounds = rounds[len(due) :]
        self._epoch += 1
        if due:
            weights = [module.get_parameter(name) for name in self._names]
            pruned = [self.pruned_[name] for name in self._names if self.pruned_]
            masks = smallest_weights(weights, due[-1], pruned or None)
            self.pruned_ = dict(zip(self._names, masks, strict=True))
            self.apply(module)
        return bool(rounds)

    def apply(self, module: nn.Module) -> None:
        """Set the pruned weights to zero, whatever the optimizer made of them."""
        for name, mask in self.pruned_.items():
            weight = module.get_parameter(name).detach()
            if mask.device != weight.device:
                self.pruned_[name] = mask = mask.to(weight.device)
            weight.masked_fill_(mask, 0.0)

    def _n_present(self, module: nn.Module) -> int:
        """Count the weights that are not pruned."""
        n_weights = sum(module.get_parameter(name).numel() for name in self._names)
        return n_weights - sum(int(mask.sum()) for mask in self.pruned_.values())

    def __getstate__(self) -> dict[str, Any]:
        pruned: Mapping[str, Tensor] = {k: v.cpu() for k, v in self.pruned_.items()}
        return self.__dict__ | {"pruned_": pruned}


class PruningRounds(Callback):
    """Lead a pruner through the epochs of a training.

    Until the last round early stopping starts anew with every epoch, so that it neither
    stops before the target is reached nor brings back denser weights.

    Parameters
    ----------
    pruner : Pruner
        Attached.
    """

    def __init__(self, pruner: Pruner) -> None:
        self.pruner = pruner

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Plan the rounds, once."""
        self.pruner.plan(net.module_, net.max_epochs)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Prune where a round is due."""
        if self.pruner.begin_epoch(net.module_):
            restart_early_stopping(net)


def restart_early_stopping(net: NeuralNet) -> None:
    """Let early stopping forget the epochs so far."""
    for _, callback in net.callbacks_:
        if isinstance(callback, EarlyStopping):
            callback.on_train_begin(net)
