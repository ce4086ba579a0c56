"""LearningRateDisplay: the loss at rising learning rates, and a rate read from it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from torch import Tensor

from sklearn_structreg.core.axes import Display, take_axes
from sklearn_structreg.core.batches import Batch, Batches
from sklearn_structreg.core.checks import check_integer
from sklearn_structreg.core.estimator import StructuredEstimator
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.optimizers import begin_momentum
from sklearn_structreg.core.randomness import derive_seed
from sklearn_structreg.core.training import make_net

__all__ = ["LearningRateDisplay"]

MEMORY = 0.9  # of the moving average of the losses, per step
DIVERGED = 2.0  # times the first loss, or the lowest one where that is higher


class LearningRateDisplay(Display):
    """The training loss while the learning rate rises, a step of the optimizer each.

    The range test of Smith (2017, "Cyclical learning rates for training neural
    networks", section 3.3), with the losses smoothed over ten steps.

    Parameters
    ----------
    rates : array-like of shape (n_steps,)
        Rising learning rates.
    losses : array-like of shape (n_steps,)
        The smoothed loss of the mini-batch before each step.

    Attributes
    ----------
    suggestion : float
        The rate at which the loss falls most steeply, but at most a tenth of that at
        which it is lowest.
    ax_ : Axes
        The axes of the plot.
    figure_ : Figure
        The figure of the axes.

    See Also
    --------
    LearningRateDisplay.from_estimator : Measures and draws it.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg import CGESClassifier
    >>> from sklearn_structreg.core import LearningRateDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> net = CGESClassifier(random_state=0)
    >>> display = LearningRateDisplay.from_estimator(net, X, y)
    >>> 0.005 < display.suggestion < 0.5
    True
    """

    def __init__(self, rates: npt.ArrayLike, losses: npt.ArrayLike) -> None:
        self.rates = np.asarray(rates, dtype=float)
        self.losses = np.asarray(losses, dtype=float)

    @property
    def suggestion(self) -> float:
        """The rate of the steepest fall, at most a tenth of that of the lowest loss."""
        slopes = np.gradient(self.losses, np.log(self.rates))
        lowest = self.rates[np.argmin(self.losses)]
        return float(min(self.rates[np.argmin(slopes)], lowest / 10))

    @classmethod
    def from_estimator(
        cls,
        estimator: StructuredEstimator,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        lowest: float = 1e-6,
        highest: float = 10.0,
        n_steps: int = 200,
        **plot_params: Any,
    ) -> Self:
        """Take steps at rising rates from fresh weights, and draw the losses.

        The estimator stays as it is. The steps end early where the loss diverges.

        Parameters
        ----------
        estimator : StructuredClassifier, CGESClassifier, ...
            One that trains a single network; need not be fitted.
        X, y, sample_weight : as in `fit`
            Training data.
        lowest, highest : float, default=1e-6 and 10
            The first and the last learning rate.
        n_steps : int, default=200
            Steps in between, evenly spaced in the logarithm.
        **plot_params : dict
            Passed to :meth:`plot`.

        Returns
        -------
        LearningRateDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            If the estimator trains several networks, or is not one of this package.
        ValueError
            If the rates do not rise, or as `fit` does.
        """
        check_integer("n_steps", n_steps, 2)
        if not 0 < lowest < highest < math.inf:
            raise ValueError(
                f"The rates must rise from above 0; got lowest={lowest} and "
                f"highest={highest}."
            )
        kind = type(estimator)
        if getattr(kind, "_fit", None) is not StructuredEstimator._fit:
            raise TypeError(
                f"{kind.__name__} does not train a single network of this package; of "
                "a pipeline give the last step, and X as the steps before transform it."
            )
        net, batches = untrained_net(clone(estimator), X, y, sample_weight)
        rates = np.geomspace(lowest, highest, n_steps)
        losses = smoothed_losses(net, batches, rates)
        return cls(rates[: len(losses)], losses).plot(**plot_params)

    def plot(self, ax: Any = None) -> Self:
        """Draw the losses over the rates, and the suggestion.

        Parameters
        ----------
        ax : Axes, default=None
            None makes a figure.

        Returns
        -------
        LearningRateDisplay
            The display.
        """
        self.ax_ = take_axes(ax, (6, 3.6))[0, 0]
        self.figure_ = self.ax_.figure
        self.ax_.plot(self.rates, self.losses)
        self.ax_.axvline(self.suggestion, color="0.4", linestyle="--", linewidth=1)
        self.ax_.annotate(
            f"{self.suggestion:.2g}",
            (self.suggestion, 0),
            xycoords=("data", "axes fraction"),
            xytext=(-4, 6),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color="0.3",
        )
        self.ax_.set(
            xscale="log", xlabel="learning rate", ylabel="training loss, smoothed"
        )
        return self


def untrained_net(
    model: StructuredEstimator, X: Any, y: Any, sample_weight: Any
) -> tuple[StructuredNet, Batches]:
    """Build the net that `fit` would train, and its mini-batches."""
    model._validate_params()
    data = model._read_data(X, y, sample_weight, min_samples=2)
    recipe, spec, seed = model._make_recipe(), model._make_spec(), model._draw_seed()
    regularizers = model._make_regularizers()
    module = model._fresh_network(data, spec, regularizers, seed)
    batches = data.batches(
        spec,
        batch_size=recipe.rows_per_batch(data.n_rows),
        normalize=True,
        loader_params=recipe.loader_params,
    )
    return make_net(module, regularizers, recipe, seed=seed), batches


def smoothed_losses(
    net: StructuredNet, batches: Batches, rates: npt.NDArray[np.float64]
) -> list[float]:
    """Take a step at each rate, up to the one at which the loss diverges."""
    losses: list[float] = []
    average = 0.0
    begin_momentum(net.optimizer_)
    net.module_.train()
    groups = net.optimizer_.param_groups
    factors = [group["lr"] / net.lr for group in groups]
    draws = net.draws(derive_seed(net.seed, 0))
    for step, (rate, batch) in enumerate(
        zip(rates, endless(net, batches), strict=False), 1
    ):
        for group, factor in zip(groups, factors, strict=True):
            group["lr"] = rate * factor
        with draws:
            loss: Tensor = net.train_step(batch)["loss"]
        average = MEMORY * average + (1 - MEMORY) * float(loss)
        smoothed = average / (1 - MEMORY**step)
        worst = DIVERGED * max(losses[0], min(losses)) if losses else math.inf
        if not smoothed < worst:
            break
        losses.append(smoothed)
    return losses


def endless(net: StructuredNet, batches: Batches) -> Iterator[Batch]:
    """Yield the mini-batches of one epoch after the other."""
    for epoch in itertools.count():
        yield from batches.epoch(derive_seed(net.seed, epoch))
