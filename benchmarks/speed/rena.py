"""ReNA beside nilearn's ReNA and scikit-learn's Ward clustering, in one process.

    pip install nilearn  # for this comparison only
    OMP_NUM_THREADS=1 python -m benchmarks.speed.rena

One thread. Every case draws its images anew for each of several seeds: smooth random
fields under white noise, float32. Times are medians over repeated fits of the first
set, the contenders taking turns; explained variance is the share of the pixels'
variance (around each sample's mean) that cluster means keep, averaged over the sets.
For many channels a peer is called once per channel. "estimator" times are of whole
fits, checking of the input included; "core" is `rena` on a tensor against
`recursive_neighbor_agglomeration` on an array. Ours are compiled loops, and "torch,
core" is `rena` without them. `--profile` shares out the time of the core on either
path, beside one reading of the data.
"""

import argparse
import json
import os
import platform
import time
import warnings
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from statistics import median
from unittest import mock

import numba
import numpy as np
import sklearn
import torch
from scipy.ndimage import gaussian_filter
from sklearn.cluster import FeatureAgglomeration
from sklearn.feature_extraction.image import grid_to_graph

from sklearn_structreg.dropcluster import ReNAClusterer, _compiled, _loops, rena

# name: (channels, shape, samples, clusters, rounds of timing, whether Ward takes part)
CASES = {
    "64x64": (1, (64, 64), 128, 50, 9, True),
    "128x128": (1, (128, 128), 100, 250, 9, True),
    "256x256": (1, (256, 256), 100, 1000, 7, True),
    "48x48x48": (1, (48, 48, 48), 40, 1000, 5, True),
    "64 channels 16x16": (64, (16, 16), 128, 15, 5, True),
    "64 channels 32x32": (64, (32, 32), 128, 15, 5, True),
}


# The functions of the torch path to profile.
TORCH_STEPS = [
    "_first_round",
    "_link",
    "_contracted",
    "node_means",
    "edge_lengths",
]


@contextmanager
def torch_path():
    """Go without the compiled loops for a while."""
    before, _compiled.ENABLED = _compiled.ENABLED, False
    yield
    _compiled.ENABLED = before


def make_images(n_samples, n_channels, shape, seed):
    """Smooth random fields with half as much white noise on top."""
    rng = np.random.default_rng(seed)
    size = (n_samples, n_channels, *shape)
    fields = rng.standard_normal(size, dtype=np.float32)
    fields = gaussian_filter(fields, (0, 0, *[2] * len(shape)))
    fields /= fields.std()
    return fields + 0.5 * rng.standard_normal(size, dtype=np.float32)


def explained_variance(rows, labels):
    """Share of the variance of pixels around their sample's mean that labels keep."""
    rows = rows.astype(np.float64)
    size = np.bincount(labels)
    means = np.stack([np.bincount(labels, row) for row in rows]) / size
    total = ((rows - rows.mean(axis=1, keepdims=True)) ** 2).sum()
    return 1 - ((rows - means[:, labels]) ** 2).sum() / total


def contenders(images, n_clusters, ward):
    """Return name -> function that clusters all channels and returns their labels."""
    n_samples, n_channels, *shape = images.shape
    rows = [
        np.ascontiguousarray(images[:, c]).reshape(n_samples, -1)
        for c in range(n_channels)
    ]
    tensor = torch.from_numpy(images)

    def core():
        return rena(tensor, n_clusters).labels.flatten(1).numpy()

    def estimator():
        fitted = ReNAClusterer(n_clusters, image_shape=shape)
        return [fitted.fit(row).labels_ for row in rows]

    def by_torch():
        with torch_path():
            return core()

    runs = {"ours, core": core, "ours, estimator": estimator, "torch, core": by_torch}
    try:
        from nibabel import Nifti1Image
        from nilearn.regions import ReNA
        from nilearn.regions.rena_clustering import recursive_neighbor_agglomeration
    except ImportError:
        print("nilearn is not installed: leaving it out")
    else:
        volume = np.ones((*shape, 1)[:3], dtype=np.int8)
        mask = Nifti1Image(volume, np.eye(4))
        runs["nilearn, core"] = lambda: [
            recursive_neighbor_agglomeration(row, mask, n_clusters)[1] for row in rows
        ]
        runs["nilearn, estimator"] = lambda: [
            ReNA(mask, n_clusters=n_clusters).fit(row).labels_ for row in rows
        ]
    if ward:
        graph = grid_to_graph(*shape)
        runs["Ward"] = lambda: [
            FeatureAgglomeration(n_clusters, connectivity=graph).fit(row).labels_
            for row in rows
        ]
    return runs


def run_case(case, seeds):
    """Time every contender on one set and average explained variance over all."""
    n_channels, shape, n_samples, n_clusters, repeats, ward = case
    seconds, variance = {}, {}
    for seed in range(seeds):
        images = make_images(n_samples, n_channels, shape, seed)
        runs = contenders(images, n_clusters, ward)
        for name, run in runs.items():
            if name == "Ward" and seed:
                continue  # slow, and its one set stands beside ours on the same
            labels = run()
            score = np.mean(
                [
                    explained_variance(images[:, c].reshape(n_samples, -1), labels[c])
                    for c in range(n_channels)
                ]
            )
            variance.setdefault(name, []).append(float(score))
        if seed == 0:
            for _ in range(repeats):
                for name, run in runs.items():
                    if name == "Ward" and len(seconds.get(name, [])) == 1:
                        continue
                    seconds.setdefault(name, []).append(seconds_of(run))
            reading = [seconds_of(torch.from_numpy(images).sum) for _ in range(9)]
    return {
        "n_channels": n_channels,
        "shape": shape,
        "n_samples": n_samples,
        "n_clusters": n_clusters,
        "megabytes": images.nbytes / 1e6,
        "seconds_reading_X_once": median(reading),
        "seconds": {name: median(times) for name, times in seconds.items()},
        "explained_variance": variance,
    }


def report(name, case):
    """Print one case as a few lines."""
    seconds, variance = case["seconds"], case["explained_variance"]
    reading = 1e3 * case["seconds_reading_X_once"]
    print(
        f"\n{name}: {case['n_samples']} samples, {case['n_clusters']} clusters, "
        f"{case['megabytes']:.1f} MB, read once in {reading:.1f} ms"
    )
    for run, value in seconds.items():
        kind = run.split(", ")[-1] if ", " in run else "estimator"
        ratio = value / seconds[f"ours, {kind}"]
        scores = variance[run]
        print(
            f"  {run:20s} {1e3 * value:9.1f} ms   {ratio:7.1f} x ours   explained "
            f"variance {np.mean(scores):.4f} over {len(scores)} set(s), "
            f"{scores[0]:.4f} on the first"
        )


def profile(case):
    """Print and return the median milliseconds of each step of the core, by path."""
    n_channels, shape, n_samples, n_clusters, *_ = case
    images = torch.from_numpy(make_images(n_samples, n_channels, shape, 0))

    def cluster():
        return rena(images, n_clusters)

    with torch_path():
        module = import_module("sklearn_structreg.dropcluster.rena")
        steps = {step: getattr(module, step) for step in TORCH_STEPS}
        result = {"torch": profile_steps(module, steps, cluster)}
    # The parts are compiled, and called by the one loop over channels as Python.
    steps = compiled_parts()
    with mock.patch.multiple(_loops, **steps):
        as_python = mock.Mock(return_value=_loops.cluster_channels)
        with mock.patch.object(_compiled, "_compile", as_python):
            cluster()
            parts = profile_steps(_loops, steps, cluster)
    parts["total"] = 1e3 * median(seconds_of(cluster) for _ in range(15))
    result["compiled"] = parts
    for path, spent in result.items():
        print(
            f"  {path}:",
            ", ".join(f"{k.lstrip('_')} {v:.1f}" for k, v in spent.items()),
        )
    return result


@cache
def compiled_parts():
    """Compile what the loop over channels calls, each on its own."""
    options = {"error_model": "numpy", "fastmath": {"reassoc"}}
    return {part.__name__: numba.njit(part, **options) for part in _loops.PARTS}


def profile_steps(module, steps, run):
    """Return the median milliseconds of a module's functions while `run` calls them."""
    spent = {}

    def timed(step, function):
        def wrapper(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            spent[step] = spent.get(step, 0.0) + time.perf_counter() - start
            return result

        return wrapper

    runs = []
    wrappers = {step: timed(step, function) for step, function in steps.items()}
    with mock.patch.multiple(module, **wrappers):
        for _ in range(7):
            spent.clear()
            total = seconds_of(run)
            runs.append({**spent, "total": total})
    return {step: 1e3 * median(run[step] for run in runs) for step in runs[0]}


def seconds_of(run):
    """Time one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", type=int, default=5, help="sets of images per case")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--no-ward", action="store_true")
    default = Path(__file__).parent.parent / "results" / "rena.json"
    parser.add_argument("--output", type=Path, default=default)
    arguments = parser.parse_args()

    if os.environ.get("OMP_NUM_THREADS") != "1":
        warnings.warn("set OMP_NUM_THREADS=1 to give everyone one thread", stacklevel=1)
    torch.set_num_threads(1)
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "numba": numba.__version__,
    }
    try:
        import nilearn

        versions["nilearn"] = nilearn.__version__
    except ImportError:
        pass
    results = {
        "machine": platform.machine(),
        "threads": 1,
        "versions": versions,
        "cases": {},
    }
    for name in arguments.cases:
        case = CASES[name]
        if arguments.no_ward:
            case = (*case[:-1], False)
        results["cases"][name] = run_case(case, arguments.seeds)
        report(name, results["cases"][name])
        if arguments.profile:
            results["cases"][name]["profile_milliseconds"] = profile(case)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
