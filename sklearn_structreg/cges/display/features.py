"""A picture of the order in which features die."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from sklearn_structreg.cges.feature_path import FeaturePath, rank_features
from sklearn_structreg.cges.selector import CGESSelector
from sklearn_structreg.core.axes import Display, take_axes
from sklearn_structreg.core.checks import check_integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["FeaturePathDisplay"]

_GREY_LINES = 200  # more make the picture slow and not clearer


class FeaturePathDisplay(Display):
    """Norms of features' weights while a penalty rises, round after round.

    The horizontal axis is that of ``CGESSelector.scores_``: the rounds survived and the
    share of the present one, so that each line ends at the feature's score.

    Parameters
    ----------
    paths : sequence of FeaturePath
        One per round, as ``CGESSelector.paths_``.
    names : array-like of str or None, default=None
        Names of the features; None takes their numbers.

    Attributes
    ----------
    ax_ : Axes
        The axes of the lines.
    figure_ : Figure
        The figure of the axes.
    lines_ : dict of int to list of Line2D
        Under the numbers of the highlighted features their lines, one per round.

    See Also
    --------
    FeaturePathDisplay.from_estimator : Show a fitted selector.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_structreg import CGESSelector
    >>> from sklearn_structreg.cges import FeaturePathDisplay
    >>> X = np.random.default_rng(0).standard_normal((200, 6))
    >>> selector = CGESSelector(1, random_state=0).fit(X, X[:, 2] > 0)
    >>> display = FeaturePathDisplay(selector.paths_).plot(n_features=1)
    >>> list(display.lines_)
    [2]
    """

    def __init__(
        self, paths: Sequence[FeaturePath], *, names: npt.ArrayLike | None = None
    ) -> None:
        self.paths = paths
        self.names = names

    @classmethod
    def from_estimator(cls, estimator: CGESSelector, **plot_params: Any) -> Self:
        """Show the path of a fitted selector.

        Parameters
        ----------
        estimator : CGESSelector
            Fitted.
        **plot_params : dict
            Passed to :meth:`plot`.

        Returns
        -------
        FeaturePathDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            If `estimator` is another object, such as a pipeline.
        """
        if not isinstance(estimator, CGESSelector):
            raise TypeError(
                "FeaturePathDisplay takes a CGESSelector; got "
                f"{type(estimator).__name__}. Of a pipeline give the step."
            )
        check_is_fitted(estimator, "paths_")
        names = getattr(estimator, "feature_names_in_", None)
        return cls(estimator.paths_, names=names).plot(**plot_params)

    def plot(self, ax: Axes | None = None, *, n_features: int = 10) -> Self:
        """Draw a line for each feature.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw in. None makes a figure.
        n_features : int, default=10
            How many of the best features have colours and names; of the others at most
            200 in a round are drawn, in grey.

        Returns
        -------
        FeaturePathDisplay
            The display.
        """
        check_matplotlib_support("FeaturePathDisplay.plot")
        check_integer("n_features", n_features)
        axis = take_axes(ax, (8.0, 4.0)).item()
        self.ax_: Axes = axis
        self.figure_: Figure | SubFigure = axis.figure
        best = rank_features(list(self.paths))[0][:n_features].tolist()
        self.lines_: dict[int, list[Any]] = {feature: [] for feature in best}
        for number, path in enumerate(self.paths):
            steps = number + np.arange(1, len(path.norms) + 1) / len(path.norms)
            norms = np.where(path.norms > 0, path.norms, np.nan)
            others = np.flatnonzero(~np.isin(path.features, best))[:_GREY_LINES]
            axis.plot(steps, norms[:, others], color="0.8", linewidth=0.5)
            for place, feature in enumerate(best):
                column = norms[:, path.features == feature]
                if column.size:
                    style = {"color": f"C{place % 10}", "linewidth": 1.5}
                    self.lines_[feature] += axis.plot(steps, column, **style)
            if number:
                axis.axvline(number, color="0.5", linestyle=":", linewidth=1)
        for feature, lines in self.lines_.items():
            name = feature if self.names is None else np.asarray(self.names)[feature]
            lines[0].set_label(str(name))
        axis.set(xlabel="score: rounds survived", ylabel="norm of the weights")
        axis.legend(
            title="feature",
            fontsize="small",
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
        )
        return self
