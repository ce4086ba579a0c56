"""The parameters that all estimators share: the network, the training, the device."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, Options, StrOptions
from torch import nn

from sklearn_structreg.core.modules import ModuleLike
from sklearn_structreg.core.optimizers import OPTIMIZERS
from sklearn_structreg.core.options import Training
from sklearn_structreg.core.parameters import component, parameter

__all__ = ["NetworkParameters"]

POSITIVE = Interval(Integral, 1, None, closed="left")


@component
class NetworkParameters:
    """Declared once; described in the help of every estimator."""

    module: ModuleLike = parameter(
        "auto",
        [StrOptions({"auto"}), nn.Module, callable],
        '"auto", torch.nn.Module class, instance or factory',
        """The network. "auto" builds a multilayer perceptron for flat rows and a small
        convolutional net for images. An instance is copied together with its weights.
        A factory is called as ``factory(input_shape, n_outputs)``; a class gets those
        two where its signature names them. The outputs are logits, one per class, or
        numbers, one per target.""",
        kw_only=False,
    )
    module_params: Mapping[str, Any] | None = parameter(
        None,
        [dict, None],
        "dict or None",
        "Further keyword arguments for a module class or factory.",
    )
    hidden_layer_sizes: int | Sequence[int] = parameter(
        (100,),
        ["array-like", POSITIVE],
        "int or sequence of int",
        """Units of each hidden fully-connected layer of the "auto" networks; an int is
        one layer.""",
    )
    image_shape: Sequence[int] | None = parameter(
        None,
        ["array-like", None],
        "tuple of int or None",
        """Shape of images that come as flattened rows: ``(C, H, W)``, ``(H, W)`` for
        one channel, or ``(C, D, H, W)``. Images that come as ``(n_samples, C, H, W)``
        or ``(n_samples, H, W)`` need none; signals are images of height 1. A `module`
        of yours gets samples in the shape in which they come, such as ``(C, L)``.""",
    )
    standardize: bool | str = parameter(
        "auto",
        ["boolean", StrOptions({"auto"})],
        'bool or "auto"',
        """Whether the network's first layer subtracts the training samples' mean and
        divides by their scale, for each feature of flat rows, for each channel of
        images. "auto" does so where `module` is "auto".""",
    )
    n_members: int = parameter(
        1,
        [POSITIVE],
        "int",
        """Networks to train, which differ in their seeds alone. Predictions are the
        means of their probabilities, or numbers; `module_` holds all of them, and
        `estimators_` each as an estimator. Small ones are trained as one.""",
    )
    regularizers: Sequence[Any] | None = parameter(
        None,
        [list, tuple, None],
        "list of regularizers or None",
        """Regularizers, or ``(name, regularizer)`` pairs, that act on the network in
        this order, after those of the estimator's own. Without a name each has that of
        its class in lower case; a grid search reaches their parameters by
        ``regularizers__cges__alpha``.""",
    )
    max_epochs: int = parameter(
        100, [POSITIVE], "int", "Passes over the training data."
    )
    batch_size: int | None = parameter(
        128,
        [POSITIVE, Options(Integral, {-1}), None],
        "int or None",
        "Rows per optimizer step; None or -1 takes all rows at once.",
    )
    optimizer: str | type[torch.optim.Optimizer] = parameter(
        "sgd",
        [StrOptions(set(OPTIMIZERS)), callable],
        '{"sgd", "adam", "adamw"} or torch optimizer class',
        "The optimizer.",
    )
    learning_rate: float | str = parameter(
        "auto",
        [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        'float or "auto"',
        """Step size of the optimizer, above 0. "auto" is 0.05 for SGD and 1e-3 for Adam
        and AdamW, times ``min(1, 500 / n)`` for n features of a flat row or channels of
        an image; for another optimizer it is the default of its class.""",
    )
    momentum: float = parameter(
        0.9,
        [Interval(Real, 0, 1, closed="left")],
        "float in [0, 1)",
        "Momentum, for optimizers that have it.",
    )
    weight_decay: float = parameter(
        0.0,
        [Interval(Real, 0, None, closed="left")],
        "float",
        "L2 decay of all parameters, for optimizers that have it; at least 0.",
    )
    lr_schedule: str | Callable[..., Any] | None = parameter(
        None,
        [StrOptions({"cosine"}), callable, None],
        'None, "cosine" or callable',
        """"cosine" decays the rate to zero over `max_epochs`. A callable gets
        ``(optimizer, n_epochs)`` and returns a torch scheduler, stepped every epoch.
        With iterative pruning each round has a schedule over its own epochs.""",
    )
    criterion: Callable[..., Any] | None = parameter(
        None,
        [callable, None],
        "None, torch loss class or instance, or callable",
        """The loss, called with the network's outputs and the targets (class numbers,
        indicators, or standardized numbers). It returns one loss per row, as torch's
        losses are made to do here, so that sample weights can be applied. None is the
        cross entropy, for several labels the sum of their binary cross entropies, and
        the squared error for numbers.""",
    )
    early_stopping: bool = parameter(
        False,
        ["boolean"],
        "bool",
        """Whether to hold out `validation_fraction` of the samples and to stop when
        their loss has not improved for `n_iter_no_change` epochs; the best epoch's
        weights come back.""",
    )
    validation_fraction: float = parameter(
        0.1,
        [Interval(Real, 0, 1, closed="neither")],
        "float in (0, 1)",
        """Only with early stopping: the share held out, stratified where every class
        has enough samples.""",
    )
    n_iter_no_change: int = parameter(
        10, [POSITIVE], "int", "Only with early stopping: epochs of patience."
    )
    training: Training | None = parameter(
        None,
        [Training, None],
        "Training or None",
        """Options that are rarely set: further ones of the optimizer, clipped
        gradients, averaged weights, mixed precision, compilation, augmentation, and the
        loading of a `Dataset`.""",
    )
    callbacks: list[Any] | None = parameter(
        None,
        [list, None],
        "list of skorch callbacks or None",
        "Instances, classes or ``(name, callback)`` pairs.",
    )
    checkpoint: str | os.PathLike[str] | None = parameter(
        None,
        [str, os.PathLike, None],
        "path-like or None",
        """A folder, made if need be, that keeps the state of the training after every
        epoch. Where a fit was interrupted, `fit` with the same data and parameters goes
        on from there, and ends as it would have, bit for bit. One folder is for one
        fit.""",
    )
    device: str | torch.device = parameter(
        "auto",
        [str, torch.device],
        "str or torch.device",
        """Where to compute. "auto" takes a CUDA device where there is one, resolved in
        `fit`.""",
    )
    dtype: str = parameter(
        "float32",
        [StrOptions({"float32", "float64"})],
        '{"float32", "float64"}',
        "Precision of weights and computation.",
    )
    warm_start: bool = parameter(
        False,
        ["boolean"],
        "bool",
        """Whether `fit` goes on from the weights of the last fit, with a new
        optimizer.""",
    )
    random_state: int | np.random.RandomState | None = parameter(
        None,
        ["random_state"],
        "int, RandomState instance or None",
        "Seeds the initial weights, the order of the rows, dropout and the hold-out.",
    )
    verbose: int = parameter(
        0,
        ["verbose"],
        "{0, 1, 2}",
        "1 prints a line for every epoch, 2 adds a bar with the time that is left.",
    )
