"""A picture of the confusions between classes: the matrix, ordered by group."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import clone
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sklearn_structreg.core.axes import Display, take_axes
from sklearn_structreg.selfinformed.labels import check_names
from sklearn_structreg.selfinformed.partitioner import ConfusionSpectralPartitioner

# Single cells of a larger matrix are too small to see: it is averaged down to this.
_MAX_PIXELS = 500
_INCHES_PER_NAME = 0.13
_SMALLEST_FONT = 4.5


@dataclass(eq=False, repr=False)
class ConfusionPartitionDisplay(Display):
    """The confusion matrix reordered and framed by group, with class names.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions` to
    create a display. All parameters are stored as attributes.

    Parameters
    ----------
    confusion : {ndarray, sparse array} of shape (n_classes, n_classes)
        Counts or frequencies, truth in rows, as in
        `ConfusionSpectralPartitioner.confusion_`.
    labels : ndarray of shape (n_classes,)
        The group of each class, from 0.
    display_labels : ndarray of shape (n_classes,), default=None
        Class names; None stands for column numbers.

    Attributes
    ----------
    im_ : matplotlib AxesImage
        The matrix: for each true class, the share of its detections in each class. The
        diagonal is left out, since it would outshine the confusions.
    frames_ : list of matplotlib Rectangle
        One frame per group.
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    ConfusionSpectralPartitioner : Finds the groups.
    sklearn.metrics.ConfusionMatrixDisplay : The matrix with its values, unordered.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_structreg.selfinformed import ConfusionPartitionDisplay
    >>> confusion = np.array([[8, 0, 2], [0, 9, 1], [3, 0, 7]])
    >>> display = ConfusionPartitionDisplay(
    ...     confusion, np.array([0, 1, 0]), display_labels=["cat", "bus", "dog"]
    ... )
    >>> display.plot().ax_.get_xlabel()
    'detected class'
    """

    confusion: Any
    labels: NDArray[np.integer]
    _: KW_ONLY
    display_labels: Any = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        y: Any = None,
        *,
        partitioner: ConfusionSpectralPartitioner | None = None,
        display_labels: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Plot the groups of a partitioner, or those of a classifier's confusions.

        Parameters
        ----------
        estimator : ConfusionSpectralPartitioner or classifier
            A fitted partitioner or `SelfInformedClassifier`, which need nothing else,
            or a fitted classifier with `predict_proba` or `decision_function`.
        X : array-like of shape (n_samples, n_features), default=None
            Held-out samples for the classifier.
        y : array-like of shape (n_samples,), default=None
            Their labels; None counts co-detections.
        partitioner : ConfusionSpectralPartitioner, default=None
            Finds the classifier's groups; it is cloned, and None stands for one with
            default parameters and ``random_state=0``.
        display_labels : array-like of shape (n_classes,), default=None
            Class names; None stands for `classes_`.
        **plot_params : dict
            Passed to :meth:`plot`.

        Returns
        -------
        ConfusionPartitionDisplay

        Raises
        ------
        ValueError
            If a classifier comes without samples.
        """
        groups = getattr(estimator, "partition_", None) if X is None else None
        if isinstance(estimator, ConfusionSpectralPartitioner):
            groups = estimator
        if groups is not None:
            labels = groups.labels_  # raises where it is not fitted
            names = groups.classes_ if display_labels is None else display_labels
            names = check_names(names, groups.classes_)
            display = cls(groups.confusion_, labels, display_labels=names)
            return display.plot(**plot_params)
        if X is None:
            raise ValueError(
                f"{type(estimator).__name__} has counted no confusions; pass held-out "
                "X and y, or a fitted ConfusionSpectralPartitioner."
            )
        decide = getattr(estimator, "predict_proba", None)
        return cls.from_predictions(
            y,
            (decide or estimator.decision_function)(X),
            classes=estimator.classes_,
            partitioner=partitioner,
            display_labels=display_labels,
            **plot_params,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_score: Any,
        *,
        sample_weight: Any = None,
        classes: Any = None,
        partitioner: ConfusionSpectralPartitioner | None = None,
        display_labels: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Plot the groups that a model's scores on held-out samples give.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels or a label indicator; None counts co-detections.
        y_score : array-like of shape (n_samples, n_classes)
            Scores, one column per class.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples.
        classes : array-like of shape (n_classes,), default=None
            The label of each column; None leaves it to the partitioner.
        partitioner, display_labels, **plot_params
            As in :meth:`from_estimator`.

        Returns
        -------
        ConfusionPartitionDisplay
        """
        if partitioner is None:
            partitioner = ConfusionSpectralPartitioner(random_state=0)
        partitioner = clone(partitioner)
        if classes is not None:
            partitioner.set_params(classes=classes)
        partitioner.fit(y_score, y_true, sample_weight=sample_weight)
        return cls.from_estimator(
            partitioner, display_labels=display_labels, **plot_params
        )

    def plot(
        self,
        *,
        ax: Any = None,
        cmap: Any = "Blues",
        frame_color: Any = "tab:red",
        colorbar: bool = True,
        im_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the matrix.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure large enough for the class names.
        cmap : str or matplotlib Colormap, default="Blues"
            The colours.
        frame_color : color, default="tab:red"
            The colour of the groups' frames.
        colorbar : bool, default=True
            Whether to draw a colour bar.
        im_kw : dict, default=None
            Passed to `imshow`.

        Returns
        -------
        self : ConfusionPartitionDisplay
            The display, with `ax_`, `figure_`, `im_` and `frames_` set.
        """
        check_matplotlib_support("ConfusionPartitionDisplay.plot")
        import matplotlib.pyplot as plt
        from matplotlib.patches import Rectangle

        labels = np.asarray(self.labels)
        n_classes = labels.size
        order = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        side = float(np.clip(_INCHES_PER_NAME * n_classes, 4.0, 14.0))
        ax = take_axes(ax, (side + 2.0, side + 1.0)).item()
        self.ax_, self.figure_ = ax, ax.figure

        shares = _shares(self.confusion, order)
        colors = plt.get_cmap(cmap).with_extremes(bad="0.88")
        # The extent counts in classes, whatever the number of pixels.
        edges = (-0.5, n_classes - 0.5, n_classes - 0.5, -0.5)
        # A few outliers must not pale all else: the colours end at a high quantile.
        brightest = np.nanmax(shares, initial=0.0)
        top = np.nanquantile(shares, 0.995) if n_classes > 50 else brightest
        limits = {"vmin": 0.0, "vmax": top if top > 0.0 else brightest or 1.0}
        settings = {"cmap": colors, "extent": edges, **limits, **(im_kw or {})}
        self.im_ = ax.imshow(shares, interpolation="nearest", **settings)
        self.frames_ = []
        for start, size in zip(starts, sizes, strict=True):
            corner = (start - 0.5, start - 0.5)
            frame = Rectangle(corner, size, size, fill=False, edgecolor=frame_color)
            frame.set(linewidth=1.5, zorder=3, clip_on=False)
            self.frames_.append(ax.add_patch(frame))

        self._name_classes(order)
        self._name_groups(starts, sizes)
        ax.set(xlabel="detected class", ylabel="true class")
        if colorbar:
            extend = "max" if self.im_.norm.vmax < brightest else "neither"
            bar = self.figure_.colorbar(
                self.im_, ax=ax, shrink=0.7, pad=0.02, extend=extend
            )
            bar.set_label("share of the true class's detections")
        return self

    def _name_classes(self, order: NDArray[np.intp]) -> None:
        """Write the class names along both axes, where they are legible."""
        n_classes = order.size
        box = self.ax_.get_window_extent()
        font = min(10.0, 0.85 * 72.0 * box.height / self.figure_.dpi / n_classes)
        if font < _SMALLEST_FONT:
            self.ax_.set(xticks=[], yticks=[])
            return
        ticks = np.arange(n_classes)
        names = ticks if self.display_labels is None else self.display_labels
        shown = [str(name) for name in np.asarray(names)[order]]
        self.ax_.set_xticks(ticks, shown, fontsize=font, rotation=90)
        self.ax_.set_yticks(ticks, shown, fontsize=font)
        self.ax_.tick_params(length=0 if font < 8.0 else 3)
        if max(map(len, shown)) <= 2:
            self.ax_.tick_params(axis="x", rotation=0)

    def _name_groups(
        self, starts: NDArray[np.integer], sizes: NDArray[np.integer]
    ) -> None:
        """Write the number of each group along the top."""
        top = self.ax_.secondary_xaxis("top")
        top.set_xticks(starts + (sizes - 1) / 2.0, list(map(str, range(sizes.size))))
        top.tick_params(length=0)
        top.set_xlabel("group")


def _shares(confusion: Any, order: NDArray[np.intp]) -> NDArray[np.float64]:
    """Reorder, drop the diagonal, divide by row sums; average down large matrices."""
    matrix = sparse.csr_array(confusion, dtype=np.float64)[order][:, order]
    total = np.asarray(matrix.sum(axis=1))
    scale = sparse.diags_array(1.0 / np.where(total > 0.0, total, 1.0))
    matrix = sparse.csr_array(scale @ (matrix - sparse.diags_array(matrix.diagonal())))
    n_classes = order.size
    if n_classes <= _MAX_PIXELS:
        shares = matrix.toarray()
        np.fill_diagonal(shares, np.nan)
        return shares
    pixel = np.arange(n_classes) * _MAX_PIXELS // n_classes
    bins = sparse.csr_array((np.ones(n_classes), (pixel, np.arange(n_classes))))
    means = sparse.diags_array(1.0 / np.asarray(bins.sum(axis=1))) @ bins
    return np.asarray((means @ matrix @ means.T).toarray())
