"""A section of the suite: one command, its runs on a file, a table of them in the docs.

Every section takes the same options and works the same way: it measures the runs that
its file does not hold yet, so that it can be broken off and gone on with, and then
writes its page of the docs from all runs of the file. Delete the file to start anew.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.value.runs import Runs

__all__ = ["DOCS", "RESULTS", "Options", "run_section", "write_page"]

RESULTS = Path(__file__).parents[1] / "results"
DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True)
class Options:
    """The options of a section.

    Attributes
    ----------
    data : Path or None
        The folder of data sets.
    seeds : range
        The splits of each data set, or its folds; one with ``--small``.
    small : bool
        Whether to take little data.
    only : tuple of str
        Names of data sets; empty is all.
    """

    data: Path | None
    seeds: range
    small: bool
    only: tuple[str, ...]

    def wants(self, name: str) -> bool:
        """Whether a data set is to be measured."""
        return not self.only or name in self.only


def run_section(
    name: str,
    about: str | None,
    measure: Callable[[Runs, Options], None],
    report: Callable[[Runs], str],
    draw: Callable[[Runs, Path], None] | None = None,
    n_seeds: int = 3,
) -> None:
    """Read the options, measure the missing runs, write ``docs/<name>.inc``."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=n_seeds, help="splits of each")
    parser.add_argument("--small", action="store_true", help="one split, little data")
    parser.add_argument("--only", nargs="*", default=[], help="names of data sets")
    parser.add_argument("--json", type=Path, help="file of results; leaves the docs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    runs = Runs(given.json or RESULTS / f"{name}.jsonl")
    seeds = range(1 if given.small else given.seeds)
    measure(runs, Options(given.data, seeds, given.small, tuple(given.only)))
    text = report(runs)
    print(text)
    if given.json is None:
        write_page(DOCS / f"{name}.inc", text)
        if draw is not None:
            draw(runs, runs.path.with_suffix(".png"))


def write_page(path: Path, text: str) -> None:
    """Write a table as a part of the docs."""
    lines = [f"    {line}".rstrip() for line in text.splitlines()]
    path.write_text("\n".join([".. code-block:: text", "", *lines, ""]), "utf-8")
