"""A picture of the learned architecture: groups of nodes, and their connections."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sklearn_structreg.blockout.display.parts import (
    check_names,
    class_names_of,
    cluster_colors,
    node_set_names,
)
from sklearn_structreg.blockout.memberships import BoolArray, group_nodes
from sklearn_structreg.core.axes import Display, take_axes
from sklearn_structreg.core.checks import check_integer, check_kind

__all__ = ["BlockoutDisplay"]

GAP = 0.25  # between boxes, of the height of an average one
WIDTH = 0.3  # of a box; node sets are one apart


class BlockoutDisplay(Display):
    """The hardened architecture as a graph, inputs at the left.

    As the paper's Fig. 1c. A box holds nodes of one set that are in the same clusters;
    its stripes have the colours of these. A band joins two boxes that share a cluster:
    grey where they share several. Dead nodes, which are in no cluster, are left out.

    Parameters
    ----------
    memberships : sequence of array-like of shape (d_j, k), bool
        C_0 to C_m.
    names : sequence of str
        Of the node sets.
    class_names : array-like of shape (d_m,), default=None
        Written beside the boxes of the last set.
    max_groups : int, default=10
        The most boxes of one set to draw, those with most nodes; a note below counts
        the others.

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
    >>> from sklearn_structreg.blockout import BlockoutDisplay
    >>> C = [[[1, 0], [0, 1], [1, 1]], [[1, 0], [0, 1]]]
    >>> display = BlockoutDisplay(C, ["inputs", "classes"]).plot()
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
        estimator : BlockoutClassifier or BlockoutRegressor
            Fitted.
        threshold : float in (0, 1], default=0.5
            A node is in a cluster from this probability on.
        class_names : array-like of shape (n_classes,), default=None
            None stands for the `classes_` of a classifier.
        max_groups : int, default=10
            The most boxes of one set to draw.
        ax : Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        BlockoutDisplay
        """
        check_kind(estimator, "harden", "a BlockoutClassifier or BlockoutRegressor")
        memberships = estimator.harden(threshold=threshold).memberships
        shown, sets = class_names_of(estimator, class_names), node_set_names(estimator)
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
        BlockoutDisplay
        """
        check_integer("max_groups", self.max_groups)
        sets = [np.asarray(members, dtype=bool) for members in self.memberships]
        names = None
        if self.class_names is not None:
            names = check_names(self.class_names, len(sets[-1]))
        size = (2.3 * len(sets) + 2.0 * (names is not None), 5.6)
        self.ax_ = ax = take_axes(ax, size).item()
        self.figure_ = ax.figure
        colors = cluster_colors(sets[0].shape[1], cmap)
        self.groups_ = [_largest(members, self.max_groups) for members in sets]
        spans = [_spans([len(nodes) for _, nodes in g]) for g in self.groups_]
        self.bands_: list[tuple[int, int, int]] = []
        for j, (left, right) in enumerate(pairwise(self.groups_)):
            for a, b in np.ndindex(len(left), len(right)):
                shared = np.flatnonzero(left[a][0] & right[b][0])
                if shared.size:
                    color = colors[shared[0]] if shared.size == 1 else "0.45"
                    self._draw_band(j, spans[j][a], spans[j + 1][b], color)
                    self.bands_.append((j, a, b))
        for j, groups in enumerate(self.groups_):
            for (pattern, nodes), span in zip(groups, spans[j], strict=True):
                self._draw_box(j, span, [colors[c] for c in np.flatnonzero(pattern)])
                if len(sets) > j + 1 or names is None:
                    n, middle = str(len(nodes)), sum(span) / 2
                    ax.text(j, middle, n, ha="center", va="center", fontsize=8)
            self._name_set(j, sets[j])
        longest = 0 if names is None else self._name_classes(names, spans[-1])
        ax.set(xlim=(-0.45, len(sets) - 0.7 + 0.026 * longest), ylim=(1.1, -0.09))
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

        left, height, width = j - WIDTH / 2, span[1] - span[0], WIDTH / len(colors)
        for i, color in enumerate(colors):
            style = {"color": color, "lw": 0, "alpha": 0.85}
            stripe = Rectangle((left + i * width, span[0]), width, height, **style)
            self.ax_.add_patch(stripe)
        style = {"fill": False, "edgecolor": "0.2", "lw": 0.8}
        self.ax_.add_patch(Rectangle((left, span[0]), WIDTH, height, **style))

    def _name_set(self, j: int, members: BoolArray) -> None:
        """Write the set's name above it, and the nodes that are not drawn below."""
        self.ax_.text(j, -0.03, self.names[j], ha="center", va="bottom", fontsize=10)
        alive = int(members.any(axis=1).sum())
        drawn = sum(len(nodes) for _, nodes in self.groups_[j])
        notes = []
        if alive > drawn:
            notes.append(f"not shown: {alive - drawn}")
        if len(members) > alive:
            notes.append(f"dead: {len(members) - alive}")
        style = {"ha": "center", "va": "top", "fontsize": 8, "color": "0.35"}
        self.ax_.text(j, 1.02, "\n".join(notes), **style)

    def _name_classes(self, names: Any, spans: list[Any]) -> int:
        """Write the classes of each box beside it; return the most characters."""
        longest = 0
        x = len(self.groups_) - 1 + WIDTH / 2 + 0.05
        for (_, nodes), span in zip(self.groups_[-1], spans, strict=True):
            words = [str(name) for name in names[nodes]]
            shown = ", ".join(words[:4])
            if len(words) > 4:
                shown += f" and {len(words) - 4} more"
            self.ax_.text(x, sum(span) / 2, shown, ha="left", va="center", fontsize=8)
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
