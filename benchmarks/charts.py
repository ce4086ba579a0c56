"""Charts of results, all alike: dots with errors, and lines; a panel below the other.

They are narrow, so that a telephone shows them whole and the letters can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

__all__ = [
    *("COLOURS", "DPI", "OURS", "PLAIN", "STYLE", "WIDTH"),
    *("Dots", "Lines", "draw_dots", "draw_lines"),
]

WIDTH, DPI = 4.8, 180
PLAIN, OURS = "0.45", "#c1272d"
COLOURS = [
    *(OURS, "#1f6fb2", "#e08a1e", "#4a9a4a", "#7b5ea7", PLAIN),
    *("#17a2b8", "#8c564b", "0.1"),
]
MARKERS = "oDs^vP<>X"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "legend.frameon": False,
    "lines.markersize": 5,
    "lines.linewidth": 1.4,
}

Dots = Mapping[str, Mapping[str, Sequence[float]]]
"""By contestant and series the values over seeds, or a single one."""
Lines = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""By contestant its places and its heights."""


@contextmanager
def new_chart(
    path: Path, heights: Sequence[float], names: Sequence[str], sharex: bool
) -> Iterator[list[Axes]]:
    """Make panels of given heights, with a legend on top, and write the file."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            *(len(heights), 1),
            figsize=(WIDTH, sum(heights)),
            height_ratios=heights,
            sharex=sharex,
            squeeze=False,
            layout="constrained",
        )
        yield list(axes[:, 0])
        found: dict[str, Any] = {}
        for ax in axes[:, 0]:
            handles, labels = ax.get_legend_handles_labels()
            found |= dict(zip(labels, handles, strict=True))
        if len(names) > 1:
            columns = 2 if max(map(len, names)) > 14 else 3
            place = {"loc": "outside upper left", "ncols": columns}
            shown = [found[name] for name in names]
            figure.legend(shown, names, **place, columnspacing=1)
        figure.savefig(path, dpi=DPI)
        plt.close(figure)


def draw_dots(
    path: Path,
    panels: Mapping[str, Dots],
    xlabel: str,
    *,
    reference: float | None = None,
    log: bool = False,
    sharex: bool = True,
    seeds: bool = False,
    ours: Callable[[str], bool] = lambda label: False,
) -> None:
    """Draw means with their standard errors, a line a contestant, a colour a series.

    A vertical line marks the reference. Where there is one series, contestants that are
    `ours` have the colour of ours; with `seeds` the single values are shown, too. An
    empty series only takes its place in the legend.
    """
    series = {title: names_in(rows.values()) for title, rows in panels.items()}
    names = names_in(series.values())
    heights = [
        max(0.26, 0.11 * len(series[title])) * len(rows) + 0.75
        for title, rows in panels.items()
    ]
    with new_chart(path, heights, names, sharex) as axes:
        for ax, (title, rows) in zip(axes, panels.items(), strict=True):
            if reference is not None:
                ax.axvline(reference, color=PLAIN, linewidth=0.9, zorder=0)
            own = series[title]
            for place, (label, row) in enumerate(rows.items()):
                for name, values in row.items():
                    if not values:
                        continue
                    number = names.index(name)
                    color = COLOURS[number]
                    if len(names) == 1:
                        color = OURS if ours(label) else COLOURS[1]
                    shift = 0.16 * (own.index(name) - (len(own) - 1) / 2)
                    at, n = place + shift, len(values)
                    if seeds and n > 1:
                        ax.plot(values, [at] * n, ".", color=color, alpha=0.35)
                    error = np.std(values, ddof=1) / np.sqrt(n) if n > 1 else 0
                    ax.errorbar(
                        np.mean(values),
                        at,
                        xerr=error or None,
                        fmt=MARKERS[number],
                        color=color,
                        capsize=2,
                        label=name,
                    )
            ax.set_yticks(range(len(rows)), list(rows))
            ax.set_ylim(len(rows) - 0.4, -0.6)
            ax.set_title(title)
            if log:
                log_scale(ax, "x")
            ax.tick_params(axis="y", length=0)
        axes[-1].set_xlabel(xlabel)


def draw_lines(
    path: Path,
    panels: Mapping[str, Lines],
    xlabel: str,
    ylabel: str,
    *,
    log: bool = False,
    logy: bool = False,
    sharex: bool = True,
    height: float = 2.6,
) -> None:
    """Draw a line with marks for each contestant."""
    names = names_in(panels.values())
    with new_chart(path, [height] * len(panels), names, sharex) as axes:
        for ax, (title, lines) in zip(axes, panels.items(), strict=True):
            for label, (x, y) in lines.items():
                number = names.index(label)
                color, marker = COLOURS[number], MARKERS[number]
                ax.plot(x, y, color=color, marker=marker, label=label)
            ax.set_title(title)
            ax.set_ylabel(ylabel)
            if log:
                log_scale(ax, "x")
            if logy:
                log_scale(ax, "y")
        axes[-1].set_xlabel(xlabel)


def names_in(groups: Iterable[Iterable[str]]) -> list[str]:
    """Return the different names of all groups, in order."""
    return list(dict.fromkeys(name for group in groups for name in group))


def log_scale(ax: Axes, axis: str) -> None:
    """Make an axis logarithmic, with plain numbers at 1, or at 1, 2 and 5."""
    getattr(ax, f"set_{axis}scale")("log")
    each = getattr(ax, f"{axis}axis")
    low, high = each.get_view_interval()
    each.set_major_locator(plt.LogLocator(subs=(1,) if high > 300 * low else (1, 2, 5)))
    each.set_major_formatter("{x:g}")
    each.set_minor_locator(plt.NullLocator())
