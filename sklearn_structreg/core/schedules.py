"""Schedules of the learning rate, which may begin anew within a training."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import EarlyStopping, LRScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau
from torch.optim.lr_scheduler import LRScheduler as TorchScheduler

from sklearn_structreg.core.messages import explaining, shown

__all__ = ["RateSchedule", "forget_best"]

Schedule = str | Callable[[Optimizer, int], TorchScheduler]
"""A schedule's name, "cosine", or what makes one for so many epochs."""


class RateSchedule(LRScheduler):
    """Set the learning rate of every epoch, by a schedule for each stage.

    The stages begin with the training and at the epochs that its regularizers name.
    """

    def __init__(self, policy: Schedule) -> None:
        super().__init__(policy)

    lr_scheduler_: StagedScheduler

    def initialize(self) -> RateSchedule:
        """Look up no class of that name in skorch."""
        return self

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Make the schedule of the first stage; a warm start begins anew."""
        n_epochs = net.max_epochs
        starts = net.regularizers.schedule_starts(net.module_, n_epochs)
        bounds = [*sorted({n for n in starts if 0 < n < n_epochs}), n_epochs]
        self.lr_scheduler_ = StagedScheduler(self.policy, net.optimizer_, bounds)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the epoch's rate, and set the next one's."""
        self._record_last_lr(net, kind="epoch")
        self.lr_scheduler_.step(net.history[-1, "train_loss"])


class StagedScheduler:
    """torch schedulers one after the other, each from the initial rates on.

    `bounds` are the epochs at which stages end, counted from 0.
    """

    def __init__(
        self, schedule: Schedule, optimizer: Optimizer, bounds: Sequence[int]
    ) -> None:
        self.schedule, self.optimizer, self.bounds = schedule, optimizer, bounds
        self.epoch = 0
        for group in optimizer.param_groups:  # ReduceLROnPlateau would note no rate
            group.setdefault("initial_lr", group["lr"])
        self.scheduler = self._stage()

    def _stage(self) -> Any:
        """Make the scheduler of the present stage, for its number of epochs."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        at = bisect_right(self.bounds[:-1], self.epoch)
        n_epochs = self.bounds[at] - (self.bounds[at - 1] if at else 0)
        if not callable(self.schedule):
            return CosineAnnealingLR(self.optimizer, T_max=n_epochs)
        wanted = "a callable (optimizer, n_epochs) must return a torch scheduler."
        with explaining(f"lr_schedule={shown(self.schedule)} fails: {{}}; {wanted}"):
            scheduler = self.schedule(self.optimizer, n_epochs)
        if not hasattr(scheduler, "step"):
            raise ValueError(f"lr_schedule returned {shown(scheduler)}; {wanted}")
        return scheduler

    def step(self, loss: float) -> None:
        """Go on to the next epoch, and at its bound to the next stage."""
        self.epoch += 1
        if self.epoch in self.bounds[:-1]:
            self.scheduler = self._stage()
        elif isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss)
        else:
            self.scheduler.step()

    def get_last_lr(self) -> list[float]:
        """Return the rates of the present epoch."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, and the state of its stage's scheduler."""
        return {"epoch": self.epoch, "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to an epoch; the optimizer, whose rates stay, is there already."""
        self.epoch = state["epoch"]
        groups = self.optimizer.param_groups
        before = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        self.scheduler = self._stage()
        self.scheduler.load_state_dict(state["scheduler"])
        for group, settings in zip(groups, before, strict=True):
            group.update(settings)


def forget_best(net: NeuralNet) -> None:
    """Let early stopping begin anew, where losses do not compare with earlier ones."""
    for _, callback in net.callbacks_:
        if isinstance(callback, EarlyStopping):
            callback.on_train_begin(net)
