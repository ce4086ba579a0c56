"""A picture of the price of sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sklearn_structreg.cges.path import CGESPath
from sklearn_structreg.core.axes import Display, take_axes
from sklearn_structreg.core.messages import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = ["TradeOffDisplay"]

_MARKERS = "osD^vP*X<>"


class TradeOffDisplay(Display):
    """Scores over the share of parameters and of multiply-adds.

    As the thesis's Fig. 3.

    Parameters
    ----------
    curves : mapping of str to mapping of str to array-like
        Under the name of each method its ``scores``, ``parameters`` and
        ``multiply_adds``, as fractions, of shape ``(n_strengths,)`` or ``(n_strengths,
        n_seeds)``.
    reference : str, default=None
        The method whose best mean score is drawn as a dashed line.
    score_name : str, default="accuracy"
        Label of the vertical axis.

    Attributes
    ----------
    axes_ : ndarray of Axes, shape (2,)
        Over parameters, over multiply-adds.
    figure_ : Figure
        The figure of the axes.

    See Also
    --------
    TradeOffDisplay.from_paths : Show results of `cges_path`.

    Examples
    --------
    >>> from sklearn_structreg.cges import TradeOffDisplay
    >>> curve = {"scores": [0.9, 0.8], "parameters": [0.5, 0.2],
    ...          "multiply_adds": [0.6, 0.4]}
    >>> TradeOffDisplay({"L1": curve}).plot().axes_[0].get_xlabel()
    'parameters left (%)'
    """

    def __init__(
        self,
        curves: Mapping[str, Mapping[str, npt.ArrayLike]],
        *,
        reference: str | None = None,
        score_name: str = "accuracy",
    ) -> None:
        self.curves = curves
        self.reference = reference
        self.score_name = score_name

    @classmethod
    def from_paths(
        cls,
        paths: Mapping[str, CGESPath | Sequence[CGESPath]],
        *,
        reference: str | None = None,
        score_name: str = "accuracy",
        **plot_params: Any,
    ) -> Self:
        """Show paths of strengths.

        Parameters
        ----------
        paths : mapping of str to CGESPath or sequence of CGESPath
            Under the name of each method its path, or those of several seeds along the
            same strengths.
        reference, score_name
            As in the class.
        **plot_params : dict
            Passed to :meth:`plot`.

        Returns
        -------
        TradeOffDisplay
            The display, drawn.
        """
        if not isinstance(paths, Mapping) or not paths:
            raise TypeError(f"paths={shown(paths)} must map names to paths.")
        curves = {}
        for label, group in paths.items():
            seeds = [group] if isinstance(group, CGESPath) else group
            several = isinstance(seeds, Sequence) and len(seeds)
            if not several or not all(isinstance(seed, CGESPath) for seed in seeds):
                raise TypeError(f"paths holds {shown(group)}, which is no CGESPath.")
            curves[label] = {
                name: np.stack([getattr(path, name) for path in seeds], axis=1)
                for name in ("scores", "parameters", "multiply_adds")
            }
        display = cls(curves, reference=reference, score_name=score_name)
        return display.plot(**plot_params)

    def plot(self, ax: Any = None) -> Self:
        """Draw both pictures.

        Error bars are 95 % confidence intervals of the mean over seeds, by Student's t.

        Parameters
        ----------
        ax : array-like of two Axes, default=None
            Axes to draw in. None makes a figure.

        Returns
        -------
        TradeOffDisplay
            The display.

        Raises
        ------
        ValueError
            If `reference` is none of the methods.
        """
        check_matplotlib_support("TradeOffDisplay.plot")
        if self.reference is not None and self.reference not in self.curves:
            raise ValueError(
                f"reference={self.reference!r} must be one of {list(self.curves)}."
            )

        own_figure = ax is None
        axes = take_axes(ax, (10.5, 4.2), (1, 2), sharey=True)[0]
        self.axes_: npt.NDArray[Any] = axes
        self.figure_: Figure | SubFigure = axes[0].figure
        for axis, cost in zip(axes, ("parameters", "multiply_adds"), strict=True):
            for i, (label, curve) in enumerate(self.curves.items()):
                share, _ = _mean_and_error(curve[cost])
                score, error = _mean_and_error(curve["scores"])
                order = np.argsort(share)
                axis.errorbar(
                    100 * share[order],
                    100 * score[order],
                    yerr=None if error is None else 100 * error[order],
                    label=label,
                    color=f"C{i % 10}",
                    marker=_MARKERS[i % len(_MARKERS)],
                    markersize=5,
                    linewidth=1.5,
                    elinewidth=0.8,
                    capsize=2,
                )
            if self.reference is not None:
                best, _ = _mean_and_error(self.curves[self.reference]["scores"])
                axis.axhline(100 * best.max(), color="0.5", linestyle="--", zorder=0)
            axis.set_xlabel(f"{cost.replace('_', '-')} left (%)")
            axis.grid(alpha=0.3)
        axes[0].set_ylabel(f"{self.score_name} (%)")
        handles, labels = axes[0].get_legend_handles_labels()
        if own_figure:  # beside the curves, however many there are
            self.figure_.legend(handles, labels, loc="outside right center")
        else:
            axes[0].legend(handles, labels, fontsize="small")
        return self


def _mean_and_error(
    values: npt.ArrayLike,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Return the mean over the second axis and half its 95 % confidence interval."""
    values = np.asarray(values, dtype=float)
    if values.ndim == 1 or values.shape[1] == 1:
        return values.reshape(len(values)), None
    n_seeds = values.shape[1]
    quantile = stats.t.ppf(0.975, n_seeds - 1)
    error = quantile * values.std(axis=1, ddof=1) / np.sqrt(n_seeds)
    return values.mean(axis=1), error
