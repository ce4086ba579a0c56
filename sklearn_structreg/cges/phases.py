"""The phases of a training with a penalty: it rises, stays, and rests for a refit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skorch import NeuralNet
from skorch.callbacks import Callback

from sklearn_structreg.cges.layers import forget_best
from sklearn_structreg.cges.targets import target_of

if TYPE_CHECKING:
    from sklearn_structreg.cges.regularizer import CGES

__all__ = ["Phases"]


class Phases(Callback):
    """Lead the strength through the epochs, and early stopping past its changes."""

    is_schedule = True  # `partial_fit` has no last epoch

    def __init__(self, penalty: CGES) -> None:
        self.penalty = penalty

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Count the epochs from here."""
        self.first_ = len(net.history)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Set the strength; with it the objective changes."""
        epoch, before = len(net.history) - 1 - self.first_, self.penalty.strength_
        self.penalty.strength_ = self.strength(epoch, net.max_epochs)
        if self._refits(epoch, net.max_epochs):
            self._fix_zeros(net)
        if self.penalty.strength_ != before:
            forget_best(net)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Penalise at alpha again: `partial_fit` knows no last epoch."""
        self.penalty.strength_ = float(self.penalty.alpha)
        if target_of(self.penalty) is None:
            self.penalty.fixed_ = {}

    def strength(self, epoch: int, max_epochs: int) -> float:
        """Return the strength after so many epochs of those that may be."""
        if self._refits(epoch, max_epochs):
            return 0.0
        start, alpha = self.penalty.start_, float(self.penalty.alpha)
        n_ramp = self.penalty.ramp * max_epochs
        share = min(1.0, (epoch + 1) / n_ramp) if n_ramp else 1.0
        return start + share * (alpha - start)

    def _refits(self, epoch: int, max_epochs: int) -> bool:
        first = max_epochs - round(self.penalty.refit * max_epochs)
        return epoch >= first and self.penalty.penalty != "l2"

    def _fix_zeros(self, net: NeuralNet) -> None:
        """Keep the zeros that are there when the refit begins."""
        if not self.penalty.fixed_ and target_of(self.penalty) is None:
            for name in self.penalty.names:
                weight = net.module_.get_parameter(name).detach()
                self.penalty.fixed_[name] = weight == 0
