"""The clusters of each channel beside its feature maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from sklearn_structreg.core.axes import Display, take_axes
from sklearn_structreg.core.checks import check_integer, check_kind
from sklearn_structreg.dropcluster.display.clusters import color_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from sklearn_structreg.dropcluster.estimators import (
        DropClusterClassifier,
        DropClusterRegressor,
    )

__all__ = ["DropClusterDisplay"]


class DropClusterDisplay(Display):
    """Clusters of a layer's channels, beside its feature maps of a few samples.

    As Figures 1 to 3 of the DropCluster paper. Touching clusters have different
    colours; otherwise colours have no meaning. Channels without structure, which are
    masked, are hatched. Of volumes the middle slice along the first axis is shown.

    Parameters
    ----------
    labels : array-like of int, shape (n_channels, ...)
        Cluster of each pixel, of signals, images or volumes.
    structured : array-like of bool, shape (n_channels,)
        Channels that are not masked.
    maps : array-like of shape (n_samples, n_channels, ...)
        Feature maps, unmasked.
    images : array-like of shape (n_samples, n_input_channels, ...)
        The network's inputs.

    Attributes
    ----------
    axes_ : ndarray of Axes
        The axes, row by row.
    figure_ : Figure
        The figure of the axes.

    See Also
    --------
    DropClusterDisplay.from_estimator : Show a fitted DropClusterClassifier.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg import DropClusterClassifier
    >>> from sklearn_structreg.dropcluster import DropClusterDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> net = DropClusterClassifier(image_shape=(1, 8, 8), max_epochs=2).fit(X, y)
    >>> display = DropClusterDisplay.from_estimator(net, X, channels=range(4))
    >>> display.axes_.shape
    (3, 5)
    """

    def __init__(
        self,
        labels: npt.ArrayLike,
        structured: npt.ArrayLike,
        maps: npt.ArrayLike,
        images: npt.ArrayLike,
    ) -> None:
        self.labels = labels
        self.structured = structured
        self.maps = maps
        self.images = images

    @classmethod
    def from_estimator(
        cls,
        estimator: DropClusterClassifier | DropClusterRegressor,
        X: Any,
        *,
        n_samples: int = 2,
        kind: Literal["maps", "clusters"] = "maps",
        channels: Sequence[int] | None = None,
        ax: Any = None,
    ) -> Self:
        """Show the clusters of a fitted estimator.

        Parameters
        ----------
        estimator : DropClusterClassifier or DropClusterRegressor
            Fitted, with clusters.
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Samples.
        n_samples : int, default=2
            Number of samples to show, from the first one on.
        kind, channels, ax
            See `plot`.

        Returns
        -------
        DropClusterDisplay
            The display, drawn.
        """
        check_kind(estimator, "clustered_maps", "a DropClusterClassifier or -Regressor")
        check_integer("n_samples", n_samples)
        images, maps = estimator.clustered_maps(X[:n_samples])
        labels, structured = estimator.cluster_labels_, estimator.structured_channels_
        display = cls(labels, structured, maps, images)
        return display.plot(ax, kind=kind, channels=channels)

    def plot(
        self,
        ax: Any = None,
        *,
        kind: Literal["maps", "clusters"] = "maps",
        channels: Sequence[int] | None = None,
        cmap: Any = "gray",
    ) -> Self:
        """Draw the clusters.

        Parameters
        ----------
        ax : array-like of Axes, default=None
            Where to draw, row by row. None makes a figure.
        kind : {"maps", "clusters"}, default="maps"
            "maps" draws a row for each sample, the input and then its feature maps, and
            the clusters in a last row. "clusters" draws these alone.
        channels : sequence of int, default=None
            Channels to draw; None is the first eight with their maps, or the clusters
            of all.
        cmap : str or Colormap, default="gray"
            Colours of the feature maps.

        Returns
        -------
        DropClusterDisplay
            The display.
        """
        if kind not in ("maps", "clusters"):
            raise ValueError(f"kind={kind!r} must be 'maps' or 'clusters'.")
        labels, maps = np.asarray(self.labels), np.asarray(self.maps)
        if labels.ndim not in (2, 3, 4) or maps.shape[1:] != labels.shape:
            raise ValueError(
                "labels must have shape (n_channels, ...) with one to three spatial "
                "dimensions, and maps the same for each sample, got "
                f"{labels.shape} and {maps.shape}."
            )
        images = np.asarray(self.images)
        if labels.ndim == 4:
            labels, maps, images = (_middle(x) for x in (labels, maps, images))
        with_maps = kind == "maps"
        if channels is None:
            channels = range(min(8, len(labels)) if with_maps else len(labels))
        known = range(len(labels))
        if not len(channels) or not {*channels} <= {*known}:
            raise ValueError(
                f"channels={list(channels)} must be some from 0 to {len(labels) - 1}."
            )
        if with_maps:
            size = (len(maps) + 1, len(channels) + 1)
        else:
            n_columns = math.ceil(math.sqrt(len(channels)))
            size = (math.ceil(len(channels) / n_columns), n_columns)
        width, height = (1.25, 1.35) if labels.ndim == 3 else (1.9, 0.75)
        figsize = (max(3.0, width * size[1]), max(1.5, height * size[0]))
        self.axes_: npt.NDArray[Any] = take_axes(ax, figsize, size)
        axes = self.axes_.ravel()
        self.figure_: Figure | SubFigure = axes[0].figure
        for axis in axes:
            axis.set(xticks=[], yticks=[])
            axis.set_axis_off()
        rows = self.axes_[-1, 1:] if with_maps else axes
        for axis, channel in zip(rows, channels, strict=False):
            self._draw_clusters(axis, labels[channel], channel, titled=not with_maps)
        if with_maps:
            self._draw_maps(images, maps, channels, cmap)
        return self

    def _draw_clusters(
        self, ax: Axes, labels: npt.NDArray[Any], channel: int, *, titled: bool
    ) -> None:
        ax.set_axis_on()
        structured = bool(np.asarray(self.structured)[channel])
        if structured:
            colors = color_map(np.atleast_2d(labels))
            ax.imshow(colors, interpolation="nearest", aspect=_aspect(labels))
        else:
            ax.patch.set(facecolor="white", edgecolor="0.7", hatch="///")
            plane = np.atleast_2d(labels).shape
            ax.set(xlim=(0, plane[1]), ylim=(0, plane[0]))
            ax.set_aspect("equal" if labels.ndim == 2 else "auto")
        if titled:
            ax.set_title(str(channel), fontsize="small", pad=2)

    def _draw_maps(
        self,
        images: npt.NDArray[Any],
        maps: npt.NDArray[Any],
        channels: Sequence[int],
        cmap: Any,
    ) -> None:
        for row, (image, channel_maps) in enumerate(zip(images, maps, strict=True)):
            panels = [_picture(image), *(channel_maps[c] for c in channels)]
            for axis, panel in zip(self.axes_[row], panels, strict=True):
                axis.set_axis_on()
                plane = np.atleast_2d(panel)
                axis.imshow(
                    plane, cmap=cmap, interpolation="nearest", aspect=_aspect(panel)
                )
        self.axes_[0, 0].set_title("input", fontsize="medium")
        structured = np.asarray(self.structured)
        for axis, channel in zip(self.axes_[0, 1:], channels, strict=True):
            name = f"channel {channel}" if structured[channel] else f"{channel}: masked"
            axis.set_title(name, fontsize="medium")
        middle = {"xy": (0.5, 0.5), "xycoords": "axes fraction"}
        self.axes_[-1, 0].annotate("clusters", **middle, ha="center", va="center")


def _middle(volumes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the middle slices of volumes along their first spatial axis."""
    return volumes[..., volumes.shape[-3] // 2, :, :]


def _picture(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an input as a picture: of three channels in colour, else their mean."""
    if image.ndim < 2:
        return image
    if image.ndim == 3 and len(image) == 3:
        low, high = image.min(), image.max()
        picture: npt.NDArray[Any] = (image - low) / max(high - low, 1e-12)
        return picture.transpose(1, 2, 0)
    mean: npt.NDArray[Any] = image.mean(axis=0)
    return mean


def _aspect(panel: npt.NDArray[Any]) -> Literal["equal", "auto"]:
    """Show signals as strips."""
    return "auto" if panel.ndim == 1 else "equal"
