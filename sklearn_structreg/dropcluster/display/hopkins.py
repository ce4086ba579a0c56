"""Spatial Hopkins statistics, per channel or as histograms of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from sklearn_structreg.core.axes import Display, take_axes
from sklearn_structreg.core.checks import check_kind
from sklearn_structreg.dropcluster.hopkins import SpatialHopkins, spatial_hopkins

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["HopkinsDisplay", "channel_means"]


class HopkinsDisplay(Display):
    """Spatial Hopkins statistics, per channel or as histograms over channels.

    The dashed line at 0.5 is no structure; towards 1 there is more. Histograms of
    several layers show at which of them there is structure to cluster.

    Parameters
    ----------
    statistics : array-like of shape (n_images, n_channels), or dict of such
        Statistics, as `SpatialHopkins.transform` returns them; of several layers under
        their names.

    Attributes
    ----------
    ax_ : Axes
        The axes.
    figure_ : Figure
        The figure of the axes.

    See Also
    --------
    HopkinsDisplay.from_estimator : Compute with a fitted SpatialHopkins and show.
    HopkinsDisplay.from_images : Compute for images, or for several layers, and show.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_structreg.dropcluster import HopkinsDisplay
    >>> images = np.random.default_rng(0).normal(size=(5, 3, 16, 16))
    >>> display = HopkinsDisplay.from_images(images, random_state=0)
    >>> display.ax_.get_ylabel()
    'Spatial Hopkins statistic'
    """

    def __init__(self, statistics: npt.ArrayLike | Mapping[str, npt.ArrayLike]) -> None:
        self.statistics = statistics

    @classmethod
    def from_estimator(
        cls,
        estimator: SpatialHopkins,
        X: npt.ArrayLike,
        *,
        kind: Literal["channels", "histogram"] = "channels",
        ax: Axes | None = None,
    ) -> Self:
        """Show the statistics that a fitted estimator finds in `X`.

        Parameters
        ----------
        estimator : SpatialHopkins
            Fitted estimator.
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Images.
        kind, ax
            See `plot`.

        Returns
        -------
        HopkinsDisplay
            The display, drawn.
        """
        check_kind(estimator, "transform", "a SpatialHopkins")
        return cls(np.asarray(estimator.transform(X))).plot(ax, kind=kind)

    @classmethod
    def from_images(
        cls,
        images: Any,
        *,
        n_points: int | Literal["auto"] = "auto",
        random_state: Any = None,
        kind: Literal["channels", "histogram"] = "channels",
        ax: Axes | None = None,
    ) -> Self:
        """Show the statistics of images, or of the feature maps of several layers.

        Parameters
        ----------
        images : array-like of shape (n_images, n_channels, ...), or dict of such
            Images; of several layers under their names.
        n_points, random_state
            As in :func:`~sklearn_structreg.dropcluster.spatial_hopkins`.
        kind, ax
            See `plot`.

        Returns
        -------
        HopkinsDisplay
            The display, drawn.
        """
        statistics = {
            name: spatial_hopkins(maps, n_points, random_state=random_state).cpu()
            for name, maps in _layers(images).items()
        }
        return cls(statistics).plot(ax, kind=kind)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        kind: Literal["channels", "histogram"] = "channels",
    ) -> Self:
        """Draw the statistics.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw. None makes a figure.
        kind : {"channels", "histogram"}, default="channels"
            "channels" draws each channel's mean over images, its bar from the tenth to
            the ninetieth percentile. "histogram" counts channels by their means.

        Returns
        -------
        HopkinsDisplay
            The display.
        """
        if kind not in ("channels", "histogram"):
            raise ValueError(f"kind={kind!r} must be 'channels' or 'histogram'.")
        ax = take_axes(ax, (6, 3.5)).item()
        self.ax_: Axes = ax
        self.figure_: Figure | SubFigure = ax.figure
        draw = _draw_channels if kind == "channels" else _draw_histogram
        layers = _layers(self.statistics)
        if not layers:
            raise ValueError("statistics holds no layer; give those of one or more.")
        draw(ax, {name: np.asarray(values) for name, values in layers.items()})
        if any(layers):
            ax.legend(frameon=False)
        return self


def _layers(values: Any) -> Mapping[str, Any]:
    """Return a mapping of layers; values of a single layer have an empty name."""
    return values if isinstance(values, Mapping) else {"": values}


def _draw_channels(ax: Axes, layers: Mapping[str, npt.NDArray[Any]]) -> None:
    """Draw mean and spread over images of every channel."""
    from matplotlib.ticker import MaxNLocator

    ax.axhline(0.5, color="0.6", linestyle="--", linewidth=1, zorder=0)
    width = 0.6 / len(layers)
    for index, (name, values) in enumerate(layers.items()):
        place = np.arange(values.shape[1]) + (index - (len(layers) - 1) / 2) * width
        means, color = channel_means(values), f"C{index}"
        # Constant images have no statistic; a channel of nothing else has no mark.
        for x, column in zip(place, values.T, strict=True):
            known = column[np.isfinite(column)]
            if len(known):
                low, high = np.percentile(known, [10, 90])
                ax.vlines(x, low, high, color=color, alpha=0.35, linewidth=4)
        ax.plot(place, means, "o", color=color, markersize=5, label=name)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="channel", ylabel="Spatial Hopkins statistic")


def _draw_histogram(ax: Axes, layers: Mapping[str, npt.NDArray[Any]]) -> None:
    """Draw one histogram of channel means per layer, over common bins."""
    from matplotlib.ticker import MaxNLocator

    means = {name: channel_means(values) for name, values in layers.items()}
    finite = [mean[np.isfinite(mean)] for mean in means.values()]
    edges = np.histogram_bin_edges(np.concatenate([*finite, [0.5]]), bins=20)
    ax.axvline(0.5, color="0.6", linestyle="--", linewidth=1, zorder=0)
    for index, (name, mean) in enumerate(zip(means, finite, strict=True)):
        ax.hist(mean, edges.tolist(), color=f"C{index}", alpha=0.55, label=name)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="Spatial Hopkins statistic", ylabel="channels")


def channel_means(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Average over images, leaving out those without a statistic."""
    means: npt.NDArray[np.float64] = np.ma.masked_invalid(values).mean(axis=0)
    return np.ma.filled(means, np.nan)
