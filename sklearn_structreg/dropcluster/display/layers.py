"""Histograms of the Spatial Hopkins statistic, to choose a layer by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from sklearn_structreg.core.axes import Display, take_axes
from sklearn_structreg.core.checks import check_kind
from sklearn_structreg.dropcluster.display.hopkins import channel_means

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from sklearn_structreg.dropcluster.estimators import (
        DropClusterClassifier,
        DropClusterRegressor,
    )

__all__ = ["LayerHopkinsDisplay"]


class LayerHopkinsDisplay(Display):
    """Histograms of the Spatial Hopkins statistic over channels, a panel per layer.

    As Figure 8 of the DropCluster paper, whose authors "advise practitioners to inspect
    these histograms to decide at which layer to implement DropCluster". The dashed line
    at 0.5 is no structure; towards 1 there is more. The mark is the median channel.

    Parameters
    ----------
    statistics : dict of str to array-like of shape (n_samples, n_channels)
        Statistics of each layer, as `DropClusterClassifier.layer_hopkins` returns them.

    Attributes
    ----------
    axes_ : ndarray of Axes, shape (n_layers,)
        The axes, one for each layer.
    figure_ : Figure
        The figure of the axes.

    See Also
    --------
    LayerHopkinsDisplay.from_estimator : Compute for a fitted estimator and show.
    HopkinsDisplay : One layer, channel by channel.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_structreg.dropcluster import LayerHopkinsDisplay
    >>> rng = np.random.default_rng(0)
    >>> statistics = {"conv1": rng.uniform(0.6, 0.9, (5, 16)), "conv2": [[0.5, 0.55]]}
    >>> LayerHopkinsDisplay(statistics).plot().axes_.shape
    (2,)
    """

    def __init__(self, statistics: Mapping[str, npt.ArrayLike]) -> None:
        self.statistics = statistics

    @classmethod
    def from_estimator(
        cls,
        estimator: DropClusterClassifier | DropClusterRegressor,
        X: Any,
        *,
        layers: str | Sequence[str] | None = None,
        ax: Any = None,
    ) -> Self:
        """Compute the statistics of a fitted estimator's layers, and show them.

        Parameters
        ----------
        estimator : DropClusterClassifier or DropClusterRegressor
            Fitted.
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Samples; a hundred are enough.
        layers : str or sequence of str, default=None
            Names of layers, or "input"; None is every layer with a spatial output.
        ax
            See `plot`.

        Returns
        -------
        LayerHopkinsDisplay
            The display, drawn.
        """
        check_kind(estimator, "layer_hopkins", "a DropClusterClassifier or -Regressor")
        return cls(estimator.layer_hopkins(X, layers)).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the histograms, the first layer on top.

        Parameters
        ----------
        ax : array-like of Axes, default=None
            Where to draw, one for each layer. None makes a figure.

        Returns
        -------
        LayerHopkinsDisplay
            The display.
        """
        from matplotlib.ticker import MaxNLocator

        means = {
            name: channel_means(np.asarray(values, dtype=float))
            for name, values in self.statistics.items()
        }
        if not means:
            raise ValueError(
                "statistics holds no layer; for a network without any layer with a "
                "spatial output, layers='input' shows its input."
            )
        figsize = (5.5, 0.6 + 0.75 * len(means))
        axes = take_axes(ax, figsize, (len(means), 1), sharex=True)[:, 0]
        self.axes_: npt.NDArray[Any] = axes
        self.figure_: Figure | SubFigure = axes[0].figure
        finite = {name: mean[np.isfinite(mean)] for name, mean in means.items()}
        edges = np.histogram_bin_edges(np.concatenate([*finite.values(), [0.5]]), 30)
        for axis, (name, mean) in zip(axes, finite.items(), strict=True):
            axis.axvline(0.5, color="0.6", linestyle="--", linewidth=1, zorder=0)
            counts, _, _ = axis.hist(mean, edges.tolist(), color="C0", alpha=0.7)
            if len(mean):
                axis.plot(np.median(mean), 0, "^", color="C3", clip_on=False, zorder=3)
            axis.set_ylim(0, max(1.0, 1.1 * float(np.max(counts))))
            axis.yaxis.set_major_locator(MaxNLocator(2, integer=True))
            axis.set_ylabel(
                f"{name}\n({len(means[name])} channels)",
                rotation=0,
                ha="right",
                va="center",
                fontsize="small",
            )
            axis.yaxis.set_label_coords(-0.09, 0.5)
            axis.spines[["top", "right"]].set_visible(False)
        axes[-1].set_xlabel("Spatial Hopkins statistic (mean over samples)")
        return self
