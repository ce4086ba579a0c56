"""The runs of the suite: a file of JSON lines, and the work that is not in it yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

__all__ = ["Runs", "in_processes"]

Run = dict[str, Any]


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

    def once(self, key: Run, work: Callable[[], Run]) -> Run:
        """Return the run with this key; work for it only where there is none."""
        for row in self.select(**key):
            return row
        row = json.loads(json.dumps(key | work()))
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return row


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
