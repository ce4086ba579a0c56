"""The narrow waist: what a method supplies to the core, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skorch.callbacks import Callback
from torch import Tensor, nn

__all__ = ["Regularizer"]


class Regularizer:
    """What a method may do to a network and its training; by default nothing.

    A method subclasses this and overrides what it needs. The net calls the hooks in
    the order in which they stand here. A regularizer is pickled with the net, so it
    keeps names of layers, not the layers themselves.

    Examples
    --------
    A regularizer that keeps every weight inside the unit interval:

    >>> import torch
    >>> from sklearn_structreg.core import Regularizer
    >>> class Box(Regularizer):
    ...     def after_step(self, module, lr):
    ...         for parameter in module.parameters():
    ...             parameter.detach().clamp_(-1, 1)
    >>> layer = torch.nn.Linear(2, 1)
    >>> with torch.no_grad():
    ...     _ = layer.weight.fill_(3.0)
    >>> Box().after_step(layer, lr=0.1)
    >>> layer.weight.tolist()
    [[1.0, 1.0]]
    """

    def attach(self, module: nn.Module, sample_batch: Tensor) -> nn.Module:
        """Return the module to train: layers looked up, replaced or inserted.

        Parameters
        ----------
        module : torch.nn.Module
            The user's or the default network, already on its device.
        sample_batch : torch.Tensor of shape (n, ...)
            A few training rows, for methods that must run the module once.

        Returns
        -------
        torch.nn.Module
            `module` itself or what replaces it.
        """
        return module

    def param_groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """Return optimizer groups for the parameters that need other settings.

        Parameters
        ----------
        module : torch.nn.Module
            The attached module.

        Returns
        -------
        list of dict
            As torch optimizers take them: ``{"params": [...], "weight_decay": 0}``.
            All other parameters form the first group, with the common settings.
        """
        return []

    def callbacks(self) -> Sequence[tuple[str, Callback]]:
        """Return the skorch callbacks that this method needs at epoch boundaries."""
        return []

    def after_step(self, module: nn.Module, lr: float) -> None:
        """Change `module` in place, right after every optimizer step.

        Parameters
        ----------
        module : torch.nn.Module
            The attached module.
        lr : float
            The learning rate that this step used (of the first parameter group).
        """

    def after_training_epoch(self, module: nn.Module) -> None:
        """Settle what is pending after an epoch's last step, before it is validated.

        Parameters
        ----------
        module : torch.nn.Module
            The attached module.
        """
