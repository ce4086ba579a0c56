"""The rules for a default, checked on the runs: each holds, or where it fails is said.

1. At its defaults a method is never more than half a point below the plain net, nor
   below MLPClassifier, on any data set, and never costs more than twice the plain net's
   time. On the tables, CGES is within a point of RealMLP-TD-S in the mean.
2. The default shows the method at work: CGES leaves at most 60 % of the weights;
   Blockout's probabilities move; DropCluster begins before the training ends; heads
   cost at most a tenth of the network.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.value.contestants import PLAIN
from benchmarks.value.runs import Runs
from benchmarks.value.standing import (
    Entry,
    Found,
    cost,
    differences,
    entries,
    groups_of,
    mean_and_error,
    spoken,
)

__all__ = ["tables"]

MARGIN, MOST_TIME, REALMLP_MARGIN = -0.5, 2.0, -1.0
AT_WORK: dict[str, tuple[str, str, Callable[[float], bool]]] = {
    "CGES": ("zeros", "zeros at least .40", lambda zeros: zeros >= 0.4),
    "CGES, group": ("zeros", "zeros at least .40", lambda zeros: zeros >= 0.4),
    "Blockout": ("moved", "probabilities move by .05", lambda moved: moved >= 0.05),
    "DropCluster": ("began", "drops clusters", lambda began: began == 1),
    "Self-informed": ("heads", "heads cost at most .1", lambda heads: heads <= 0.1),
}
"""For each method a figure, the rule in words, and the rule."""


def tables(runs: Runs) -> dict[str, str]:
    """Return the list of the rules, met and failed, for each method."""
    found = entries(runs)
    names = [name for group in groups_of(runs).values() for name in group]
    lines: list[str] = []
    for method in AT_WORK:
        entry = (method, "default")
        if entry not in found:
            continue
        lines += [method]
        for rival in (PLAIN, "MLPClassifier"):
            checked = {}
            for name in names:
                values = differences(found, entry, name, (rival, "default"))
                if values:
                    mean, error = mean_and_error(values)
                    checked[name] = (mean >= MARGIN, spoken(mean, error))
            lines.append(line(f"at most .5 points below {rival}", checked))
        ratios = {name: cost(found, entry, name) for name in found[entry]}
        checked = {
            name: (ratio <= MOST_TIME, f"{ratio:.1f}x")
            for name, ratio in ratios.items()
            if not np.isnan(ratio)
        }
        lines.append(line("at most 2x the plain net's time", checked))
        lines += [at_work(found, entry), ""]
    return {"rules": "\n".join([*lines, beside_realmlp(found, groups_of(runs))])}


def at_work(found: Found, entry: Entry) -> str:
    """Check whether the default does anything."""
    figure, words, holds = AT_WORK[entry[0]]
    checked = {}
    for name, by_seed in found[entry].items():
        values = [run[figure] for run in by_seed.values() if figure in run]
        if values:
            mean = float(np.mean(values))
            checked[name] = (holds(mean), f"{mean:.2f}")
    return line(words, checked)


def line(rule: str, checked: dict[str, tuple[bool, str]]) -> str:
    """Say on how many data sets a rule holds, and name the others."""
    failed = [f"{name} {text}" for name, (holds, text) in checked.items() if not holds]
    verdict = "FAILS" if failed else "holds"
    start = f"  {verdict}  {rule}: {len(checked) - len(failed)} of {len(checked)} sets"
    return "\n".join([start, *(f"           {name}" for name in failed)])


def beside_realmlp(found: Found, groups: dict[str, list[str]]) -> str:
    """Compare the default of CGES with RealMLP-TD-S on the raw tables."""
    names = [n for group in ("scikit-learn", "wide") for n in groups.get(group, [])]
    pairs = [
        differences(found, ("CGES", "default"), name, ("RealMLP-TD-S", "default"))
        for name in names
        if not name.endswith("scaled")
    ]
    means = [np.mean(pair) for pair in pairs if pair]
    if not means:
        return "CGES and RealMLP-TD-S did not run on the same tables."
    mean, error = mean_and_error(means)
    verdict = "holds" if mean >= REALMLP_MARGIN else "FAILS"
    return (
        f"  {verdict}  CGES at most 1 point below RealMLP-TD-S on the mean of "
        f"{len(means)} tables: {spoken(mean, error)}"
    )
