"""The runs of a benchmark: a file of JSON lines, and the work that is not in it yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Run", "Runs", "in_processes"]

Run = dict[str, Any]
DIGITS = 6  # of the numbers on a file


class Runs:
    """Runs on a file, a line each; processes may write to one file at a time.

    Parameters
    ----------
    path : Path
        The file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: list[Run] = [json.loads(line) for line in lines]

    def select(self, **key: Any) -> list[Run]:
        """Return the runs with these entries."""
        return [
            row for row in self.rows if all(row.get(k) == v for k, v in key.items())
        ]

    def values(self, name: str) -> list[Any]:
        """Return the different values of an entry, in the order of the runs."""
        return list(dict.fromkeys(row[name] for row in self.rows if name in row))

    def mean(self, figure: str, **key: Any) -> float:
        """Return the mean of a figure over the runs that have it; NaN without any."""
        found = [row[figure] for row in self.select(**key) if figure in row]
        return float(np.mean(found)) if found else np.nan

    def once(self, key: Run, work: Callable[..., Run], *args: Any, **named: Any) -> Run:
        """Return the run with this key; work for it only where there is none."""
        key = json.loads(json.dumps(key))  # a tuple becomes a list, as on the file
        for row in self.select(**key):
            return row
        row = key | json.loads(json.dumps(work(*args, **named)), parse_float=rounded)
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return row


def rounded(number: str) -> float:
    """Read a number with as many digits as are worth keeping."""
    return round(float(number), DIGITS)


def in_processes(
    function: Callable[..., None], jobs: Iterable[tuple[Any, ...]], n_processes: int
) -> None:
    """Call a function with each tuple of arguments, in so many processes."""
    if n_processes == 1:
        for job in jobs:
            function(*job)
        return
    with ProcessPoolExecutor(n_processes, get_context("spawn")) as pool:
        for future in [pool.submit(function, *job) for job in jobs]:
            future.result()
