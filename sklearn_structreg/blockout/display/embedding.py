"""A picture of nodes that share clusters: their probabilities in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from sklearn_structreg.blockout.display.parts import (
    check_names,
    class_names_of,
    cluster_colors,
    node_set_names,
    panels,
)
from sklearn_structreg.blockout.memberships import FloatArray, check_probabilities
from sklearn_structreg.core.axes import Display
from sklearn_structreg.core.checks import check_kind

__all__ = ["NodeEmbeddingDisplay"]


class NodeEmbeddingDisplay(Display):
    """Nodes by their cluster probabilities, in two dimensions.

    As the paper's Fig. 8. Nodes that lie close share clusters: they work along the same
    branches. The colour is that of the most probable cluster.

    Parameters
    ----------
    probabilities : sequence of array-like of shape (d_j, k)
        P_0 to P_m.
    names : sequence of str
        Of the node sets.
    class_names : array-like of shape (d_m,), default=None
        Written beside the nodes of the last set, as far as there is room; outer ones
        come first. None writes nothing.

    Attributes
    ----------
    axes_ : ndarray of Axes, shape (n_node_sets,)
        One for each node set.
    figure_ : Figure
        The figure they are in.
    points_ : list of ndarray of shape (d_j, 2)
        The first two principal components of each set.
    texts_ : list of Annotation
        The names that found room.

    Examples
    --------
    >>> from sklearn_structreg.blockout import NodeEmbeddingDisplay
    >>> P = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]
    >>> display = NodeEmbeddingDisplay([P], ["classes"], ["cat", "dog", "bus"])
    >>> [text.get_text() for text in display.plot().texts_]
    ['bus', 'cat', 'dog']
    """

    def __init__(
        self,
        probabilities: Sequence[ArrayLike],
        names: Sequence[str],
        class_names: ArrayLike | None = None,
    ) -> None:
        self.probabilities = probabilities
        self.names = names
        self.class_names = class_names

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, class_names: ArrayLike | None = None, ax: Any = None
    ) -> Self:
        """Plot the nodes of a fitted estimator.

        Parameters
        ----------
        estimator : BlockoutClassifier or BlockoutRegressor
            Fitted.
        class_names : array-like of shape (n_classes,), default=None
            None stands for the `classes_` of a classifier.
        ax : array-like of Axes, default=None
            One for each node set; None makes a figure.

        Returns
        -------
        NodeEmbeddingDisplay
        """
        check_kind(estimator, "harden", "a BlockoutClassifier or BlockoutRegressor")
        check_is_fitted(estimator, "net_")
        probabilities = estimator.cluster_probabilities_
        shown = class_names_of(estimator, class_names)
        return cls(probabilities, node_set_names(estimator), shown).plot(ax=ax)

    def plot(self, *, ax: Any = None, cmap: Any = "tab10") -> Self:
        """Draw one panel for each node set, from inputs to outputs.

        Parameters
        ----------
        ax : array-like of Axes, default=None
            One for each node set; None makes a figure.
        cmap : str or Colormap, default="tab10"
            The colours of the clusters.

        Returns
        -------
        NodeEmbeddingDisplay
        """
        P = check_probabilities(self.probabilities)
        if self.class_names is not None:
            names = check_names(self.class_names, len(P[-1]))
        self.axes_, self.figure_ = panels(ax, len(P), 3.4)
        self.points_, self.texts_ = [], []
        colors = cluster_colors(P[0].shape[1], cmap)
        for j, (ax, rows) in enumerate(zip(self.axes_, P, strict=True)):
            points, shares = _principal_components(rows)
            shown = [colors[cluster] for cluster in rows.argmax(axis=1)]
            size = float(np.clip(225 / np.sqrt(len(rows)), 6, 40))
            ax.scatter(*points.T, c=shown, s=size, alpha=0.75, linewidths=0)
            ax.set(title=self.names[j], xticks=[], yticks=[])
            ax.set_xlabel(f"first component ({shares[0]:.0%})")
            ax.set_ylabel(f"second component ({shares[1]:.0%})")
            ax.margins(0.12)
            self.points_.append(points)
        if self.class_names is not None:
            self.texts_ = _name_points(self.axes_[-1], self.points_[-1], names)
        return self


def _principal_components(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the first two components of the rows, and their shares of the variance."""
    centred = rows - rows.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    points, shares = np.zeros((len(rows), 2)), np.zeros(2)
    kept = min(2, len(values))
    points[:, :kept] = left[:, :kept] * values[:kept]
    total = (values**2).sum()
    if total > 0:
        shares[:kept] = values[:kept] ** 2 / total
    return points, shares


def _name_points(ax: Any, points: FloatArray, names: NDArray[Any]) -> list[Any]:
    """Write names beside points, outer ones first, where they hide nothing."""
    figure: Any = ax.figure.figure  # of a subfigure, the whole one
    figure.draw_without_rendering()  # lays the axes out, so that extents are known
    inside = ax.get_window_extent()
    places = ax.transData.transform(points)
    taken: list[Any] = []
    texts = []
    style = {"textcoords": "offset points", "va": "center", "fontsize": 8}
    for i in np.argsort(-np.hypot(*points.T), kind="stable"):
        for shift, align in (((4, 0), "left"), ((-4, 0), "right")):
            text = ax.annotate(str(names[i]), points[i], shift, ha=align, **style)
            box = text.get_window_extent()
            fits = inside.x0 + 3 <= box.x0 and box.x1 <= inside.x1 - 3
            hides = box.count_contains(np.delete(places, i, axis=0))
            if fits and not hides and not any(box.overlaps(b) for b in taken):
                taken.append(box)
                texts.append(text)
                break
            text.remove()
    return texts
