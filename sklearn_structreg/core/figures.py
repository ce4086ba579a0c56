"""The figures of an epoch: mean loss and accuracy, read from the device at its end."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sklearn_structreg.core.batches import Batch
from sklearn_structreg.core.task import Task

__all__ = ["EpochFigures"]


class EpochFigures:
    """Losses of mini-batches; for a task also the shares of rows that are right."""

    def __init__(self, task: Task | None) -> None:
        self.task = task
        self.losses: list[Tensor] = []
        self.shares: list[Tensor] = []
        self.sizes: list[int] = []

    def add(self, batch: Batch, step: dict[str, Tensor]) -> None:
        """Add the result of a step."""
        _, y, weight = batch
        self.losses.append(step["loss"])
        self.sizes.append(len(y))
        hits = self.task and self.task.hits(step["y_pred"], y)
        if hits is not None:
            hits = hits.to(step["loss"].dtype)
            self.shares.append((hits if weight is None else hits * weight).mean())

    def by_batch(self) -> Iterator[tuple[float, int]]:
        """Yield loss and size of every mini-batch."""
        yield from zip(torch.stack(self.losses).tolist(), self.sizes, strict=True)

    def loss(self) -> float:
        """Return the mean loss over rows."""
        return self._mean(self.losses)

    def accuracy(self) -> float | None:
        """Return the share of rows that are right; None if they were not counted."""
        return self._mean(self.shares) if self.shares else None

    def _mean(self, values: list[Tensor]) -> float:
        rows = torch.tensor(self.sizes, dtype=torch.float64)
        return float(torch.stack(values).cpu().double() @ rows / rows.sum())
