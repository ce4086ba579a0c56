"""Maps of clusters of pixels, beside the images they were found in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from sklearn_structreg.core.axes import Display, take_axes
from sklearn_structreg.core.checks import check_kind
from sklearn_structreg.dropcluster.clusterer import ReNAClusterer
from sklearn_structreg.dropcluster.images import split_shape

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = ["ReNADisplay", "color_map", "distinct_colors"]

_N_COLORS = 8  # of matplotlib's Set2


class ReNADisplay(Display):
    """Map of the clusters of pixels, beside the mean image.

    Touching clusters have different colours; otherwise colours have no meaning. Pixels
    outside a mask stay white.

    Parameters
    ----------
    labels : array-like of int, shape (height, width) or (n_channels, height, width)
        Cluster of each pixel, -1 for pixels outside the mask.
    images : array-like of the same shape
        Mean image of each channel.

    Attributes
    ----------
    axes_ : ndarray of Axes, shape (2, n_channels)
        Mean images in the first row, maps in the second.
    figure_ : Figure
        The figure of the axes.

    See Also
    --------
    ReNADisplay.from_estimator : Show a fitted ReNAClusterer.
    ReNADisplay.from_maps : Show clusters of feature maps.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.dropcluster import ReNAClusterer, ReNADisplay
    >>> X = load_digits().data
    >>> clusterer = ReNAClusterer(n_clusters=16, image_shape=(8, 8)).fit(X)
    >>> display = ReNADisplay.from_estimator(clusterer, X)
    >>> display.axes_.shape
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
        image_shape : tuple of 1 to 4 ints, default=None
            Shape of an image, as in `ReNAClusterer`; None takes the mask's, the
            estimator's, that of `X`, or a row. Of a volume the middle slice along the
            first axis is shown.
        mask : array-like of bool, shape `image_shape`, default=None
            The pixels that are features, in C order, if not all are.
        ax
            See `plot`.

        Returns
        -------
        ReNADisplay
            The display, drawn.
        """
        check_kind(estimator, "inverse_transform", "a ReNAClusterer")
        check_is_fitted(estimator)
        labels = estimator.labels_
        images = np.asarray(X, dtype=float)
        mean = images.mean(axis=0).ravel()
        shape = estimator.image_shape if image_shape is None else image_shape
        if mask is None:
            inside = np.ones(images.shape[1:] if shape is None else shape, dtype=bool)
        else:
            inside = np.asarray(mask, dtype=bool)
        if inside.sum() != len(labels):
            raise ValueError(
                f"the image has {inside.sum()} pixels (of its mask), but the estimator "
                f"{len(labels)} features: pass the image_shape or mask of the features."
            )
        n_channels, spatial = split_shape(inside.shape, None, inside.size)
        inside = inside.reshape(n_channels, *spatial)
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
            Clusters, as of :func:`~sklearn_structreg.dropcluster.rena`.
        maps : array-like of shape (n_samples, n_channels, height, width)
            The feature maps.
        ax
            See `plot`.

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
        labels, images = np.asarray(self.labels), np.asarray(self.images)
        if labels.shape != images.shape or labels.ndim not in (2, 3):
            raise ValueError(
                "labels and images must both have shape (height, width) or (n_channels,"
                f" height, width), got {labels.shape} and {images.shape}."
            )
        if labels.ndim == 2:
            labels, images = labels[None], images[None]
        n_channels = len(labels)
        width = 1.8 if n_channels > 1 else 3.2
        height = (
            width * float(np.clip(images.shape[1] / images.shape[2], 0.1, 3)) + 0.35
        )
        if n_channels > 1:
            size, figsize = (2, n_channels), (width * n_channels, 2 * height)
        else:
            size, figsize = (1, 2), (2 * width, height)
        self.axes_: npt.NDArray[Any] = take_axes(ax, figsize, size).reshape(
            2, n_channels
        )
        self.figure_: Figure | SubFigure = self.axes_[0, 0].figure
        for channel in range(n_channels):
            top, bottom = self.axes_[:, channel]
            top.imshow(images[channel], cmap=cmap, interpolation="nearest")
            bottom.imshow(color_map(labels[channel]), interpolation="nearest")
            n_clusters = len(np.unique(labels[channel][labels[channel] >= 0]))
            name = "mean" if n_channels == 1 else f"channel {channel}"
            top.set_title(name, fontsize="medium")
            bottom.set_title(f"{n_clusters} clusters", fontsize="medium")
            for axis in (top, bottom):
                axis.set(xticks=[], yticks=[])
        return self


def _plane(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return planes of channels: a signal as a row, the middle slice of a volume."""
    if values.ndim == 2:
        values = values[:, None]
    if values.ndim == 4:
        values = values[:, values.shape[1] // 2]
    return values[0] if len(values) == 1 else values


def color_map(labels: npt.NDArray[Any]) -> npt.NDArray[np.floating[Any]]:
    """Paint a map of clusters so that touching ones differ; -1 is white."""
    import matplotlib.pyplot as plt

    palette = plt.get_cmap("Set2")(np.arange(_N_COLORS + 1))
    palette[-1] = 1, 1, 1, 1
    colors: npt.NDArray[np.floating[Any]] = palette[distinct_colors(labels)]
    return colors


def distinct_colors(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
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
