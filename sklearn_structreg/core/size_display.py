"""SizeDisplay: the plain, the trained and the compacted network side by side."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from sklearn_structreg.compaction.report import SizeReport, written
from sklearn_structreg.core.axes import Display, take_axes

__all__ = ["SizeDisplay"]

NETWORKS = {"plain": "0.75", "trained": "C0", "compacted": "C1"}
HEIGHT = 0.27


class SizeDisplay(Display):
    """Bars for the parameters, operations, bytes and time of three networks.

    Each is as long as its share of the plain network, or of the trained one where the
    report has no plain one.

    Parameters
    ----------
    report : SizeReport
        Of an estimator's method `size_report`, or the function.

    Attributes
    ----------
    ax_ : Axes
        The axes of the plot.
    figure_ : Figure
        The figure of the axes.

    See Also
    --------
    sklearn_structreg.compaction.SizeReport : The figures as a table.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn_structreg import CGESClassifier
    >>> from sklearn_structreg.core import SizeDisplay
    >>> X, y = load_wine(return_X_y=True)
    >>> net = CGESClassifier(alpha=1, penalty="group", random_state=0).fit(X, y)
    >>> display = SizeDisplay.from_estimator(net, X)
    >>> display.report.n_compact < display.report.n_plain
    True
    """

    def __init__(self, report: SizeReport) -> None:
        self.report = report

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        batch_size: int = 128,
        n_repeats: int = 21,
        unsupported: str = "raise",
        **plot_params: Any,
    ) -> Self:
        """Measure the networks of a fitted estimator, and draw them.

        Parameters
        ----------
        estimator : StructuredClassifier, CGESClassifier, ...
            Fitted.
        X, batch_size, n_repeats, unsupported : as in `size_report`
            Samples to run the networks on, and how.
        **plot_params : dict
            Passed to :meth:`plot`.

        Returns
        -------
        SizeDisplay
            The display, drawn.
        """
        report = estimator.size_report(
            X, batch_size=batch_size, n_repeats=n_repeats, unsupported=unsupported
        )
        return cls(report).plot(**plot_params)

    def plot(self, ax: Any = None) -> Self:
        """Draw the bars, with the figures at their ends.

        Parameters
        ----------
        ax : Axes, default=None
            None makes a figure.

        Returns
        -------
        SizeDisplay
            The display.
        """
        measures = {
            name: [value for value in values if value is not None]
            for name, values in self.report.measures().items()
        }
        measures = {name: values for name, values in measures.items() if values}
        places = np.arange(len(measures))
        names = [*NETWORKS][-len(measures["parameters"]) :]
        self.ax_ = take_axes(ax, (6.4, 0.6 + 0.9 * len(measures)))[0, 0]
        self.figure_ = self.ax_.figure
        for number, network in enumerate(names):
            values = [each[number] for each in measures.values()]
            shares = [100 * each[number] / each[0] for each in measures.values()]
            middle = number - (len(names) - 1) / 2
            bars = self.ax_.barh(
                places + HEIGHT * middle,
                shares,
                height=0.9 * HEIGHT,
                color=NETWORKS[network],
                label=network,
            )
            labels = [written(n, v) for n, v in zip(measures, values, strict=True)]
            self.ax_.bar_label(bars, labels, padding=3, fontsize="small")
        self.ax_.set_yticks(places, [*measures])
        self.ax_.invert_yaxis()
        self.ax_.set(xlabel=f"% of the {names[0]} network")
        self.ax_.margins(x=0.18)  # room for the figures
        self.ax_.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=len(names), frameon=False
        )
        return self
