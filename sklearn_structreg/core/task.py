"""The three kinds of targets: a class, several labels, or numbers."""

from __future__ import annotations

from enum import Enum

from torch import Tensor

__all__ = ["Task"]


class Task(Enum):
    """The meaning of a network's outputs, (n, n_outputs)."""

    CLASSES = "classes"
    """Logits, of which the softmax is the probability of each class."""
    LABELS = "labels"
    """Logits, each of a label that a sample may have beside others."""
    VALUES = "values"
    """Numbers, as standardized targets."""

    @property
    def output(self) -> str:
        """One output in words."""
        return {"classes": "logit per class", "labels": "logit per label"}.get(
            self.value, "number per target"
        )

    def to_prediction(self, outputs: Tensor) -> Tensor:
        """Return the probabilities, or the numbers, that outputs stand for."""
        if self is Task.CLASSES:
            return outputs.softmax(dim=-1)
        return outputs.sigmoid() if self is Task.LABELS else outputs

    def hits(self, outputs: Tensor, target: Tensor) -> Tensor | None:
        """Mark the rows that are right in all their labels; None for numbers."""
        if self is Task.VALUES:
            return None
        if self is Task.LABELS:
            return ((outputs > 0) == (target > 0)).all(dim=1)
        return outputs.argmax(dim=1) == target
