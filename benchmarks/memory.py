"""How much memory a call takes beyond the data that it is given.

Each case runs in a process of its own: the data is made, a small call warms everything
up, and the peak of the resident memory during the call, less that before it, is divided
by the size of the data. Pages of files that are mapped into memory do not count.

Run ``python -m benchmarks.memory``; ``--json FILE`` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sklearn_structreg import CGESClassifier
from sklearn_structreg.core import StructuredClassifier, make_mlp
from sklearn_structreg.dropcluster import SpatialHopkins
from sklearn_structreg.selfinformed import SelfInformedClassifier

FEW = 200  # rows of the call that warms up
N_CLASSES = 5
Call = Callable[[np.ndarray], object]


def fit(estimator: StructuredClassifier) -> Call:
    """Fit to labels that follow from the first features."""
    return lambda X: estimator.fit(X, X[:, :N_CLASSES].argmax(axis=1))


FIT = {"max_epochs": 2, "random_state": 0}
CASES: dict[str, tuple[tuple[int, int], str, Call, float]] = {
    # name: shape of the data, its type, the call, the most it may take
    "batch_size=None, float64": (
        (40_000, 1000),
        "float64",
        fit(CGESClassifier(batch_size=None, **FIT)),
        2.0,
    ),
    "batch_size=None, float32": (
        (40_000, 1000),
        "float32",
        fit(CGESClassifier(batch_size=None, **FIT)),
        2.0,
    ),
    "batch_size=None, float32, own module": (
        (40_000, 1000),
        "float32",
        fit(CGESClassifier(make_mlp(1000, N_CLASSES), batch_size=None, **FIT)),
        2.0,
    ),
    "early stopping": (
        (40_000, 1000),
        "float32",
        fit(StructuredClassifier(early_stopping=True, **FIT)),
        0.5,
    ),
    "self-informed": (
        (40_000, 1000),
        "float32",
        fit(SelfInformedClassifier(n_clusters=2, **FIT)),
        1.5,
    ),
    "SpatialHopkins(n_points=5000)": (
        (20_000, 1024),
        "float32",
        SpatialHopkins(5000, image_shape=(1, 32, 32), random_state=0).fit_transform,
        1.0,
    ),
    "memory-mapped": (
        (100_000, 500),
        "float32 file",
        fit(StructuredClassifier(**FIT)),
        0.5,
    ),
}


def private_bytes() -> int:
    """Return the resident memory of this process that is not of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(x.split()[1]) for x in lines if x.startswith("RssAnon"))


def measure(name: str) -> float:
    """Run one case and return its peak, as a multiple of the data."""
    shape, kind, call, _ = CASES[name]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        X = make_data(shape, kind, Path(folder))
        call(X[:FEW].copy())
        before, peak, done = private_bytes(), 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.is_set():
                peak = max(peak, private_bytes())
                time.sleep(0.001)

        watcher = threading.Thread(target=watch)
        watcher.start()
        call(X)
        done.set()
        watcher.join()
    return (peak - before) / X.nbytes


def make_data(shape: tuple[int, int], kind: str, folder: Path) -> np.ndarray:
    """Draw samples, block by block; in a file if asked for."""
    dtype, *in_file = kind.split()
    rng = np.random.default_rng(0)
    X = np.empty(shape, dtype)
    if in_file:
        X = np.memmap(folder / "X", dtype, mode="w+", shape=shape)
    for rows in np.array_split(np.arange(shape[0]), 50):
        X[rows[0] : rows[-1] + 1] = rng.standard_normal((len(rows), shape[1]))
    if not in_file:
        return X
    X.flush()
    return np.memmap(folder / "X", dtype, mode="r", shape=shape)


def main() -> None:
    """Measure all cases, print a table, and keep the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="measure one case in this process")
    options = parser.parse_args()
    if options.only:
        print(measure(options.only))
        return
    figures = {}
    for name, (shape, kind, _, most) in CASES.items():
        command = [sys.executable, "-m", "benchmarks.memory", "--only", name]
        output = subprocess.run(command, check=True, capture_output=True, text=True)
        ratio = round(float(output.stdout.split()[-1]), 2)
        figures[name] = {"shape": shape, "type": kind, "ratio": ratio, "most": most}
        print(f"{name:40} {ratio:6.2f} times the data, at most {most}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
