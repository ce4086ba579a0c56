"""Time ConfusionSpectralPartitioner, alone and beside SpectralClustering.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.partitioner compare
    OMP_NUM_THREADS=1 python -m benchmarks.speed.partitioner stream
    OMP_NUM_THREADS=1 python -m benchmarks.speed.partitioner top_k

`compare` gives both the same confusions of planted groups, in one process and by turns:
the partitioner the sparse confusion matrix C, scikit-learn's SpectralClustering the
dense B = C C^T, whose forming is timed apart and not counted in `ratio`. `stream`
counts a million held-out samples of 17,000 classes by `partial_fit` and groups them,
and reports throughput and peak memory. `top_k` shows how well planted groups are found
as K grows, which is what the choice of "auto" rests on. Results go to
benchmarks/results/ as JSON.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from sklearn_structreg.selfinformed import ConfusionSpectralPartitioner

RESULTS = Path(__file__).parents[1] / "results"
# Groups of different sizes: shares of the classes.
SHARES = np.array([0.25, 0.20, 0.18, 0.15, 0.12, 0.10])


def planted_groups(n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Assign the classes to groups of unequal sizes, in no order."""
    edges = np.round(np.cumsum(SHARES) * n_classes)
    return rng.permutation(np.searchsorted(edges, np.arange(n_classes), side="right"))


def look_alikes(
    groups: np.ndarray, n_each: int | None, rng: np.random.Generator
) -> list[np.ndarray]:
    """List, for each class, which classes of its group it resembles; None means all."""
    members = [np.flatnonzero(groups == group) for group in range(SHARES.size)]
    if n_each is None:
        return [members[group] for group in groups]
    return [rng.choice(members[group], n_each) for group in groups]


def planted_batches(
    alike: list[np.ndarray],
    n_samples: int,
    batch_size: int,
    bonus: float,
    rng: np.random.Generator,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield scores and labels: uniform noise, and a bonus for the label's look-alikes.

    Three classes drawn from all get the bonus too, so that no group stands apart.

    The noise is drawn once and then reordered, by rows and by a rotation of the
    columns, for drawing every score afresh would take longer than counting them.
    """
    n_classes = len(alike)
    noise = rng.random((batch_size, 2 * n_classes), dtype=np.float32)
    X = np.empty((batch_size, n_classes), dtype=np.float32)
    for start in range(0, n_samples, batch_size):
        size = min(batch_size, n_samples - start)
        y = rng.integers(0, n_classes, size)
        rows, shift = rng.permutation(batch_size)[:size], rng.integers(n_classes)
        for x, row, label in zip(X, rows, y, strict=False):
            x[:] = noise[row, shift : shift + n_classes]
            x[alike[label]] += np.float32(bonus)
            x[label] += np.float32(bonus)
            x[rng.integers(0, n_classes, 3)] += np.float32(bonus)
        yield X[:size], y


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def peak_gb() -> float:
    """Return the process's peak resident memory so far, in 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def compare(sizes: list[int], repeats: int) -> list[dict[str, Any]]:
    """Time both on the same planted confusions, by turns; medians.

    Confusions are concentrated (a class resembles up to 100 others) or diffuse (it
    resembles its whole group alike, which leaves C far less sparse).
    """
    cases = [(n, kind) for n in sizes for kind in ("concentrated", "diffuse")]
    rows = []
    for n_classes, kind in cases:
        rng = np.random.default_rng(n_classes)
        groups = planted_groups(n_classes, rng)
        diffuse = kind == "diffuse"
        alike = look_alikes(groups, None if diffuse else 100, rng)
        counter = ConfusionSpectralPartitioner(classes=range(n_classes))
        bonus = 0.03 if diffuse else 0.7
        for X, y in planted_batches(alike, 40 * n_classes, 1000, bonus, rng):
            counter.partial_fit(X, y)
        C = counter.confusion_
        dense = C.toarray()
        form_seconds, B = timed(lambda C=dense: C @ C.T)
        ours, theirs = [], []
        for _ in range(repeats):
            mine = ConfusionSpectralPartitioner(
                SHARES.size, source="precomputed", random_state=0
            )
            ours.append(timed(lambda m=mine, C=C: m.fit(C))[0])
            peer = SpectralClustering(
                SHARES.size, affinity="precomputed", random_state=0
            )
            theirs.append(timed(lambda p=peer, B=B: p.fit(B))[0])
        row = {
            "n_classes": n_classes,
            "confusions": kind,
            "top_k": counter.top_k_,
            "nonzeros_of_C": int(C.nnz),
            "partitioner_seconds": statistics.median(ours),
            "spectral_clustering_seconds": statistics.median(theirs),
            "forming_B_seconds": form_seconds,
            "ratio": statistics.median(theirs) / statistics.median(ours),
            "ratio_with_forming_B": (
                (statistics.median(theirs) + form_seconds) / statistics.median(ours)
            ),
            "ari_between": adjusted_rand_score(mine.labels_, peer.labels_),
            "ari_partitioner_to_planted": adjusted_rand_score(mine.labels_, groups),
            "ari_spectral_clustering_to_planted": adjusted_rand_score(
                peer.labels_, groups
            ),
            "repeats": repeats,
        }
        print(row, flush=True)
        rows.append(row)
    return rows


def stream(n_classes: int, n_samples: int, batch_size: int) -> list[dict[str, Any]]:
    """Count a stream of batches, then group; seconds apart from making the data."""
    rng = np.random.default_rng(0)
    groups = planted_groups(n_classes, rng)
    partitioner = ConfusionSpectralPartitioner(
        SHARES.size, top_k=100, classes=range(n_classes), random_state=0
    )
    alike = look_alikes(groups, None, rng)
    started, counting, before = time.perf_counter(), 0.0, peak_gb()
    for X, y in planted_batches(alike, n_samples, batch_size, 0.03, rng):
        counting += timed(lambda X=X, y=y: partitioner.partial_fit(X, y))[0]
    counted_gb = peak_gb()
    clustering, labels = timed(lambda: partitioner.labels_)
    row = {
        "n_classes": n_classes,
        "n_samples": n_samples,
        "top_k": partitioner.top_k_,
        "batch_size": batch_size,
        "counting_seconds": counting,
        "samples_per_second": n_samples / counting,
        "clustering_seconds": clustering,
        "total_seconds_with_data": time.perf_counter() - started,
        "nonzeros_of_C": int(partitioner.confusion_.nnz),
        "ari_to_planted": adjusted_rand_score(labels, groups),
        "peak_gb_before": before,
        "peak_gb_after_counting": counted_gb,
        "peak_gb": peak_gb(),
    }
    print(row, flush=True)
    return [row]


def sweep_top_k(seeds: int = 4) -> list[dict[str, Any]]:
    """Find planted groups with one K after the other: mean agreement with the plan."""
    rows = []
    for n_classes, n_samples, bonus in [
        (20, 600, 0.15),
        (100, 4_000, 0.06),
        (1_000, 20_000, 0.03),
    ]:
        auto = max(2, round(n_classes * 100 / 17_000))
        for top_k in sorted({auto, 2, 3, 5, 10, n_classes // 6, n_classes // 2}):
            for source in ("confusion", "codetection"):
                scores = []
                for seed in range(seeds):
                    rng = np.random.default_rng(seed)
                    groups = planted_groups(n_classes, rng)
                    alike = look_alikes(groups, None, rng)
                    partitioner = ConfusionSpectralPartitioner(
                        SHARES.size,
                        top_k=top_k,
                        source=source,
                        classes=range(n_classes),
                        random_state=0,
                    )
                    for X, y in planted_batches(alike, n_samples, 1000, bonus, rng):
                        partitioner.partial_fit(X, y)
                    scores.append(adjusted_rand_score(partitioner.labels_, groups))
                row = {
                    "n_classes": n_classes,
                    "n_samples": n_samples,
                    "source": source,
                    "top_k": partitioner.top_k_,
                    "auto": top_k == auto,
                    "mean_ari": statistics.mean(scores),
                }
                print(row, flush=True)
                rows.append(row)
    return rows


def save(name: str, rows: list[dict[str, Any]]) -> None:
    """Write the rows, and what they were measured with, to benchmarks/results/."""
    RESULTS.mkdir(exist_ok=True)
    versions = {m.__name__: m.__version__ for m in (np, scipy, sklearn)}
    about = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "python": platform.python_version(),
        **versions,
    }
    text = json.dumps({"about": about, "rows": rows}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["compare", "stream", "top_k"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 5000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--classes", type=int, default=17_000)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=2_000)
    args = parser.parse_args()
    with threadpool_limits(1):
        if args.what == "compare":
            rows = compare(args.sizes, args.repeats)
        elif args.what == "top_k":
            rows = sweep_top_k()
        else:
            rows = stream(args.classes, args.samples, args.batch)
    save(f"partitioner_{args.what}", rows)


if __name__ == "__main__":
    main()
