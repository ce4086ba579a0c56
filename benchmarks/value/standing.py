"""Tables and figure of the accuracies: each contestant beside the plain net."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.value.accuracy import SECTION, best
from benchmarks.value.contestants import CONTESTANTS, PLAIN
from benchmarks.value.runs import Run, Runs

__all__ = [
    "Entry",
    "Found",
    "cost",
    "differences",
    "draw",
    "entries",
    "groups_of",
    "mean_and_error",
    "paired",
    "spoken",
    "tables",
]

Entry = tuple[str, str]
"""The name of a contestant, and "default" or "tuned"."""
REFERENCE: Entry = (PLAIN, "default")
TICKS = (-50, -20, -10, -4, -2, 0, 2, 4, 10, 20, 50)
Found = dict[Entry, dict[str, dict[int, Run]]]


def entries(runs: Runs) -> Found:
    """Return the test runs by contestant, data set and seed.

    The default of a contestant is its run without a setting; the tuned one is the
    setting that did best on validation rows.
    """
    grouped: dict[tuple[str, str, int], list[Run]] = defaultdict(list)
    for run in runs.select(section=SECTION):
        grouped[run["contestant"], run["data"], run["seed"]].append(run)
    found: Found = defaultdict(lambda: defaultdict(dict))
    for (name, data, seed), group in grouped.items():
        tests = [run for run in group if run["part"] == "test"]
        choices = {"default": {}}
        validations = [run for run in group if run["part"] == "validation"]
        if validations:
            choices["tuned"] = best(validations)["setting"]
        for kind, setting in choices.items():
            for run in tests:
                if run["setting"] == setting:
                    found[name, kind][data][seed] = run
    order = [(c.name, kind) for c in CONTESTANTS for kind in ("default", "tuned")]
    return {entry: found[entry] for entry in order if entry in found}


def differences(
    found: Found, entry: Entry, data: str, to: Entry = REFERENCE, of: str = "accuracy"
) -> list[float]:
    """Return percentage points above another entry, for each split that both did."""
    ours, theirs = (found.get(who, {}).get(data, {}) for who in (entry, to))
    return [
        100 * (ours[seed][of] - theirs[seed][of])
        for seed in sorted(ours.keys() & theirs.keys())
        if of in ours[seed] and of in theirs[seed]
    ]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error, nan for a single value."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(np.mean(values)), float(error)


def paired(differences: Sequence[float]) -> str:
    """Write the mean difference with its standard error, where there is one."""
    mean, error = mean_and_error(differences)
    return f"{mean:+.2f}" + ("" if np.isnan(error) else f" +- {error:.2f}")


def cost(found: Found, entry: Entry, data: str) -> float:
    """Return the time of a fit by the plain net's, the median over the splits."""
    ours, plain = (found.get(who, {}).get(data, {}) for who in (entry, REFERENCE))
    both = ours.keys() & plain.keys()
    ratios = [ours[seed]["seconds"] / plain[seed]["seconds"] for seed in both]
    return float(np.median(ratios)) if ratios else np.nan


def groups_of(runs: Runs) -> dict[str, list[str]]:
    """Return the names of the data sets by group, both in the order of the runs."""
    groups: dict[str, list[str]] = defaultdict(list)
    for run in runs.select(section=SECTION):
        if run["data"] not in groups[run["group"]]:
            groups[run["group"]].append(run["data"])
    return dict(groups)


def label(entry: Entry) -> str:
    """Name a contestant in a table."""
    return entry[0] + (", tuned" if entry[1] == "tuned" else "")


def tables(runs: Runs) -> dict[str, str]:
    """Return the summary over groups of data sets, and figures on each set."""
    found, groups = entries(runs), groups_of(runs)

    def accuracy(entry: Entry, name: str) -> str:
        values = [run["accuracy"] for run in found[entry].get(name, {}).values()]
        return f"{100 * np.mean(values):.1f}" if values else "-"

    def shift(entry: Entry, name: str) -> str:
        values = differences(found, entry, name, of="corrupted")
        return spoken(*mean_and_error(values)) if values else "-"

    sheets = [sheet(group, found, names, accuracy) for group, names in groups.items()]
    n_splits = sum(len(by_seed) for by_seed in found.get(REFERENCE, {}).values())
    size = f"{len(runs.select(section=SECTION))} fits on {n_splits} splits"
    return {
        "summary": f"{summary(found, groups)}\n\n{size}",
        "accuracy": "\n\n".join(sheets),
        "shift": sheet("corrupted images", found, groups.get("images", []), shift),
    }


def summary(found: Found, groups: dict[str, list[str]]) -> str:
    """Return mean differences to the plain net, a contestant a line."""
    columns = [*groups, "all sets"]
    head = f"{'':32}" + "".join(f"{column:>15}" for column in columns)
    lines = [head + f"{'worst set':>24}{'sets':>6}{'time':>6}{'zeros':>7}"]
    everywhere = [name for names in groups.values() for name in names]
    for entry in found:
        means = means_on(everywhere, found, entry)
        if not means:
            continue
        cells = ""
        for names in [*groups.values(), everywhere]:
            part = [means[name] for name in names if name in means]
            cells += f"{spoken(*mean_and_error(part)) if part else '-':>15}"
        worst = min(means, key=lambda name: means[name])
        seconds = np.median([cost(found, entry, name) for name in means])
        lines.append(
            f"{label(entry):32}{cells}{f'{worst} {means[worst]:+.1f}':>24}"
            f"{len(means):>6}{seconds:6.1f}{share(found, entry, 'zeros'):>7}"
        )
    return "\n".join(lines)


def means_on(names: Sequence[str], found: Found, entry: Entry) -> dict[str, float]:
    """Return the mean difference to the plain net on each data set that both did."""
    values = {name: differences(found, entry, name) for name in names}
    return {name: float(np.mean(v)) for name, v in values.items() if v}


def share(found: Found, entry: Entry, figure: str) -> str:
    """Return the mean of a figure over all runs in per cent, or "-"."""
    runs = [run for by_seed in found[entry].values() for run in by_seed.values()]
    values = [run[figure] for run in runs if figure in run]
    return f"{100 * np.mean(values):.0f}%" if values else "-"


def sheet(
    title: str, found: Found, names: Sequence[str], cell: Callable[[Entry, str], str]
) -> str:
    """Return a table with a contestant a line, a data set and its splits a column."""
    splits = [len(found.get(REFERENCE, {}).get(name, {})) for name in names]
    heads = [f"{name} ({n})" for name, n in zip(names, splits, strict=True)]
    widths = [max(len(head), 11) + 2 for head in heads]
    rows = {label(entry): [cell(entry, name) for name in names] for entry in found}
    rows = {name: cells for name, cells in rows.items() if set(cells) != {"-"}}
    return "\n".join(
        f"{start:32}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))
        for start, cells in ({title: heads} | rows).items()
    )


def spoken(mean: float, error: float) -> str:
    """Write a mean difference with its standard error, where there is one."""
    return f"{mean:+.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")


def draw(runs: Runs, path: Path) -> None:
    """Draw every contestant's differences to the plain net, a dot for each data set."""
    import matplotlib.pyplot as plt

    from benchmarks.charts import COLOURS, DPI, STYLE, WIDTH

    found, groups = entries(runs), groups_of(runs)
    everywhere = [name for names in groups.values() for name in names]
    means = {entry: means_on(everywhere, found, entry) for entry in found}
    shown = [e for e in reversed(found) if e != REFERENCE and means[e]]
    size = (WIDTH, 1.2 + 0.23 * len(shown))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        for height, entry in enumerate(shown):
            for color, names in enumerate(groups.values()):
                dots = [means[entry][name] for name in names if name in means[entry]]
                axes.plot(
                    dots, [height] * len(dots), "o", c=COLOURS[color], ms=4, alpha=0.6
                )
            mean, error = mean_and_error(list(means[entry].values()))
            axes.errorbar(
                mean, height, xerr=error, fmt="D", c="k", ms=5, capsize=3, lw=1.2
            )
        axes.axvline(0, c="0.5", lw=0.8, zorder=0)
        axes.set_yticks(range(len(shown)), [label(entry) for entry in shown])
        axes.set_xscale("symlog", linthresh=5, linscale=2)
        low, high = axes.get_xlim()
        axes.set_xticks([t for t in TICKS if low <= t <= high], minor=False)
        axes.xaxis.set_major_formatter("{x:+g}")
        axes.xaxis.set_minor_locator(plt.NullLocator())
        axes.set_ylim(-0.8, len(shown) - 0.2)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("accuracy minus the plain net's, in points")
        for color, group in enumerate(groups):
            axes.plot([], [], "o", c=COLOURS[color], ms=4, alpha=0.6, label=group)
        axes.errorbar(
            [], [], xerr=[], fmt="D", c="k", ms=5, capsize=3, label="mean, error"
        )
        figure.legend(loc="outside upper left", ncols=3, columnspacing=1)
        figure.savefig(path, dpi=DPI)
        plt.close(figure)
