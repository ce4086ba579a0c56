"""Blockout, and dropout beside it, as `Regularizer`s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from skorch.callbacks import Callback
from torch import Tensor, nn

from sklearn_structreg.blockout.conversion import (
    DropoutLinear,
    blockout_layers,
    convert,
    insert_dropout,
    node_sets,
)
from sklearn_structreg.blockout.recorder import ProbabilityRecorder
from sklearn_structreg.core import Regularizer

__all__ = ["BlockoutRegularizer", "DropoutRegularizer", "check_same_structure"]


@dataclass(eq=False)
class BlockoutRegularizer(Regularizer):
    """Train a network's linear chain with Blockout.

    Parameters
    ----------
    n_clusters, assignment, learn_probabilities, init_probability, mask_per, layers
        As in `BlockoutClassifier`.
    logit_learning_rate : float or None, default=None
        Of the logits; None takes the optimizer's.
    """

    n_clusters: int = 6
    _: KW_ONLY
    assignment: str = "hard"
    learn_probabilities: bool = True
    init_probability: float = 0.5
    mask_per: str = "batch"
    layers: str | Sequence[str] = "auto"
    logit_learning_rate: float | None = None

    def attach(self, module: nn.Module, sample_batch: Tensor) -> nn.Module:
        """Convert the chain; a module with Blockout layers stays as it is."""
        if blockout_layers(module):
            return module
        return convert(
            module,
            sample_batch,
            layers=self.layers,
            n_clusters=self.n_clusters,
            assignment=self.assignment,
            learn_probabilities=self.learn_probabilities,
            init_probability=self.init_probability,
            mask_per=self.mask_per,
        )

    def param_groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """Give the logits a learning rate of their own, and no weight decay."""
        learned = [nodes.logits for nodes in node_sets(module)]
        logits = [p for p in learned if isinstance(p, nn.Parameter)]
        group: dict[str, Any] = {"params": logits, "weight_decay": 0.0}
        if self.logit_learning_rate is not None:
            group["lr"] = self.logit_learning_rate
        return [group] if logits else []

    def callbacks(self) -> list[tuple[str, Callback]]:
        """Record the probabilities in the history."""
        return [("probabilities", ProbabilityRecorder())]


@dataclass(eq=False)
class DropoutRegularizer(Regularizer):
    """Train a network with dropout between the layers of its linear chain.

    Parameters
    ----------
    drop_rate, layers
        As in `BlockoutClassifier`.
    """

    drop_rate: float = 0.5
    layers: str | Sequence[str] = "auto"

    def attach(self, module: nn.Module, sample_batch: Tensor) -> nn.Module:
        """Insert the dropout where there is none yet."""
        if any(isinstance(part, DropoutLinear) for part in module.modules()):
            return module
        return insert_dropout(module, sample_batch, self.drop_rate, layers=self.layers)


def check_same_structure(before: Regularizer, after: Regularizer) -> None:
    """Check that training can go on with another regularizer in the same layers.

    Parameters
    ----------
    before, after : Regularizer
        The one that the layers were made by, and the one to go on with.

    Raises
    ------
    ValueError
        If they would make other layers. The learning rate of the logits may differ.
    """
    if type(before) is not type(after):
        raise ValueError(
            "A warm start goes on with the network's own layers, so that regularizer "
            "cannot change; set it back, or warm_start to False to fit anew."
        )
    for name, new in vars(after).items():
        old = vars(before)[name]
        if old != new and name != "logit_learning_rate":
            raise ValueError(
                f"A warm start goes on with the network's own layers, so that {name} "
                f"cannot change from {old!r} to {new!r}; set it back, or warm_start to "
                "False to fit anew."
            )
