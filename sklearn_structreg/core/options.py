"""Training: the options of a training that are rarely set, as one component."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from numbers import Real
from typing import Any

import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor
from torch.utils.data import DataLoader

from sklearn_structreg.core.messages import shown
from sklearn_structreg.core.parameters import component, parameter
from sklearn_structreg.core.site import OnSite

__all__ = ["Training"]

OWN_SETTINGS = {"lr": "learning_rate"} | {n: n for n in ("momentum", "weight_decay")}
OWN_LOADING = (
    *("dataset", "batch_size", "shuffle", "sampler", "batch_sampler", "drop_last"),
    *("collate_fn", "generator", "worker_init_fn"),
)


@component
class Training(OnSite, BaseEstimator):
    """Options of a training beside the parameters of the estimators.

    Pass it as an estimator's parameter `training`; a grid search reaches its parameters
    as ``training__precision`` and the like.

    Parameters
    ----------
    {parameters}

    Notes
    -----
    All of them act in `fit` and `partial_fit` alone: predictions are in `dtype`, of the
    network as it is.

    With `average_weights` the network is the average after every epoch: validation,
    early stopping, callbacks and predictions see it, while the optimizer goes on from
    the weights of its own last step. Weights that are exactly zero stay so.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg import CGESClassifier
    >>> from sklearn_structreg.core import Training
    >>> X, y = load_digits(return_X_y=True)
    >>> training = Training(clip_grad_norm=1.0, average_weights=0.99)
    >>> net = CGESClassifier(max_epochs=10, training=training, random_state=0)
    >>> net.set_params(training__optimizer_params={"nesterov": True})
    CGESClassifier(max_epochs=10, random_state=0,
                   training=Training(average_weights=0.99, clip_grad_norm=1.0,
                                     optimizer_params={'nesterov': True}))
    >>> net.fit(X, y).score(X, y) > 0.95
    True
    """

    optimizer_params: Mapping[str, Any] | None = parameter(
        None,
        [dict, None],
        "dict or None",
        """Further keyword arguments of the optimizer, such as ``{"nesterov": True}`` or
        ``{"betas": (0.9, 0.99)}``. As in skorch, ``{"param_groups": [("0.*", {"lr":
        1e-4})]}`` sets some for the parameters whose names match a pattern, each for
        the first one that it matches.""",
    )
    clip_grad_norm: float | None = parameter(
        None,
        [Interval(Real, 0, None, closed="neither"), None],
        "float or None",
        "The largest norm of all gradients together; longer ones are scaled to it.",
    )
    average_weights: float | None = parameter(
        None,
        [Interval(Real, 0, 1, closed="neither"), None],
        "float in (0, 1) or None",
        """Decay per step of an exponential moving average of the weights, such as
        0.999; lower in the first steps.""",
    )
    precision: str = parameter(
        "float32",
        [StrOptions({"float32", "bfloat16"})],
        '{"float32", "bfloat16"}',
        """"bfloat16" runs the training's forward passes in mixed precision
        (`torch.autocast`); the weights keep their own.""",
    )
    compile: bool = parameter(
        False,
        ["boolean"],
        "bool",
        """Whether `torch.compile` compiles the network for the training, which takes
        tens of seconds and a C++ compiler.""",
    )
    augment: Callable[[Tensor], Tensor] | None = parameter(
        None,
        [callable, None],
        "callable or None",
        """Called with the samples of every training mini-batch, a tensor of shape
        (batch_size, ...) on the training device before standardization; returns those
        to train on, of the same shape. torchvision's v2 transforms are such. What it
        draws from torch's generators follows from `random_state`.""",
    )
    loader_params: Mapping[str, Any] | None = parameter(
        None,
        [dict, None],
        "dict or None",
        """Keyword arguments of torch's `DataLoader`, such as ``{"num_workers": 2}``,
        where X is a `Dataset`.""",
    )

    def check(self, optimizer: type[torch.optim.Optimizer], dtype: str) -> None:
        """Check the parameters, also against those of an estimator.

        Raises
        ------
        ValueError
            For the first that cannot be used.
        """
        self._validate_params()
        known = {*inspect.signature(optimizer).parameters} - {"params"}
        settings = dict(self.optimizer_params or {})
        check_groups(settings.pop("param_groups", []), optimizer, known)
        for name in settings:
            if name in OWN_SETTINGS:
                raise ValueError(
                    f"optimizer_params holds {name!r}; set the estimator's "
                    f"{OWN_SETTINGS[name]} in its place."
                )
            if name not in known:
                raise ValueError(
                    f"optimizer_params holds {name!r}, which {optimizer.__name__} "
                    "does not take; leave it out."
                )
        if self.precision != "float32" and dtype != "float32":
            raise ValueError(
                f"precision={self.precision!r} is for dtype='float32', but dtype is "
                f"{dtype!r}; set one of them otherwise."
            )
        loading = inspect.signature(DataLoader).parameters
        for name in self.loader_params or {}:
            if name not in loading or name in OWN_LOADING:
                raise ValueError(
                    f"loader_params={shown(self.loader_params)} holds {name!r}, which "
                    "is not for you to set; leave it out."
                )


def check_groups(
    groups: Any, optimizer: type[torch.optim.Optimizer], known: Collection[str]
) -> None:
    """Check pairs of a pattern and settings, which are to be of those `known`."""
    for group in groups if isinstance(groups, list | tuple) else [groups]:
        match group:
            case (str(), dict(settings)):
                unknown = [name for name in settings if name not in known]
            case _:
                raise ValueError(
                    f"param_groups of optimizer_params holds {shown(group)}; list "
                    'pairs of a pattern and a dict, such as ("0.*", {"lr": 1e-4}).'
                )
        if unknown:
            raise ValueError(
                f"param_groups of optimizer_params sets {unknown[0]!r}, which "
                f"{optimizer.__name__} does not take; leave it out."
            )
