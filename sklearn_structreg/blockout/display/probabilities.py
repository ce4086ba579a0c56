"""Pictures of the cluster probabilities, over training and by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from sklearn_structreg.blockout.display.parts import (
    check_names,
    node_set_names,
    panels,
)
from sklearn_structreg.blockout.recorder import QUANTILES
from sklearn_structreg.core.axes import Display, take_axes
from sklearn_structreg.core.checks import check_kind

__all__ = ["ExpectedClustersDisplay", "ProbabilityHistoryDisplay"]

MOST_BARS = 40  # classes with a bar and a name each
NAMED_ENDS = 6  # of more classes, those named at either end


class ProbabilityHistoryDisplay(Display):
    """Distribution of each node set's probabilities over training.

    As the paper's Fig. 7. Use :meth:`from_estimator` to create one.

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
    >>> net = BlockoutClassifier(max_epochs=2, random_state=0).fit(X, y)
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
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Plot the history of a fitted estimator.

        Parameters
        ----------
        estimator : BlockoutClassifier or BlockoutRegressor
            Fitted.
        ax : array-like of Axes, default=None
            One for each node set; None makes a figure.

        Returns
        -------
        ProbabilityHistoryDisplay
        """
        check_kind(estimator, "harden", "a BlockoutClassifier or BlockoutRegressor")
        check_is_fitted(estimator, "net_")
        history = estimator.history_
        histograms = np.array(history[:, "probability_histogram"])
        quantiles = np.array(history[:, "probability_quantiles"])
        medians = quantiles[:, :, QUANTILES.index(0.5)]
        return cls(histograms, medians, node_set_names(estimator)).plot(ax=ax)

    def plot(self, *, ax: Any = None, cmap: Any = "YlOrRd") -> Self:
        """Draw one panel for each node set, from inputs to outputs.

        Parameters
        ----------
        ax : array-like of Axes, default=None
            One for each node set; None makes a figure.
        cmap : str or Colormap, default="YlOrRd"
            Warmer is denser.

        Returns
        -------
        ProbabilityHistoryDisplay
        """
        counts = np.asarray(self.histograms, dtype=float)
        n_epochs, n_sets, _ = counts.shape
        self.axes_, self.figure_ = panels(ax, n_sets, share=True)
        peaks = counts.max(axis=2, keepdims=True)
        density = counts / np.where(peaks > 0, peaks, 1)
        settings = {"origin": "lower", "aspect": "auto", "vmin": 0, "vmax": 1}
        extent = (0.5, n_epochs + 0.5, 0.0, 1.0)
        self.images_, self.lines_ = [], []
        for j, ax in enumerate(self.axes_):
            # The square root lets sparse bins be seen beside the fullest one.
            shown = np.sqrt(density[:, j].T)
            image = ax.imshow(shown, cmap=cmap, extent=extent, **settings)
            epochs = np.arange(1, n_epochs + 1)
            line = ax.plot(epochs, np.asarray(self.medians)[:, j], color="black")[0]
            self.images_.append(image)
            self.lines_.append(line)
            ax.set(title=self.names[j], xlabel="epoch", ylim=(0, 1), xlim=extent[:2])
        self.axes_[0].set_ylabel("cluster probability")
        return self


class ExpectedClustersDisplay(Display):
    """Expected number of clusters of each class, sorted.

    As the paper's Fig. 9. A class in many clusters has many weights of its own.

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
            Fitted.
        class_names : array-like of shape (n_classes,), default=None
            None stands for `classes_`.
        ax : Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        ExpectedClustersDisplay
        """
        check_kind(estimator, "class_hierarchy", "a BlockoutClassifier")
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
        """
        expected = np.asarray(self.expected_clusters, dtype=float)
        self.order_ = np.argsort(-expected, kind="stable")
        n, many = len(expected), len(expected) > MOST_BARS
        names = np.arange(n) if self.class_names is None else self.class_names
        names = [str(name) for name in check_names(names, n)[self.order_]]
        size = (5.6, 6.0 if many else max(2.2, 0.24 * n + 1.0))
        self.ax_ = ax = take_axes(ax, size).item()
        self.figure_ = ax.figure
        rows, values = np.arange(n), expected[self.order_]
        if many:
            ax.plot(values, rows, "o", color=color, markersize=3.5, clip_on=False)
            line = {"arrowstyle": "-", "color": "0.8", "lw": 0.6}
            for row in [*range(NAMED_ENDS), *range(n - NAMED_ENDS, n)]:
                below = n - 1 - row
                y = row * n / 26 if row < below else n - 1 - below * n / 26
                ax.annotate(
                    names[row],
                    (values[row], row),
                    (1.02, y),
                    textcoords=ax.get_yaxis_transform(),
                    va="center",
                    fontsize=9,
                    arrowprops=line,
                )
            ax.set_yticks([])
            ax.set_ylabel(f"{n} classes, from most clusters to fewest")
        else:
            ax.barh(rows, values, color=color, alpha=0.85, height=0.75)
            ax.set_yticks(rows, names)
            ax.tick_params(axis="y", length=0)
        low, middle, high = np.quantile(expected, [0.25, 0.5, 0.75])
        ax.axvline(middle, color="black", linewidth=1.2, label="median")
        for quartile, label in ((low, "quartiles"), (high, None)):
            ax.axvline(quartile, color="black", linewidth=1, ls=":", label=label)
        ax.set(xlabel="expected number of clusters", ylim=(n - 0.4, -0.6))
        ax.legend(frameon=False, loc="lower center", ncols=2, bbox_to_anchor=(0.5, 1.0))
        ax.spines[["top", "right"]].set_visible(False)
        return self
