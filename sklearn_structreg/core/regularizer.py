"""Regularizer: the whole of a method, as a small scikit-learn component."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import validate_parameter_constraints
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from sklearn_structreg.core.parameters import component
from sklearn_structreg.core.site import OnSite

__all__ = ["Regularizer", "check_unchanged", "learning_rates", "on_device"]


@component
class Regularizer(OnSite, BaseEstimator):
    """A method: its influence on a network and on the training; by default none.

    A subclass declares its parameters and overrides the hooks that it needs. They run
    in the order in which they stand here. Fitted attributes end in an underscore and
    hold names of layers, not the layers themselves: a regularizer is pickled beside
    its network.

    See Also
    --------
    StructuredClassifier : Trains with one regularizer or several.
    RegularizerCallback : Puts one into a skorch net.

    Examples
    --------
    A regularizer that keeps every weight inside an interval:

    >>> import torch
    >>> from sklearn_structreg.core import Regularizer, StructuredClassifier
    >>> from sklearn_structreg.core.parameters import component, parameter
    >>> @component
    ... class Box(Regularizer):
    ...     bound: float = parameter(0.5, [float], "float", "Largest magnitude.")
    ...     def after_step(self, module, optimizer):
    ...         for weight in module.parameters():
    ...             weight.detach().clamp_(-self.bound, self.bound)
    >>> X, y = torch.eye(4), [0, 1, 0, 1]
    >>> net = StructuredClassifier(regularizers=[Box()], max_epochs=5).fit(X, y)
    >>> max(float(p.detach().abs().max()) for p in net.module_.parameters()) <= 0.5
    True
    """

    zeroes_weights: ClassVar[bool] = False
    """Whether a weight can end at exactly zero: asked where a layer has lost all."""

    can_stack: ClassVar[bool] = True
    """Whether it keeps the network's layers during a training, so that networks of one
    shape can be trained in one."""

    def attach(self, module: nn.Module, sample: Any) -> nn.Module:
        """Prepare a fresh network: look up, replace or insert layers.

        Parameters
        ----------
        module : torch.nn.Module
            The network, on its device; it may be changed in place.
        sample : torch.Tensor of shape (n, ...)
            A few training rows as the network takes them.

        Returns
        -------
        torch.nn.Module
            The network to train: `module`, or its replacement.
        """
        return module

    def resume(self, previous: Any, module: nn.Module) -> nn.Module:
        """Take over from `previous`, instead of `attach`, where a network trains on.

        That is so in warm starts, in `partial_fit` after `set_params`, in later
        stages and along paths of strengths. By default all fitted attributes of
        `previous` are taken over.

        Parameters
        ----------
        previous : Regularizer
            Of the same class; attached to `module`.
        module : torch.nn.Module
            The network, with the layers of `previous`.

        Returns
        -------
        torch.nn.Module
            The network to train.

        Raises
        ------
        ValueError
            If a parameter has changed that the layers of `previous` depend on.
        """
        fitted = {k: v for k, v in vars(previous).items() if k.endswith("_")}
        self.__dict__.update(fitted)
        return module

    def param_groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """Return optimizer groups for the parameters that need other settings.

        Parameters
        ----------
        module : torch.nn.Module
            The attached network.

        Returns
        -------
        list of dict
            As torch optimizers take them: ``{"params": [...], "weight_decay": 0}``. The
            further key ``"lr_factor"`` is a multiple of the common learning rate, and
            ``"adaptive_lr_factor"`` takes its place for all optimizers but SGD. All
            other parameters form the first group.
        """
        return []

    def penalty(self, module: nn.Module) -> Tensor | None:
        """Return a term to add to every training loss, or None.

        Parameters
        ----------
        module : torch.nn.Module
            The attached network.
        """
        return None

    def after_step(self, module: nn.Module, optimizer: Optimizer) -> None:
        """Change the network in place, right after every optimizer step.

        Parameters
        ----------
        module : torch.nn.Module
            The attached network.
        optimizer : torch.optim.Optimizer
            Its groups hold the learning rates of the step: see `learning_rates`.
        """

    @classmethod
    def after_stacked_step(cls, members: Sequence[Any], optimizer: Any) -> bool:
        """Change all networks of a stack after a step, as `after_step` would each.

        Parameters
        ----------
        members : sequence of regularizers of this class
            That of each network, in order.
        optimizer : StackedOptimizer
            Its `nets`, and its `pieces`: stacked weights and whose they are.

        Returns
        -------
        bool
            Whether it has done so; by default not, and `after_step` is called for each.
        """
        return False

    def penalty_value(self, module: nn.Module) -> float:
        """Return the value of a penalty that `after_step` minimises; 0 without one.

        Early stopping watches the loss of the held-out samples and this.

        Parameters
        ----------
        module : torch.nn.Module
            The attached network.
        """
        return 0.0

    def before_validation(self, module: nn.Module) -> None:
        """Settle the network after an epoch's last step, before it is validated.

        Parameters
        ----------
        module : torch.nn.Module
            The attached network.
        """

    def callbacks(self) -> Sequence[tuple[str, Callback]]:
        """Return named skorch callbacks, for work at epoch boundaries."""
        return []

    def schedule_starts(self, module: nn.Module, max_epochs: int) -> Sequence[int]:
        """Return the epochs at which a schedule of the learning rate begins anew.

        Asked for when a training begins. Each stage between them has `lr_schedule` over
        its own epochs, so that a changed network trains on at a high rate.

        Parameters
        ----------
        module : torch.nn.Module
            The attached network.
        max_epochs : int
            Those that the training may take.

        Returns
        -------
        sequence of int
            Counted from 0, the first epoch of this training; by default none.
        """
        return []

    def simplify(self, module: nn.Module) -> nn.Module:
        """Return a plain network with the same outputs in evaluation mode.

        Called where a network is compacted or exported: masks are folded into
        weights, and layers that act in training only are taken out.

        Parameters
        ----------
        module : torch.nn.Module
            A copy of the trained network; it may be changed in place.

        Returns
        -------
        torch.nn.Module
        """
        return module

    def remedy(self) -> str | None:
        """Return a change of parameters that makes the method milder.

        Asked for where a training has learned nothing, for its warning.

        Returns
        -------
        str or None
            Like "lower alpha=10"; by default for `alpha` or `drop_rate`, whichever the
            method has. None where the method is off.
        """
        for name in ("alpha", "drop_rate"):
            value = getattr(self, name, 0)
            if value > 0:
                return f"lower {name}={value:g}"
        return None

    def remedy_if_idle(self, module: nn.Module) -> str | None:
        """Return a change of parameters if the method has had no effect at all.

        Asked for at the end of a training, for a warning.

        Parameters
        ----------
        module : torch.nn.Module
            The trained network.

        Returns
        -------
        str or None
            Like "lower start_epoch=20"; by default None.
        """
        return None

    def left_out(self) -> Sequence[str]:
        """Name the trainable matrices that the method should act on and cannot.

        `size_report` names them, too.
        """
        return []

    def fitted_state(self) -> dict[str, Any]:
        """Return the state that `attach` and the training have set, for a file.

        Returns
        -------
        dict of str to object
            By default the attributes that end in an underscore. A file holds None,
            bool, numbers, str, arrays, tensors, and lists, tuples, sets and
            dictionaries of such; others need this method and `restore`.
        """
        return {name: value for name, value in vars(self).items() if name[-1] == "_"}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `fitted_state` returned, on the network that it is of.

        Parameters
        ----------
        state : dict of str to object
            Its tensors are on the CPU.
        """
        self.__dict__.update(state)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: on_device(value, "cpu") for name, value in state.items()}

    def check_parameters(self) -> None:
        """Check the parameters that do not depend on a network.

        Raises
        ------
        InvalidParameterError
            A `ValueError`, for the first one that is out of its range.
        """
        params = self.get_params(deep=False)
        name = type(self).__name__
        validate_parameter_constraints(self._parameter_constraints, params, name)


def on_device(value: Any, device: str) -> Any:
    """Move fitted tensors: pickles, on the CPU, load on any machine."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: on_device(part, device) for key, part in value.items()}
    return value


def learning_rates(optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    """Return each parameter's optimizer group, by ``id(parameter)``."""
    return {id(p): group for group in optimizer.param_groups for p in group["params"]}


def check_unchanged(previous: Any, current: Any, names: Sequence[str]) -> None:
    """Refuse a change of parameters that the network's layers depend on.

    Raises
    ------
    ValueError
        For the first of `names` that differs.
    """
    for name in names:
        old, new = getattr(previous, name), getattr(current, name)
        if not same_value(old, new):
            raise ValueError(
                f"A warm start goes on with the network's own layers, so {name} cannot "
                f"change from {old!r} to {new!r}; set it back, or set warm_start=False "
                "to fit anew."
            )


def same_value(one: Any, two: Any) -> bool:
    """Compare parameters that may be arrays, graphs, sequences or estimators."""
    if one is two:
        return True
    if type(one) is type(two) and isinstance(one, BaseEstimator):
        theirs = two.get_params(deep=False)
        mine = one.get_params(deep=False)
        return all(same_value(mine[name], theirs[name]) for name in mine)
    if sp.issparse(one) or sp.issparse(two):
        return (
            type(one) is type(two) and one.shape == two.shape and not (one != two).nnz
        )
    if isinstance(one, Sequence) and isinstance(two, Sequence):
        pairs = zip(one, two, strict=False)
        return len(one) == len(two) and (
            one == two if isinstance(one, str) else all(same_value(*p) for p in pairs)
        )
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        return bool(np.array_equal(one, two))
    return bool(one == two)
