"""A picture of a cross-validated strength, and of the features under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import is_regressor
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from sklearn_structreg.cges.cv import CrossValidated
from sklearn_structreg.core.axes import Display, take_axes
from sklearn_structreg.core.checks import check_integer

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = ["StrengthDisplay"]

_CHOSEN = "tab:orange"
_MOST_TICKS = 8  # their labels do not touch
_FEWEST_BARS = 6  # space for so many, else bars are thick


class StrengthDisplay(Display):
    """Scores over the strength, and the largest importances at the chosen one.

    Parameters
    ----------
    alphas : array-like of shape (n_alphas,)
        The strengths, in increasing order.
    mean_scores, standard_errors : array-like of shape (n_alphas,)
        Means of the scores over the folds, and their standard errors.
    alpha : float
        The chosen one of the strengths.
    importances : array-like of shape (n_features,)
        Of the features; 0 means that a feature is not used.
    names : array-like of str or None, default=None
        Names of the features; None takes their numbers.
    score_name : str, default="score"
        Label of the scores.

    Attributes
    ----------
    axes_ : ndarray of Axes, shape (2,)
        With the scores, with the importances.
    figure_ : Figure
        The figure of the axes.

    See Also
    --------
    StrengthDisplay.from_estimator : Show a fitted estimator.

    Examples
    --------
    >>> from sklearn_structreg.cges import StrengthDisplay
    >>> scores, importances = [0.7, 0.9, 0.8], [0.0, 2.0, 1.0]
    >>> display = StrengthDisplay([0.1, 1, 10], scores, [0.02] * 3, 1, importances)
    >>> display.plot().axes_[1].get_title()
    '2 of 3 features used'
    """

    def __init__(
        self,
        alphas: npt.ArrayLike,
        mean_scores: npt.ArrayLike,
        standard_errors: npt.ArrayLike,
        alpha: float,
        importances: npt.ArrayLike,
        *,
        names: npt.ArrayLike | None = None,
        score_name: str = "score",
    ) -> None:
        self.alphas = alphas
        self.mean_scores = mean_scores
        self.standard_errors = standard_errors
        self.alpha = alpha
        self.importances = importances
        self.names = names
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator: CrossValidated, **plot_params: Any) -> Self:
        """Show a fitted estimator.

        Parameters
        ----------
        estimator : CGESClassifierCV or CGESRegressorCV
            Fitted.
        **plot_params : dict
            Passed to :meth:`plot`.

        Returns
        -------
        StrengthDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            If `estimator` is another one, such as a pipeline.
        """
        if not isinstance(estimator, CrossValidated):
            raise TypeError(
                "StrengthDisplay takes a CGESClassifierCV or CGESRegressorCV; got "
                f"{type(estimator).__name__}. Of a pipeline give the step."
            )
        check_is_fitted(estimator, "alphas_")
        score = "R²" if is_regressor(estimator) else "accuracy"
        if estimator.scoring is not None:
            score = getattr(estimator.scoring, "__name__", "score")
            if isinstance(estimator.scoring, str):
                score = estimator.scoring.replace("_", " ")
        display = cls(
            estimator.alphas_,
            estimator.mean_scores_,
            estimator.standard_errors_,
            estimator.alpha_,
            estimator.feature_importances_,
            names=getattr(estimator, "feature_names_in_", None),
            score_name=score,
        )
        return display.plot(**plot_params)

    def plot(self, ax: Any = None, *, n_features: int = 10) -> Self:
        """Draw both pictures.

        Parameters
        ----------
        ax : array-like of two Axes, default=None
            Axes to draw in. None makes a figure.
        n_features : int, default=10
            The most features to name; those that are not used are left out.

        Returns
        -------
        StrengthDisplay
            The display.
        """
        check_matplotlib_support("StrengthDisplay.plot")
        check_integer("n_features", n_features)
        axes = take_axes(ax, (10.0, 4.0), (1, 2))[0]
        self.axes_: npt.NDArray[Any] = axes
        self.figure_: Figure | SubFigure = axes[0].figure
        self._draw_scores(axes[0])
        self._draw_importances(axes[1], n_features)
        return self

    def _draw_scores(self, axis: Any) -> None:
        """Draw the means with their standard errors, and mark the chosen strength."""
        alphas = np.asarray(self.alphas, dtype=float)
        scores, errors = np.asarray(self.mean_scores), np.asarray(self.standard_errors)
        if len(alphas) > 1 and alphas[0] > 0:
            axis.set_xscale("log")
        elif len(alphas) > 1:  # 0 has a place beside the powers of ten
            axis.set_xscale("symlog", linthresh=alphas[1])
        axis.errorbar(alphas, scores, yerr=errors, marker="o", capsize=3, zorder=2)
        chosen = int(np.argmin(np.abs(alphas - self.alpha)))
        label = f"chosen: alpha = {self.alpha:.2g}"
        style = {"color": _CHOSEN, "markersize": 9, "linestyle": "none", "zorder": 3}
        axis.plot(alphas[chosen], scores[chosen], marker="o", label=label, **style)
        axis.axvline(alphas[chosen], color=_CHOSEN, linestyle="--", linewidth=1)
        if len(alphas) <= _MOST_TICKS:
            axis.set_xticks(alphas, [f"{alpha:.2g}" for alpha in alphas])
            axis.minorticks_off()
        axis.set(xlabel="alpha", ylabel=f"{self.score_name} (mean over folds)")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")

    def _draw_importances(self, axis: Any, n_features: int) -> None:
        """Draw a bar for each of the features that are used most."""
        importances = np.asarray(self.importances, dtype=float)
        best = np.argsort(-importances, kind="stable")[:n_features]
        best = best[importances[best] > 0]
        names = best if self.names is None else np.asarray(self.names)[best]
        places = np.arange(len(best))
        axis.barh(places, importances[best], height=0.7, color=_CHOSEN)
        axis.set_yticks(places, [str(name) for name in names])
        axis.set_ylim(max(len(best), _FEWEST_BARS) - 0.5, -0.5)
        n_used, n = int((importances > 0).sum()), len(importances)
        axis.set(xlabel="importance", title=f"{n_used} of {n} features used")
        if self.names is None:
            axis.set_ylabel("number of the feature")
