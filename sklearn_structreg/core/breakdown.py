"""A training that breaks off: the reason, in a sentence that says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklearn_structreg.core.standardization import Standardize

if TYPE_CHECKING:
    from sklearn_structreg.core.net import StructuredNet

__all__ = ["diverged", "missing_figure", "reason_of"]


def reason_of(error: Exception, net: StructuredNet) -> str | None:
    """Return the reason for an error of a training, or None where it says it itself."""
    weights = [*net.module_.parameters()]
    learned = any(weight.requires_grad for weight in weights)
    if "require grad" in str(error) and not learned:
        return (
            "A callback has frozen all weights, which leaves nothing to train; let one "
            "layer learn, or leave the callback out."
        )
    finite = all(bool(weight.isfinite().all()) for weight in weights)
    if finite or "non-finite" in str(error):
        return None
    return diverged(net, len(net.history))


def diverged(net: StructuredNet, epoch: int, loss: str = "training") -> str:
    """Return the message for a loss that is not finite any more."""
    rate = net.optimizer_.param_groups[0]["lr"]
    raw = not any(isinstance(part, Standardize) for part in net.module_.modules())
    return (
        f"The {loss} loss became non-finite in epoch {epoch} with "
        f"learning_rate={rate:g}; lower learning_rate"
        f"{', or set standardize=True' if raw else ''}."
    )


def missing_figure(error: Exception, net: StructuredNet) -> str | None:
    """Name the figures of the history, where a callback has looked for another."""
    if "history" not in str(error):
        return None
    figures = ", ".join(key for key in net.history[-1] if key != "batches")
    return (
        f"A callback found no such figure: {error.args[0]} The epochs have {figures}."
    )
