"""Measure how the cost of each piece grows, for the page on large problems.

Pieces: a training epoch of a plain net, and of each method; ReNA; the counting of
confusions, and their grouping. Axes, one at a time and some decades of each: rows,
features, classes, clusters. Processor seconds of one thread; an epoch is the difference
of fits of few epochs and of more. Processes: seconds by the clock of a search on one
and on two of them, and of an epoch of a large network that `torchrun` divides, which
ask for an idle machine.

Run ``python -m benchmarks.speed.scaling`` (ten minutes); what the file of results has
is not measured again. It writes benchmarks/results/scaling.jsonl and
docs/scaling.inc with the exponents: slopes of the upper half of each curve.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.base import clone

from benchmarks.value.runs import Run, Runs
from benchmarks.value.section import write_page
from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    ConfusionSpectralPartitioner,
    DropClusterClassifier,
    ReNAClusterer,
    SelfInformedClassifier,
    StrengthSearchCV,
    StructuredClassifier,
)

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "scaling.jsonl"
PAGE = ROOT / "docs" / "scaling.inc"
FEW, EPOCHS = 1, 6
NETS = {
    "plain net": StructuredClassifier,
    "CGES": CGESClassifier,
    "Blockout": BlockoutClassifier,
    "DropCluster": DropClusterClassifier,
    "self-informed": SelfInformedClassifier,
}


def seconds_of(action: Callable[[], Any]) -> float:
    """Return the processor seconds of an action."""
    start = time.process_time()
    action()
    return time.process_time() - start


def timed(measure: Callable[[int], float], size: int) -> Run:
    return {"seconds": measure(size)}


def made_rows(n: int, d: int, n_classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    X = rng.standard_normal((n, d), np.float32)
    X[:, : min(d, 16)] += rng.standard_normal((n_classes, min(d, 16)))[y]
    return X, y


def epoch(kind: type, X: np.ndarray, y: np.ndarray, **params: Any) -> float:
    """Return the seconds of an epoch of training."""
    net = kind(random_state=0, **params)
    _, few, more = (  # the first fit of a process is slow
        seconds_of(partial(clone(net).set_params(max_epochs=n).fit, X, y))
        for n in (FEW, FEW, FEW + EPOCHS)
    )
    return (more - few) / EPOCHS


def epoch_of_rows(kind: type, n: int) -> float:
    if kind is DropClusterClassifier:
        X, y = made_rows(n, 256)
        return epoch(kind, X.reshape(-1, 1, 16, 16), y)
    return epoch(kind, *made_rows(n, 64))


def epoch_of_features(kind: type, d: int) -> float:
    return epoch(kind, *made_rows(1_000, d))


def epoch_of_classes(kind: type, n_classes: int) -> float:
    return epoch(kind, *made_rows(20_000, 32, n_classes))


def rena(n_rows: int, side: int, n_clusters: int) -> float:
    X = np.random.default_rng(0).standard_normal((n_rows, side**2), np.float32)
    clusterer = ReNAClusterer(n_clusters, image_shape=(side, side))
    return seconds_of(lambda: clusterer.fit(X))


def counting(n_rows: int, n_classes: int) -> float:
    """Return the seconds of counting, without those of making the scores."""
    rng = np.random.default_rng(0)
    partitioner = ConfusionSpectralPartitioner(2, top_k=5, classes=np.arange(n_classes))
    spent = 0.0
    for start in range(0, n_rows, 500):
        scores = rng.random((500, n_classes), np.float32)
        y = np.arange(start, start + 500) % n_classes
        spent += seconds_of(partial(partitioner.partial_fit, scores, y))
    return spent


def grouping(n_classes: int, n_clusters: int | None = None) -> float:
    """Return the seconds of grouping classes of which each resembles 19 others."""
    rng = np.random.default_rng(0)
    own = np.arange(n_classes)
    alike = np.minimum(own // 20 * 20 + rng.integers(20, size=(20, n_classes)), own[-1])
    rows, columns = (
        np.tile(own, 40),
        np.r_[alike.ravel(), rng.integers(n_classes, size=20 * n_classes)],
    )
    counts = np.repeat([5.0, 0.1], 20 * n_classes)
    C = csr_array((counts, (rows, columns)), shape=(n_classes, n_classes))
    k = n_clusters or n_classes // 20
    grouper = ConfusionSpectralPartitioner(k, source="precomputed", random_state=0)
    return seconds_of(lambda: grouper.fit(C))


def search(n_jobs: int) -> float:
    """Return the seconds by the clock, when the processes are there already."""
    X, y = made_rows(5_000, 64)
    net = CGESClassifier(random_state=0, max_epochs=5)
    grid = {"alpha": [0.1, 0.3, 1.0, 3.0]}
    searcher = StrengthSearchCV(net, grid, cv=4, n_jobs=n_jobs, refit=False)
    searcher.fit(X, y)
    start = time.perf_counter()
    searcher.fit(X, y)
    return time.perf_counter() - start


def one_fit() -> float:
    """Return the seconds by the clock of an epoch of a large network."""
    X, y = made_rows(20_000, 256)
    net = StructuredClassifier(
        hidden_layer_sizes=(1_024, 1_024), batch_size=1_000, random_state=0
    )
    net.set_params(max_epochs=1).fit(X, y)
    start = time.perf_counter()
    net.set_params(max_epochs=3).fit(X, y)
    return (time.perf_counter() - start) / 3


def divided(n_processes: int) -> float:
    """Return the seconds of an epoch that `torchrun` divides."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    size = f"--nproc-per-node={n_processes}"
    module = ["-m", "benchmarks.speed.scaling", "--one-fit"]
    done = subprocess.run(
        [*torchrun, size, *module], check=True, capture_output=True, text=True
    )
    return max(map(float, done.stdout.split()))


Curve = tuple[Callable[[int], float], list[int]]


def curves() -> dict[str, dict[str, Curve]]:
    """Return what to measure, and at which sizes, by axis and piece."""
    decades = [1_000, 3_000, 10_000, 30_000, 100_000]
    return {
        "rows": {
            **{
                f"epoch, {name}": (partial(epoch_of_rows, kind), decades[:-1])
                for name, kind in NETS.items()
            },
            "ReNA, 4,096 pixels": (
                lambda n: rena(n, 64, 64),
                [10, 30, 100, 300, 1_000, 3_000],
            ),
            "counting, 1,000 classes": (lambda n: counting(n, 1_000), decades[:-1]),
        },
        "features": {
            **{
                f"epoch, {name}": (partial(epoch_of_features, NETS[name]), decades)
                for name in ("plain net", "CGES", "Blockout")
            },
            "ReNA, 20 rows": (
                lambda n: rena(20, round(n**0.5), n // 50),
                [*decades, 300_000, 1_000_000],
            ),
        },
        "classes": {
            **{
                f"epoch, {name}": (
                    partial(epoch_of_classes, NETS[name]),
                    [10, 30, 100, 300, 1_000],
                )
                for name in ("plain net", "CGES", "Blockout", "self-informed")
            },
            "counting, 2,000 rows": (
                lambda n: counting(2_000, n),
                [100, 300, *decades[:-1]],
            ),
            "grouping, 20 to a group": (grouping, [100, 300, *decades[:3]]),
            "grouping, 20 groups": (
                lambda n: grouping(n, 20),
                [100, 300, *decades],
            ),
        },
        "clusters": {
            "epoch, Blockout": (
                lambda k: epoch(
                    BlockoutClassifier, *made_rows(3_000, 64), n_clusters=k
                ),
                [2, 4, 8, 16, 32, 64],
            ),
            "ReNA, 65,536 pixels": (
                lambda k: rena(20, 256, k),
                [10, 100, 1_000, 10_000],
            ),
            "grouping, 3,000 classes": (
                lambda k: grouping(3_000, k),
                [3, 10, 30, 100, 300],
            ),
        },
        "processes": {
            "search, 4 x 4 fits": (search, [1, 2]),
            "epoch by torchrun": (divided, [1, 2]),
        },
    }


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Return the slope of the upper half of a curve, both axes logarithmic."""
    half = len(sizes) // 2
    x, y = np.log(sizes[half:]), np.log(seconds[half:])
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else float("nan")


def collect(known: list[Run]) -> dict[str, dict[str, tuple[list[int], list[float]]]]:
    """Return sizes and seconds by axis and piece."""
    found: dict[str, Any] = {axis: {} for axis in curves()}
    for run in sorted(known, key=lambda run: run["size"]):
        sizes, seconds = found[run["axis"]].setdefault(run["piece"], ([], []))
        sizes.append(run["size"])
        seconds.append(run["seconds"])
    return found


def report(known: list[Run]) -> str:
    """Return the largest size of each curve, its seconds, and its exponent."""
    lines = [f"{'':34}{'largest size':>14}{'seconds':>10}{'exponent':>10}"]
    for axis, pieces in collect(known).items():
        lines.append(axis)
        for piece, (sizes, seconds) in pieces.items():
            slope = exponent(sizes, seconds) if axis != "processes" else float("nan")
            shown = "" if np.isnan(slope) else f"{slope:.2f}"
            lines.append(f"  {piece:32}{sizes[-1]:14,}{seconds[-1]:10.3f}{shown:>10}")
    return "\n".join(line.rstrip() for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=None, help="names of axes")
    parser.add_argument("--one-fit", action="store_true", help="of torchrun")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if given.one_fit:
        print(one_fit())
        return
    runs = Runs(RESULTS)
    for axis, pieces in curves().items():
        if given.only is not None and axis not in given.only:
            continue
        for piece, (measure, sizes) in pieces.items():
            for size in sizes:
                key = {"axis": axis, "piece": piece, "size": size}
                print(runs.once(key, timed, measure, size), flush=True)
    print(report(runs.rows))
    write_page(PAGE, report(runs.rows))


if __name__ == "__main__":
    main()
