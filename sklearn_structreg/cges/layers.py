"""The weights that a penalty falls on, and how sparse they are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

from sklearn_structreg.core.schedules import forget_best
from sklearn_structreg.core.weights import running_weights

__all__ = [
    "SparsityRecorder",
    "count_parameters",
    "find_weights",
    "forget_best",
    "other_weights",
    "warn_of_other_weights",
    "weight_sparsity",
]

NAMES_SHOWN = 5


def find_weights(module: nn.Module, sample: Any) -> list[str]:
    """Name the weights of all layers that run, frozen or not, in forward order."""
    names = running_weights(module, sample)
    if not names:
        raise ValueError(
            "The module runs no linear, convolutional, recurrent or attention layer "
            "with a weight of its own, so there is no weight to penalise or to prune."
        )
    return names


def other_weights(module: nn.Module, names: Sequence[str]) -> list[str]:
    """Name all trainable matrices that are none of the named weights."""
    known = {id(module.get_parameter(name)) for name in names}
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
        and sum(size > 1 for size in parameter.shape) > 1
        and id(parameter) not in known
        and not _is_ours(module.get_submodule(name.rpartition(".")[0]))
    ]


def warn_of_other_weights(names: Sequence[str], verb: str) -> None:
    """Warn once of the matrices that a method leaves out."""
    if names:
        more = ", ..." if len(names) > NAMES_SHOWN else ""
        warnings.warn(
            "Only the weights of linear, convolutional, recurrent and attention layers "
            f"are {verb}, not {', '.join(names[:NAMES_SHOWN])}{more}.",
            UserWarning,
            stacklevel=2,
        )


def _is_ours(layer: nn.Module) -> bool:
    """Whether a layer is of this package: its other parameters are no weights."""
    return type(layer).__module__.startswith("sklearn_structreg.")


def weight_sparsity(
    module: nn.Module, names: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """Return the share of zeros in all weights that are not frozen, and in each one."""
    if not names:
        return 0.0, {}
    weights = [module.get_parameter(name) for name in names]
    zeros = torch.stack([(weight == 0).sum() for weight in weights]).tolist()
    sizes = [weight.numel() for weight in weights]
    trained = [weight.requires_grad for weight in weights]
    n_zeros = sum(n for n, counts in zip(zeros, trained, strict=True) if counts)
    n_weights = sum(n for n, counts in zip(sizes, trained, strict=True) if counts)
    shares = [zero / size for zero, size in zip(zeros, sizes, strict=True)]
    return n_zeros / max(1, n_weights), dict(zip(names, shares, strict=True))


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Count a network's learnable parameters, and those of them that are not zero."""
    learnable = [p for p in module.parameters() if p.requires_grad]
    n_nonzero = sum(int(torch.count_nonzero(p)) for p in learnable)
    return sum(p.numel() for p in learnable), n_nonzero


class SparsityRecorder(Callback):
    """Write ``sparsity`` and ``layer_sparsity``, a dict, into the history of a net."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Keep the dict out of the printed table and of loggers."""
        for _, callback in net.callbacks_:
            if hasattr(callback, "keys_ignored_"):
                callback.keys_ignored_.add("layer_sparsity")

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record."""
        total, per_weight = weight_sparsity(net.module_, self.names)
        net.history.record("sparsity", total)
        net.history.record("layer_sparsity", per_weight)
