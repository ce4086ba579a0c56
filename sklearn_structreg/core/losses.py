"""Losses that take sample weights."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.core.messages import explaining, shown
from sklearn_structreg.core.task import Task

__all__ = ["WeightedLoss", "default_loss"]


def default_loss(task: Task, outputs: Tensor, target: Tensor) -> Tensor:
    """Return the usual loss of every row, (n,) or (n, n_outputs)."""
    if task is Task.CLASSES:
        return functional.cross_entropy(outputs, target, reduction="none")
    if task is Task.LABELS:
        return functional.binary_cross_entropy_with_logits(
            outputs, target, reduction="none"
        ).sum(dim=1)
    return functional.mse_loss(outputs, target, reduction="none")


class WeightedLoss(nn.Module):
    """Mean of weight times loss over the rows of a mini-batch.

    The weights have mean one over the training set, so dividing by the number of rows
    keeps every mini-batch's gradient an unbiased estimate of the weighted one, and a
    batch that holds the whole set gives the weighted mean itself.

    Parameters
    ----------
    task : Task
        Its usual loss stands in for `criterion` None: cross entropy, the sum of the
        labels' binary cross entropies, or the mean squared error of the targets.
    criterion : None, torch loss class or instance, or callable
        Called with outputs and targets; returns a loss for each row (and output), or,
        where there are no weights, their mean.
    """

    def __init__(self, task: Task, criterion: Any = None) -> None:
        super().__init__()
        self.task, self.criterion = task, _unreduced(criterion)

    @property
    def name(self) -> str:
        """The criterion in an error message."""
        return shown(self.criterion)

    def forward(
        self, outputs: Tensor, target: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """Return the mean loss of a mini-batch."""
        if self.task is not Task.CLASSES:
            target = target.to(outputs.dtype)
        if self.criterion is None:
            if weight is None and self.task is Task.CLASSES:
                return functional.cross_entropy(outputs, target)
            losses = default_loss(self.task, outputs, target)
        else:
            with explaining(f"criterion={self.name} fails: {{}}."):
                losses = self.criterion(outputs, target)
            if not (isinstance(losses, Tensor) and losses.is_floating_point()):
                raise ValueError(
                    f"criterion={self.name} returns {shown(losses)}; it must return a "
                    "tensor of floating-point numbers, a loss for each row."
                )
        if losses.ndim == 0 and weight is None:
            return losses
        if losses.shape[:1] != outputs.shape[:1]:
            raise ValueError(
                f"criterion={self.name} returns a loss of shape "
                f"{tuple(losses.shape)} for {len(outputs)} rows, to which sample "
                "weights cannot be applied; return one loss per row, as torch's losses "
                "do with reduction='none'."
            )
        if losses.ndim > 1:
            losses = losses.flatten(1).mean(dim=1)
        return (losses if weight is None else losses * weight).mean()


def _unreduced(criterion: Any) -> Any:
    """Make a loss class an instance, and let torch's losses return one per row."""
    if inspect.isclass(criterion):
        made: Any = criterion
        with explaining(f"criterion={shown(criterion)} cannot be made: {{}}."):
            takes = inspect.signature(criterion).parameters
            return made(reduction="none") if "reduction" in takes else made()
    if isinstance(criterion, nn.Module):
        criterion = copy.deepcopy(criterion)  # it may learn, too
        if hasattr(criterion, "reduction"):
            criterion.reduction = "none"
    return criterion
