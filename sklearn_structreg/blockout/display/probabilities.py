"""Pictures of the cluster probabilities, over training and by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from sklearn_structreg.blockout.conversion import ends_at_outputs
from sklearn_structreg.blockout.recorder import QUANTILES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["ExpectedClustersDisplay", "ProbabilityHistoryDisplay"]

MOST_BARS = 40  # classes with a bar and a name each
NAMED_ENDS = 6  # of more classes, those named at either end


class ProbabilityHistoryDisplay:
    """Distribution of each node set's probabilities over training (Fig. 7).

    Use :meth:`from_estimator` to create one.

    Parameters
    ----------
    histograms : array-like of shape (n_epochs, n_node_sets, n_bins)
        Counts of the probabilities in equal bins of [0, 1].
    medians : array-like of shape (n_epochs, n_node_sets)
        Their medians.
    names : sequence of str
        Of the node sets.

    Attributes
    ----------
    axes_ : ndarray of Axes, shape (n_node_sets,)
        One for each node set.
    figure_ : Figure
        The figure they are in.
    images_ : list of AxesImage
        The densities: in every column the share of the fullest bin.
    lines_ : list of Line2D
        The medians.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg import BlockoutClassifier
    >>> from sklearn_structreg.blockout import ProbabilityHistoryDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> net = BlockoutClassifier(max_epochs=2, random_state=0).fit(X / 16, y)
    >>> ProbabilityHistoryDisplay.from_estimator(net).axes_.shape
    (3,)
    """

    def __init__(
        self, histograms: ArrayLike, medians: ArrayLike, names: Sequence[str]
    ) -> None:
        self.histograms = histograms
        self.medians = medians
        self.names = names

    @classmethod
    def from_estimator(cls, estimator: Any, *, axes: Any = None) -> Self:
        """Plot what a fitted estimator's history holds.

        Parameters
        ----------
        estimator : BlockoutClassifier
            Fitted with ``regularizer="blockout"``.
        axes : array-like of Axes, default=None
            One for each node set; None makes a figure.

        Returns
        -------
        ProbabilityHistoryDisplay
            The display, drawn.
        """
        check_is_fitted(estimator, "net_")
        names = node_set_names(estimator)
        history = estimator.history_
        quantiles = np.array(history[:, "probability_quantiles"])
        display = cls(
            np.array(history[:, "probability_histogram"]),
            quantiles[:, :, QUANTILES.index(0.5)],
            names,
        )
        return display.plot(axes=axes)

    def plot(self, *, axes: Any = None, cmap: Any = "YlOrRd") -> Self:
        """Draw one panel for each node set, from inputs to outputs.

        Parameters
        ----------
        axes : array-like of Axes, default=None
            One for each node set; None makes a figure.
        cmap : str or Colormap, default="YlOrRd"
            Warmer is denser.

        Returns
        -------
        ProbabilityHistoryDisplay
            The display.
        """
        counts = np.asarray(self.histograms, dtype=float)
        n_epochs, n_sets, _ = counts.shape
        self.axes_, self.figure_ = panels("ProbabilityHistoryDisplay", axes, n_sets)
        peaks = counts.max(axis=2, keepdims=True)
        density = counts / np.where(peaks > 0, peaks, 1)
        extent = (0.5, n_epochs + 0.5, 0.0, 1.0)
        self.images_, self.lines_ = [], []
        for j, ax in enumerate(self.axes_):
            # The square root lets sparse bins be seen beside the fullest one.
            image = ax.imshow(
                np.sqrt(density[:, j].T),
                origin="lower",
                aspect="auto",
                extent=extent,
                cmap=cmap,
                vmin=0,
                vmax=1,
            )
            epochs = np.arange(1, n_epochs + 1)
            line = ax.plot(epochs, np.asarray(self.medians)[:, j], color="black")[0]
            self.images_.append(image)
            self.lines_.append(line)
            ax.set(title=self.names[j], xlabel="epoch", ylim=(0, 1))
            ax.set_xlim(0.5, n_epochs + 0.5)
        self.axes_[0].set_ylabel("cluster probability")
        return self


class ExpectedClustersDisplay:
    """Expected number of clusters of each class, sorted (Fig. 9).

    Classes in many clusters have many weights to be told by.

    Parameters
    ----------
    expected_clusters : array-like of shape (n_classes,)
        Sums of the probabilities of each class.
    class_names : array-like of shape (n_classes,), default=None
        None stands for column numbers.

    Attributes
    ----------
    ax_ : Axes
        The axes.
    figure_ : Figure
        The figure it is in.
    order_ : ndarray of shape (n_classes,)
        The classes from most clusters to fewest, as they are drawn.

    Examples
    --------
    >>> from sklearn_structreg.blockout import ExpectedClustersDisplay
    >>> display = ExpectedClustersDisplay([1.2, 2.8, 0.9], ["cat", "dog", "bus"])
    >>> [label.get_text() for label in display.plot().ax_.get_yticklabels()]
    ['dog', 'cat', 'bus']
    """

    def __init__(
        self, expected_clusters: ArrayLike, class_names: ArrayLike | None = None
    ) -> None:
        self.expected_clusters = expected_clusters
        self.class_names = class_names

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, class_names: ArrayLike | None = None, ax: Any = None
    ) -> Self:
        """Plot the classes of a fitted estimator.

        Parameters
        ----------
        estimator : BlockoutClassifier
            Fitted with ``regularizer="blockout"``.
        class_names : array-like of shape (n_classes,), default=None
            None stands for `classes_`.
        ax : Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        ExpectedClustersDisplay
            The display, drawn.
        """
        found = estimator.class_hierarchy(class_names)
        return cls(found.expected_clusters, found.classes).plot(ax=ax)

    def plot(self, *, ax: Any = None, color: Any = "tab:blue") -> Self:
        """Draw a bar for each of up to 40 classes, else a dot; the ends are named.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; None makes a figure.
        color : color, default="tab:blue"
            Of the classes.

        Returns
        -------
        ExpectedClustersDisplay
            The display.
        """
        check_matplotlib_support("ExpectedClustersDisplay.plot")
        import matplotlib.pyplot as plt

        expected = np.asarray(self.expected_clusters, dtype=float)
        self.order_ = np.argsort(-expected, kind="stable")
        n_classes, many = len(expected), len(expected) > MOST_BARS
        names = np.arange(n_classes) if self.class_names is None else self.class_names
        names = check_names(names, n_classes)[self.order_]
        if ax is None:
            height = 6.0 if many else max(2.2, 0.24 * n_classes + 1.0)
            _, ax = plt.subplots(figsize=(5.6, height), layout="constrained")
        self.ax_: Axes = ax
        self.figure_: Figure | SubFigure = ax.figure
        places, values = np.arange(n_classes), expected[self.order_]
        if many:
            ax.plot(values, places, "o", color=color, markersize=3.5, clip_on=False)
            ends = [*range(NAMED_ENDS), *range(n_classes - NAMED_ENDS, n_classes)]
            step = n_classes / 26
            at = [min(i, NAMED_ENDS) * step for i in range(NAMED_ENDS)]
            at += [
                n_classes - 1 - (n_classes - 1 - i) * step for i in ends[NAMED_ENDS:]
            ]
            for i, y in zip(ends, at, strict=True):
                ax.annotate(
                    str(names[i]),
                    (values[i], places[i]),
                    (1.02, y),
                    textcoords=ax.get_yaxis_transform(),
                    va="center",
                    fontsize=9,
                    arrowprops={"arrowstyle": "-", "color": "0.8", "lw": 0.6},
                )
            ax.set_yticks([])
            ax.set_ylabel(f"{n_classes} classes, from most clusters to fewest")
        else:
            ax.barh(places, values, color=color, alpha=0.85, height=0.75)
            ax.set_yticks(places, [str(name) for name in names])
            ax.tick_params(axis="y", length=0)
        low, middle, high = np.quantile(expected, [0.25, 0.5, 0.75])
        ax.axvline(middle, color="black", linewidth=1.2, label="median")
        for quartile, label in ((low, "quartiles"), (high, None)):
            ax.axvline(quartile, color="black", linewidth=1, ls=":", label=label)
        ax.set_ylim(n_classes - 0.4, -0.6)
        ax.set_xlabel("expected number of clusters")
        ax.legend(frameon=False, loc="lower center", ncols=2, bbox_to_anchor=(0.5, 1.0))
        ax.spines[["top", "right"]].set_visible(False)
        return self


def node_set_names(estimator: Any) -> list[str]:
    """Name the node sets of a fitted estimator, for titles."""
    sizes = [len(P) for P in estimator.cluster_probabilities_]
    last = "classes" if ends_at_classes(estimator) else "nodes"
    kinds = ["inputs", *["nodes"] * (len(sizes) - 2), last]
    return [
        f"$P_{{{j}}}$: {n} {kind}"
        for j, (n, kind) in enumerate(zip(sizes, kinds, strict=True))
    ]


def ends_at_classes(estimator: Any) -> bool:
    """Tell whether the last node set of a fitted estimator is its classes."""
    return ends_at_outputs(estimator.module_, estimator.input_shape_)


def check_names(class_names: ArrayLike, n_classes: int) -> NDArray[Any]:
    """Return the names as an array, one for each class."""
    names = np.asarray(class_names)
    if names.shape != (n_classes,):
        raise ValueError(
            f"class_names has shape {names.shape} for {n_classes} classes; give one "
            "name per class."
        )
    return names


def cluster_colors(n_clusters: int, cmap: Any = "tab10") -> list[Any]:
    """Return a colour for each cluster; beyond the map's own they go round."""
    import matplotlib.pyplot as plt

    colors = plt.get_cmap(cmap)
    return [colors(cluster % colors.N) for cluster in range(n_clusters)]


def panels(
    name: str, axes: Any, npanels: int, side: float = 2.9
) -> tuple[NDArray[Any], Any]:
    check_matplotlib_support(f"{name}.plot")
    import matplotlib.pyplot as plt

    if axes is None:
        size = (side * npanels + 0.4, side * 0.95)
        share = name == "ProbabilityHistoryDisplay"
        _, axes = plt.subplots(
            1, npanels, figsize=size, sharey=share, squeeze=False, layout="constrained"
        )
    axes = np.asarray(axes, dtype=object).ravel()
    if len(axes) != npanels:
        raise ValueError(
            f"axes holds {len(axes)} Axes for {npanels} node sets; give one for each."
        )
    return axes, axes[0].figure
