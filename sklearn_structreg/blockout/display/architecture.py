"""A picture of the learned architecture: groups of nodes, and who feeds whom."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sklearn_structreg.blockout.display.probabilities import (
    check_names,
    cluster_colors,
    ends_at_classes,
    node_set_names,
)
from sklearn_structreg.blockout.memberships import BoolArray, group_nodes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["ArchitectureDisplay"]

GAP = 0.25  # between boxes, of the height of an average one
WIDTH = 0.3  # of a box; node sets are one apart


class ArchitectureDisplay:
    """The hardened architecture as a graph, inputs at the left (Fig. 1c).

    A box holds nodes of one set that are in the same clusters, whose colours its
    stripes have. A band joins two boxes that share a cluster: grey where they share
    several. Dead nodes, which are in no cluster, are left out.

    Parameters
    ----------
    memberships : sequence of array-like of shape (d_j, k), bool
        C_0 to C_m.
    names : sequence of str
        Of the node sets.
    class_names : array-like of shape (d_m,), default=None
        Written beside the boxes of the last set.
    max_groups : int, default=10
        Draw at most so many boxes of one set, those with most nodes; a note below
        counts the others.

    Attributes
    ----------
    ax_ : Axes
        The axes.
    figure_ : Figure
        The figure it is in.
    groups_ : list of list of (pattern, nodes)
        The boxes of every set from top to bottom.
    bands_ : list of (j, upper, lower)
        For every band the left set, and the numbers of its left and right box.

    Examples
    --------
    >>> from sklearn_structreg.blockout import ArchitectureDisplay
    >>> C = [[[1, 0], [0, 1], [1, 1]], [[1, 0], [0, 1]]]
    >>> display = ArchitectureDisplay(C, ["inputs", "classes"]).plot()
    >>> display.bands_
    [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 2, 1)]
    """

    def __init__(
        self,
        memberships: Sequence[ArrayLike],
        names: Sequence[str],
        class_names: ArrayLike | None = None,
        *,
        max_groups: int = 10,
    ) -> None:
        self.memberships = memberships
        self.names = names
        self.class_names = class_names
        self.max_groups = max_groups

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        threshold: float = 0.5,
        class_names: ArrayLike | None = None,
        max_groups: int = 10,
        ax: Any = None,
    ) -> Self:
        """Draw the architecture of a fitted estimator.

        Parameters
        ----------
        estimator : BlockoutClassifier
            Fitted with ``regularizer="blockout"``.
        threshold : float in (0, 1], default=0.5
            From which probability on a node is in a cluster.
        class_names : array-like of shape (n_classes,), default=None
            None stands for `classes_`.
        max_groups : int, default=10
            Draw at most so many boxes of one set.
        ax : Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        ArchitectureDisplay
            The display, drawn.
        """
        memberships = estimator.harden(threshold=threshold).memberships
        names = estimator.classes_ if class_names is None else class_names
        shown = names if ends_at_classes(estimator) else None
        sets = node_set_names(estimator)
        return cls(memberships, sets, shown, max_groups=max_groups).plot(ax=ax)

    def plot(self, *, ax: Any = None, cmap: Any = "tab10") -> Self:
        """Draw boxes, bands and names.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; None makes a figure.
        cmap : str or Colormap, default="tab10"
            The colours of the clusters.

        Returns
        -------
        ArchitectureDisplay
            The display.
        """
        check_matplotlib_support("ArchitectureDisplay.plot")
        import matplotlib.pyplot as plt

        sets = [np.asarray(members, dtype=bool) for members in self.memberships]
        if self.class_names is not None:
            names = check_names(self.class_names, len(sets[-1]))
        if ax is None:
            size = (2.3 * len(sets) + (2.0 if self.class_names is not None else 0), 5.6)
            _, ax = plt.subplots(figsize=size, layout="constrained")
        self.ax_: Axes = ax
        self.figure_: Figure | SubFigure = ax.figure
        colors = cluster_colors(sets[0].shape[1], cmap)
        self.groups_ = [_largest(members, self.max_groups) for members in sets]
        spans = [_spans([len(nodes) for _, nodes in g]) for g in self.groups_]
        self.bands_: list[tuple[int, int, int]] = []
        for j, (left, right) in enumerate(pairwise(self.groups_)):
            for a, (one, _) in enumerate(left):
                for b, (two, _) in enumerate(right):
                    shared = np.flatnonzero(one & two)
                    if shared.size:
                        color = colors[shared[0]] if shared.size == 1 else "0.45"
                        self._draw_band(j, spans[j][a], spans[j + 1][b], color)
                        self.bands_.append((j, a, b))
        for j, groups in enumerate(self.groups_):
            for (pattern, nodes), span in zip(groups, spans[j], strict=True):
                self._draw_box(
                    j, span, [colors[cluster] for cluster in np.flatnonzero(pattern)]
                )
                if len(sets) > j + 1 or self.class_names is None:
                    middle = (span[0] + span[1]) / 2
                    ax.text(
                        j, middle, str(len(nodes)), ha="center", va="center", fontsize=8
                    )
            self._name_set(j, sets[j])
        margin = 0.3
        if self.class_names is not None:
            longest = self._name_classes(names, spans[-1])
            margin += 0.026 * longest
        ax.set(xlim=(-0.45, len(sets) - 1 + margin), ylim=(1.1, -0.09))
        ax.set_axis_off()
        return self

    def _draw_band(self, j: int, left: Any, right: Any, color: Any) -> None:
        """Join two boxes by a curved band as thin as the smaller one."""
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        start, stop = j + WIDTH / 2, j + 1 - WIDTH / 2
        half = 0.5 * min(left[1] - left[0], right[1] - right[0]) * 0.35
        one, two = sum(left) / 2, sum(right) / 2
        bend = (start + stop) / 2
        upper = [(start, one - half), (bend, one - half), (bend, two - half)]
        lower = [(stop, two + half), (bend, two + half), (bend, one + half)]
        points = [*upper, (stop, two - half), *lower, (start, one + half), upper[0]]
        curve = [Path.CURVE4] * 3
        codes = [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY]
        patch = PathPatch(Path(points, codes), facecolor=color, alpha=0.22, lw=0)
        self.ax_.add_patch(patch)

    def _draw_box(self, j: int, span: Any, colors: list[Any]) -> None:
        """Draw a box with a stripe for each cluster."""
        from matplotlib.patches import Rectangle

        top, height = span[0], span[1] - span[0]
        for i, color in enumerate(colors):
            corner = (j - WIDTH / 2 + i * WIDTH / len(colors), top)
            stripe = Rectangle(corner, WIDTH / len(colors), height, color=color, lw=0)
            stripe.set_alpha(0.85)
            self.ax_.add_patch(stripe)
        corner = (j - WIDTH / 2, top)
        frame = Rectangle(corner, WIDTH, height, fill=False, edgecolor="0.2", lw=0.8)
        self.ax_.add_patch(frame)

    def _name_set(self, j: int, members: BoolArray) -> None:
        """Write the set's name above it, and what is not drawn below."""
        self.ax_.text(j, -0.03, self.names[j], ha="center", va="bottom", fontsize=10)
        alive = int(members.any(axis=1).sum())
        drawn = sum(len(nodes) for _, nodes in self.groups_[j])
        notes = []
        if alive > drawn:
            notes.append(f"not shown: {alive - drawn}")
        if len(members) > alive:
            notes.append(f"dead: {len(members) - alive}")
        self.ax_.text(
            j,
            1.02,
            "\n".join(notes),
            ha="center",
            va="top",
            fontsize=8,
            color="0.35",
        )

    def _name_classes(self, names: NDArray[Any], spans: list[Any]) -> int:
        """Write the classes of each box beside it; return the most characters."""
        longest = 0
        x = len(self.groups_) - 1 + WIDTH / 2 + 0.05
        for (_, nodes), span in zip(self.groups_[-1], spans, strict=True):
            words = [str(name) for name in names[nodes]]
            shown = ", ".join(words[:4])
            if len(words) > 4:
                shown += f" and {len(words) - 4} more"
            middle = (span[0] + span[1]) / 2
            self.ax_.text(x, middle, shown, ha="left", va="center", fontsize=8)
            longest = max(longest, len(shown))
        return longest


def _largest(members: BoolArray, max_groups: int) -> list[Any]:
    """Return the groups of live nodes to draw, in the order of `group_nodes`."""
    groups = [group for group in group_nodes(members) if group[0].any()]
    sizes = np.array([len(nodes) for _, nodes in groups])
    kept = np.sort(np.argsort(-sizes, kind="stable")[:max_groups])
    return [groups[g] for g in kept]


def _spans(sizes: list[int]) -> list[tuple[float, float]]:
    """Stack boxes between 0 and 1; the square root lets small ones be seen."""
    if not sizes:
        return []
    heights = np.sqrt(sizes) / np.sqrt(sizes).sum()
    gap = GAP / len(sizes)
    scale = 1 - gap * (len(sizes) - 1)
    tops = np.concatenate([[0], np.cumsum(heights[:-1] * scale + gap)])
    return [
        (float(top), float(top + height * scale))
        for top, height in zip(tops, heights, strict=True)
    ]
