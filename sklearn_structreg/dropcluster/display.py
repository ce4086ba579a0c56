"""Pictures: clusters of pixels beside the images, and how much structure there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from sklearn_structreg.dropcluster.clusterer import ReNAClusterer
from sklearn_structreg.dropcluster.hopkins import SpatialHopkins, spatial_hopkins

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_N_COLORS = 8  # of matplotlib's Set2


class ReNADisplay:
    """Map of the clusters of pixels, beside the mean image.

    Touching clusters have different colours; beyond that a colour says nothing. Pixels
    outside a mask stay white.

    Parameters
    ----------
    labels : array-like of int, shape (height, width) or (n_channels, height, width)
        Cluster of each pixel, -1 for pixels outside the mask.
    images : array-like of the same shape
        Mean image of each channel.

    Attributes
    ----------
    ax_ : ndarray of Axes, shape (2, n_channels)
        Mean images in the first row, maps in the second.
    figure_ : Figure
        The figure they are in.

    See Also
    --------
    ReNADisplay.from_estimator : Show a fitted ReNAClusterer.
    ReNADisplay.from_maps : Show what `rena` found in feature maps.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.dropcluster import ReNAClusterer, ReNADisplay
    >>> X = load_digits().data
    >>> clusterer = ReNAClusterer(n_clusters=16, image_shape=(8, 8)).fit(X)
    >>> display = ReNADisplay.from_estimator(clusterer, X)
    >>> display.ax_.shape
    (2, 1)
    """

    def __init__(self, labels: npt.ArrayLike, images: npt.ArrayLike) -> None:
        self.labels = labels
        self.images = images

    @classmethod
    def from_estimator(
        cls,
        estimator: ReNAClusterer,
        X: npt.ArrayLike,
        *,
        image_shape: Sequence[int] | None = None,
        mask: npt.ArrayLike | None = None,
        ax: Any = None,
    ) -> Self:
        """Show the clusters of a fitted estimator beside the mean of `X`.

        Parameters
        ----------
        estimator : ReNAClusterer
            Fitted estimator.
        X : array-like of shape (n_samples, n_features)
            Images to average.
        image_shape : tuple of 1 to 3 ints, default=None
            Shape of the image; None takes the mask's, the estimator's, or a row. Of a
            volume the middle slice along the first axis is shown.
        mask : array-like of bool, shape `image_shape`, default=None
            Which pixels the features are, in C order, where they are not all.
        ax : array-like of two Axes, default=None
            Where to draw. None makes a figure.

        Returns
        -------
        ReNADisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        labels = estimator.labels_
        mean = np.asarray(X, dtype=float).mean(axis=0)
        if image_shape is None:
            image_shape = estimator.image_shape
        if mask is None:
            inside = np.ones(image_shape or len(labels), dtype=bool)
        else:
            inside = np.asarray(mask, dtype=bool)
        if inside.sum() != len(labels):
            raise ValueError(
                f"the image has {inside.sum()} pixels (of its mask), but the estimator "
                f"{len(labels)} features: pass the image_shape or mask of the features."
            )
        label_map = np.full(inside.shape, -1)
        image = np.full(inside.shape, np.nan)
        label_map[inside], image[inside] = labels, mean
        return cls(_plane(label_map), _plane(image)).plot(ax)

    @classmethod
    def from_maps(
        cls, labels: npt.ArrayLike, maps: npt.ArrayLike, *, ax: Any = None
    ) -> Self:
        """Show the clusters of each channel beside its mean feature map.

        Parameters
        ----------
        labels : array-like of int, shape (n_channels, height, width)
            What :func:`~sklearn_structreg.dropcluster.rena` found.
        maps : array-like of shape (n_samples, n_channels, height, width)
            The feature maps it found them in.
        ax : array-like of 2 * n_channels Axes, default=None
            Where to draw: first the images, then the clusters. None makes a figure.

        Returns
        -------
        ReNADisplay
            The display, drawn.
        """
        return cls(labels, np.asarray(maps, dtype=float).mean(axis=0)).plot(ax)

    def plot(self, ax: Any = None, *, cmap: Any = "gray") -> Self:
        """Draw the mean images and the maps.

        Parameters
        ----------
        ax : array-like of 2 * n_channels Axes, default=None
            Where to draw: first the images, then the maps. None makes a figure.
        cmap : str or Colormap, default="gray"
            Colours of the mean images.

        Returns
        -------
        ReNADisplay
            The display.
        """
        import matplotlib.pyplot as plt

        labels, images = np.asarray(self.labels), np.asarray(self.images)
        if labels.shape != images.shape or labels.ndim not in (2, 3):
            raise ValueError(
                "labels and images must both have shape (height, width) or (n_channels,"
                f" height, width), got {labels.shape} and {images.shape}."
            )
        if labels.ndim == 2:
            labels, images = labels[None], images[None]
        n_channels = len(labels)
        if ax is None:
            size = (2, n_channels) if n_channels > 1 else (1, 2)
            width = 1.8 if n_channels > 1 else 3.2
            aspect = np.clip(images.shape[1] / images.shape[2], 0.1, 3)
            _, ax = plt.subplots(
                *size,
                figsize=(width * size[1], (width * aspect + 0.35) * size[0]),
                squeeze=False,
                layout="constrained",
            )
        axes = np.array(ax, dtype=object).ravel()
        if len(axes) != 2 * n_channels:
            raise ValueError(
                f"ax must hold {2 * n_channels} Axes, an image and a map for each "
                f"channel, got {len(axes)}."
            )
        self.ax_: npt.NDArray[Any] = axes.reshape(2, n_channels)
        self.figure_: Figure | SubFigure = axes[0].figure
        palette = plt.get_cmap("Set2")(np.arange(_N_COLORS + 1))
        palette[-1] = 1, 1, 1, 1
        for channel in range(n_channels):
            top, bottom = self.ax_[:, channel]
            top.imshow(images[channel], cmap=cmap, interpolation="nearest")
            bottom.imshow(palette[_colors(labels[channel])], interpolation="nearest")
            n_clusters = len(np.unique(labels[channel][labels[channel] >= 0]))
            name = "mean" if n_channels == 1 else f"channel {channel}"
            top.set_title(name, fontsize="medium")
            bottom.set_title(f"{n_clusters} clusters", fontsize="medium")
            for axis in (top, bottom):
                axis.set(xticks=[], yticks=[])
        return self


class HopkinsDisplay:
    """Spatial Hopkins statistics, per channel or as histograms over channels.

    The dashed line at 0.5 is no structure; towards 1 there is more. Histograms of
    several layers show down to which layer DropCluster has something to find.

    Parameters
    ----------
    statistics : array-like of shape (n_images, n_channels), or dict of such
        Statistics, as `SpatialHopkins.transform` returns them; of several layers under
        their names.

    Attributes
    ----------
    ax_ : Axes
        Where it was drawn.
    figure_ : Figure
        The figure it is in.

    See Also
    --------
    HopkinsDisplay.from_estimator : Compute with a fitted SpatialHopkins and show.
    HopkinsDisplay.from_images : Compute for images or several layers and show.

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
        kind : {"channels", "histogram"}, default="channels"
            See `plot`.
        ax : Axes, default=None
            Where to draw. None makes a figure.

        Returns
        -------
        HopkinsDisplay
            The display, drawn.
        """
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
        kind : {"channels", "histogram"}, default="channels"
            See `plot`.
        ax : Axes, default=None
            Where to draw. None makes a figure.

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
        import matplotlib.pyplot as plt

        if kind not in ("channels", "histogram"):
            raise ValueError(f"kind={kind!r} must be 'channels' or 'histogram'.")
        if ax is None:
            _, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
        self.ax_: Axes = ax
        self.figure_: Figure | SubFigure = ax.figure
        draw = _draw_channels if kind == "channels" else _draw_histogram
        layers = _layers(self.statistics)
        draw(ax, {name: np.asarray(values) for name, values in layers.items()})
        if any(layers):
            ax.legend(frameon=False)
        return self


def _layers(values: Any) -> Mapping[str, Any]:
    """Return what belongs to each layer, under no name if there is one."""
    return values if isinstance(values, Mapping) else {"": values}


def _draw_channels(ax: Axes, layers: Mapping[str, npt.NDArray[Any]]) -> None:
    """Draw mean and spread over images of every channel."""
    from matplotlib.ticker import MaxNLocator

    ax.axhline(0.5, color="0.6", linestyle="--", linewidth=1, zorder=0)
    width = 0.6 / len(layers)
    for index, (name, values) in enumerate(layers.items()):
        place = np.arange(values.shape[1]) + (index - (len(layers) - 1) / 2) * width
        # Constant images have no statistic; a channel of nothing else has no mark.
        for x, column in zip(place, values.T, strict=True):
            known = column[np.isfinite(column)]
            if len(known):
                low, high = np.percentile(known, [10, 90])
                ax.vlines(x, low, high, color=f"C{index}", alpha=0.35, linewidth=4)
        ax.plot(place, _means(values), "o", color=f"C{index}", markersize=5, label=name)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="channel", ylabel="Spatial Hopkins statistic")


def _draw_histogram(ax: Axes, layers: Mapping[str, npt.NDArray[Any]]) -> None:
    """Draw one histogram of channel means per layer, over common bins."""
    from matplotlib.ticker import MaxNLocator

    means = {name: _means(values) for name, values in layers.items()}
    finite = [mean[np.isfinite(mean)] for mean in means.values()]
    edges = np.histogram_bin_edges(np.concatenate([*finite, [0.5]]), bins=20)
    ax.axvline(0.5, color="0.6", linestyle="--", linewidth=1, zorder=0)
    for index, (name, mean) in enumerate(zip(means, finite, strict=True)):
        ax.hist(mean, edges.tolist(), color=f"C{index}", alpha=0.55, label=name)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="Spatial Hopkins statistic", ylabel="channels")


def _means(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Average over images, leaving out those without a statistic."""
    means: npt.NDArray[np.float64] = np.ma.masked_invalid(values).mean(axis=0)
    return np.ma.filled(means, np.nan)


def _plane(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return what can be shown: a row of a signal, the middle slice of a volume."""
    if values.ndim == 3:
        values = values[len(values) // 2]
    return np.atleast_2d(values)


def _colors(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Choose colours so that touching clusters differ; -1 is the last colour.

    Greedy: of the colours that no neighbour has, each cluster takes the one used least.
    """
    down = np.stack([labels[1:].ravel(), labels[:-1].ravel()], axis=1)
    right = np.stack([labels[:, 1:].ravel(), labels[:, :-1].ravel()], axis=1)
    neighbors: dict[int, set[int]] = {int(label): set() for label in np.unique(labels)}
    for a, b in np.unique(np.concatenate([down, right]), axis=0).tolist():
        neighbors[a].add(b)
        neighbors[b].add(a)
    color = {-1: _N_COLORS}
    used = np.zeros(_N_COLORS, dtype=int)
    for label in sorted(neighbors.keys() - {-1}):
        taken = {color[other] for other in neighbors[label] if other in color}
        free = [c for c in range(_N_COLORS) if c not in taken] or range(_N_COLORS)
        color[label] = min(free, key=lambda c: used[c])
        used[color[label]] += 1
    return np.asarray(np.vectorize(color.__getitem__, otypes=[np.int64])(labels))
