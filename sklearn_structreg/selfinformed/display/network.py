"""A drawing of the network with its heads, as the paper's Figure 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from sklearn_structreg.core.axes import Display, take_axes
from sklearn_structreg.core.checks import check_kind
from sklearn_structreg.selfinformed.labels import check_names

__all__ = ["SelfInformedDisplay"]

_OLD, _NEW, _TEXT = "0.88", "#fde0c5", 9


@dataclass(eq=False, repr=False)
class SelfInformedDisplay(Display):
    """The old network, its specialist heads, and the outputs that each one feeds.

    It is recommended to use :meth:`from_estimator` to create a display. All parameters
    are stored as attributes.

    Parameters
    ----------
    group_names : sequence of str
        The names of each group's classes.
    head_layer_sizes : sequence of sequence of int
        The hidden layers of each head.
    n_features, n_hidden : int
        Numbers of inputs of the heads, and of the classifier layer.
    shared : bool, default=False
        Whether these inputs are the same.
    multiply_adds : tuple of int, default=None
        Cost of a prediction without and with heads.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from sklearn_structreg.selfinformed import SelfInformedDisplay
    >>> display = SelfInformedDisplay(
    ...     ["cat, dog", "bus, car"], [(32,), (32,)], n_features=64, n_hidden=100
    ... )
    >>> len(display.plot().ax_.patches) > 5
    True
    """

    group_names: Sequence[str]
    head_layer_sizes: Sequence[Sequence[int]]
    _: KW_ONLY
    n_features: int
    n_hidden: int
    shared: bool = False
    multiply_adds: tuple[int, int] | None = None

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, display_labels: Any = None, **plot_params: Any
    ) -> Self:
        """Draw the network of a fitted `SelfInformedClassifier`.

        Parameters
        ----------
        estimator : SelfInformedClassifier
            Fitted, with groups; of several rounds, the last is drawn.
        display_labels : array-like of shape (n_classes,), default=None
            Class names; None takes `classes_`.
        **plot_params : dict
            Passed to :meth:`plot`.

        Returns
        -------
        SelfInformedDisplay

        Raises
        ------
        ValueError
            If the estimator was fitted without groups.
        """
        check_kind(estimator, "partition_", "a SelfInformedClassifier")
        check_is_fitted(estimator)
        partition = estimator.partition_
        if partition is None:
            raise ValueError(
                "This SelfInformedClassifier was fitted with n_clusters=0 and has no "
                "heads to draw; fit it with some."
            )
        names = estimator.classes_ if display_labels is None else display_labels
        names = check_names(names, estimator.classes_)
        module = estimator.module_
        place = module.rounds[-1].place
        display = cls(
            [_name([str(names[i]) for i in group]) for group in partition.groups_],
            [[*sizes] for sizes in estimator.head_layer_sizes_[-1]],
            n_features=place.n_features,
            n_hidden=module.point.n_hidden,
            shared=module.point.shares(place),
            multiply_adds=tuple(estimator.multiply_adds_),
        )
        return display.plot(**plot_params)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the network, from the samples below to the outputs on top.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        self : SelfInformedDisplay
        """
        check_matplotlib_support("SelfInformedDisplay.plot")
        from matplotlib.patches import FancyBboxPatch

        n_groups = len(self.group_names)
        width = 1.5 * (n_groups + 1)
        ax = take_axes(ax, (max(5.0, width), 4.6)).item()
        self.ax_, self.figure_ = ax, ax.figure

        def box(
            x: float, y: float, w: float, text: str, color: str, h: float = 0.5
        ) -> None:
            corner, style = (x - w / 2, y - h / 2), "round,pad=0,rounding_size=0.06"
            look: dict[str, Any] = {"boxstyle": style, "fc": color, "ec": "0.3"}
            ax.add_patch(FancyBboxPatch(corner, w, h, **look))
            ax.text(x, y, text, ha="center", va="center", fontsize=_TEXT)

        def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
            style = {"arrowstyle": "-|>", "color": "0.4", "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", xy=end, xytext=start, arrowprops=style)

        middle = width / 2
        columns = [0.75 + 1.5 * index for index in range(n_groups + 1)]
        depth = max((len(sizes) for sizes in self.head_layer_sizes), default=0)
        top = 2.2 + 0.8 * max(depth, 1)
        box(middle, 0.0, width - 0.2, "samples", "white")
        old = f"old layers, frozen: {self.n_features} features"
        box(middle, 0.9, width - 0.2, old, _OLD)
        arrow((middle, 0.25), (middle, 0.65))
        hidden = "the same\nfeatures" if self.shared else f"old layers\n{self.n_hidden}"
        box(columns[0], 1.9, 1.3, hidden, _OLD)
        arrow((columns[0], 1.15), (columns[0], 1.65))
        for x, sizes, name in zip(
            columns[1:], self.head_layer_sizes, self.group_names, strict=True
        ):
            below = 1.15
            for index, size in enumerate(sizes):
                y = 1.9 + 0.8 * index
                box(x, y, 1.3, f"{size} ReLU", _NEW)
                arrow((x, below), (x, y - 0.25))
                below = y + 0.25
            arrow((x, below), (x, top))
            height = 0.26 * (name.count("\n") + 1) + 0.24
            box(x, top + height / 2, 1.3, name, "white", height)
        # The classifier layer joins the old features to the outputs of all groups.
        bus = top - 0.45
        ax.plot([columns[0]] * 2 + [columns[-1] - 0.4], [2.15, bus, bus], color="0.4")
        for x in columns[1:]:
            arrow((x - 0.4, bus), (x - 0.4, top))
        corner = columns[0] - 0.65, bus + 0.1
        ax.text(*corner, "fresh\nclassifier layer", va="bottom", fontsize=_TEXT)
        ax.set(xlim=(0, width), ylim=(-0.4, top + 1.2))
        ax.axis("off")
        if self.multiply_adds is not None:
            before, after = self.multiply_adds
            added = f"{after - before:,} ({(after - before) / before:.1%})"
            title = f"{before:,} multiply-adds + {added}"
            ax.set_title(title, fontsize=_TEXT + 1)
        return self


def _name(classes: Sequence[str], n_lines: int = 3, n_letters: int = 14) -> str:
    """Name a group by its first classes, a line each."""
    lines = [
        name if len(name) <= n_letters else name[: n_letters - 1] + "…"
        for name in classes
    ]
    rest = len(lines) - n_lines
    return "\n".join(lines if rest <= 0 else [*lines[: n_lines - 1], f"+ {rest + 1}"])
