"""Write the docs page's tables and figure from the runs of the suite.

    python -m benchmarks.value.report [--small]

Differences are paired: a contestant minus the plain net on the same split.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.value import rules, standing
from benchmarks.value.runs import Runs
from benchmarks.value.section import DOCS, RESULTS, write_page

Section = Callable[[Runs], dict[str, str]]

SECTIONS: list[Section] = [standing.tables, rules.tables]
"""Each makes named tables of the runs; docs/value.rst includes them."""


def results_file(small: bool) -> Path:
    """Return the file of the runs."""
    return RESULTS / f"value_{'small' if small else 'full'}.jsonl"


def write(runs: Runs, folder: Path) -> list[Path]:
    """Write every table, and the figure; return the files."""
    written = []
    for section in SECTIONS:
        for name, text in section(runs).items():
            path = folder / f"value_{name}.inc"
            write_page(path, text)
            written.append(path)
    path = folder / "value.png"
    standing.draw(runs, path)
    return [*written, path]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path, help="the file of results")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder to write into")
    arguments = parser.parse_args()
    runs = Runs(arguments.json or results_file(arguments.small))
    for path in write(runs, arguments.docs):
        print(path)


if __name__ == "__main__":
    main()
