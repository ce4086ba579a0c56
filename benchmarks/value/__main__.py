"""Run the suite: which method gains on which data, beside rivals tuned alike.

    python -m benchmarks.value --small --data FOLDER [FOLDER ...]

FOLDERs hold tables as ``.npz`` files with X and y, and mnist.npz and cifar100.npz with
x_train, y_train, x_test and y_test; without them there are scikit-learn's sets and made
ones. ``--small`` takes about half an hour on two cores: three seeds, few rows, images
at half their size. Every fit is a line of the results file, and is not repeated where
it is there: stop and start as you like, and delete the file to start anew. Rivals that
are not installed are named and left out.

``python -m benchmarks.value.report`` then writes the tables and the figure of the docs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.value.accuracy import compete
from benchmarks.value.contestants import CONTESTANTS
from benchmarks.value.datasets import data_sets
from benchmarks.value.report import results_file
from benchmarks.value.runs import Runs, in_processes


def work(
    name: str,
    seed: int,
    folders: tuple[Path, ...],
    small: bool,
    chosen: list[str],
    file: Path,
) -> None:
    """Do one split of a data set."""
    data = next(d for d in data_sets(folders, small) if d.name == name)
    contestants = [c for c in CONTESTANTS if not chosen or c.name in chosen]
    compete(data, seed, contestants, Runs(file))
    print(f"{name}, seed {seed}: done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders")
    parser.add_argument("--small", action="store_true", help="half an hour's work")
    parser.add_argument("--seeds", type=int, help="3 with --small, else 5")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="the file of results")
    parser.add_argument("--sets", nargs="*", default=[], help="only these data sets")
    parser.add_argument("--contestants", nargs="*", default=[], help="only these")
    arguments = parser.parse_args()
    for contestant in CONTESTANTS:
        if contestant.is_missing:
            print(f"{contestant.name}: left out, {contestant.needs} is not installed")
    folders = tuple(arguments.data)
    file = arguments.json or results_file(arguments.small)
    names = [d.name for d in data_sets(folders, arguments.small)]
    names = [n for n in names if not arguments.sets or n in arguments.sets]
    n_seeds = arguments.seeds or (3 if arguments.small else 5)
    shared = folders, arguments.small, arguments.contestants, file
    jobs = [(name, seed, *shared) for seed in range(n_seeds) for name in names]
    in_processes(work, jobs, arguments.processes)


if __name__ == "__main__":
    main()
