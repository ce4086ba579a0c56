"""A trained network with all that is around it: raw rows in, probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sklearn_structreg.core.input_columns import InputColumns
from sklearn_structreg.core.task import Task

__all__ = ["OUTPUTS", "Deployed", "FoldedSteps", "TargetScale"]

OUTPUTS = {
    Task.CLASSES: ("probabilities", "label", "logits"),
    Task.LABELS: ("probabilities", "label", "logits"),
    Task.VALUES: ("prediction",),
}
"""Names of what a network can return, by the kind of its targets."""


@dataclass(frozen=True)
class TargetScale:
    """What turns outputs of a regressor into its predictions."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    one_dimensional: bool


class FoldedSteps(nn.Module):
    """Steps of a pipeline as one: take columns, fill gaps, shift and scale.

    Parameters
    ----------
    columns : ndarray of int, shape (n_columns,)
        The columns that are left, in any order; one may come several times.
    fill : ndarray of shape (n_columns,)
        The values in the place of NaN; NaN where there is no imputer.
    mean, factor : ndarray of shape (n_columns,)
        Subtracted, and multiplied by.
    inputs : InputColumns
        Columns before.
    shape : tuple of int
        That of a sample after.
    """

    columns: Tensor
    fill: Tensor
    mean: Tensor
    factor: Tensor

    def __init__(
        self,
        columns: NDArray[np.intp],
        fill: NDArray[np.float64],
        mean: NDArray[np.float64],
        factor: NDArray[np.float64],
        inputs: InputColumns,
        shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.inputs, self.shape = inputs, shape
        self.takes_all = np.array_equal(columns, np.arange(len(inputs.positions)))
        self.fills = not np.isnan(fill).all()
        self.register_buffer("columns", torch.from_numpy(columns.astype(np.int64)))
        self.register_buffer("fill", torch.from_numpy(fill))
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("factor", torch.from_numpy(factor))

    def forward(self, X: Tensor) -> Tensor:
        """Transform rows, (n, n_features)."""
        if not self.takes_all:
            X = X.index_select(1, self.columns)
        if self.fills:
            X = torch.where(X.isnan(), self.fill, X)
        X = (X - self.mean) * self.factor
        return X if len(self.shape) == 1 else X.reshape(-1, *self.shape)

    def inverse(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return rows that become these; zero in the columns that are not taken."""
        found = np.zeros((len(rows), len(self.inputs.positions)))
        flat = rows.reshape(len(rows), -1)
        found[:, self.columns.numpy()] = flat / self.factor.numpy() + self.mean.numpy()
        return found


class Deployed(nn.Module):
    """The network between the steps of a pipeline and the outputs that are asked for.

    Parameters
    ----------
    network : torch.nn.Module
        It returns logits, or standardized numbers.
    task : Task
        The kind of targets.
    outputs : sequence of str
        Names of `OUTPUTS`; a single one is returned as a tensor, several as a tuple.
    steps : FoldedSteps or None
        To apply first.
    target : TargetScale or None
        That of a regressor.
    """

    target_mean: Tensor
    target_scale: Tensor

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        outputs: Sequence[str],
        steps: FoldedSteps | None = None,
        target: TargetScale | None = None,
    ) -> None:
        super().__init__()
        self.steps, self.network = steps, network
        self.task, self.outputs = task, tuple(outputs)
        if target is not None:
            self.one_dimensional = target.one_dimensional
            self.register_buffer("target_mean", torch.from_numpy(target.mean))
            self.register_buffer("target_scale", torch.from_numpy(target.scale))

    def forward(self, X: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the outputs for rows."""
        if self.steps is not None:
            X = self.steps(X)
        logits = self.network(X)
        found = tuple(self._output(name, logits) for name in self.outputs)
        return found if len(found) > 1 else found[0]

    def _output(self, name: str, logits: Tensor) -> Tensor:
        several = self.task is Task.LABELS
        if name == "probabilities":
            return logits.sigmoid() if several else logits.softmax(dim=1)
        if name == "label":
            return (logits > 0).long() if several else logits.argmax(dim=1)
        if name == "logits":
            return logits.clone()  # an output of its own, also beside no other
        values: Tensor = logits * self.target_scale + self.target_mean
        return values[:, 0] if self.one_dimensional else values
