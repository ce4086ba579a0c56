"""Compare the samples that may show a network's confusions.

Networks of folds (`cv` of 2 or 3), the training samples themselves (`cv=None`), a
quarter of the training samples held out of the network (passed as `eval_set`), and as
many further ones (an `eval_set` that costs the network nothing). Digits, 2,000 images
of MNIST, and features of 5,000 images of CIFAR-100 by a small frozen convolutional net;
heads that cost as much as the network, with a hidden layer of 100 units. Accuracy on
other samples, its difference to the network without heads, the agreement of the groups
with those that the test samples' confusions give (adjusted Rand index), and processor
time by that of the network without heads.

Run ``python -m benchmarks.value.confusions --data FOLDER`` with FOLDER/mnist.npz and
FOLDER/cifar100.npz (ten minutes on one core). Runs that the results file holds already
are not repeated. It prints the table and writes docs/self_informed_cv.inc.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from benchmarks.data import load_images
from benchmarks.value.runs import Run, Runs
from benchmarks.value.section import write_page
from benchmarks.value.self_informed import features
from sklearn_structreg import ConfusionSpectralPartitioner, SelfInformedClassifier

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "self_informed_cv.jsonl"
PAGE = ROOT / "docs" / "self_informed_cv.inc"
SEEDS, MOST_TESTED = range(3), 4_000
N_TRAIN = {"digits": 900, "MNIST": 2_000, "CIFAR-100": 5_000}
WAYS: dict[str, Any] = {
    "no heads": {"n_clusters": 0},
    "cv=2": {"cv": 2},
    "cv=3": {"cv": 3},
    "cv=None": {"cv": None},
    "a quarter held out": {},
    "a quarter more": {},
}


def load(name: str, arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return samples, flat, and classes."""
    if name == "digits":
        digits = load_digits()
        return digits.data, digits.target
    if name == "MNIST":
        X, y, *_ = load_images("mnist", arguments.data)
        return X[:20_000].reshape(20_000, -1) / 255, y[:20_000].astype(int)
    X, y, *_ = features(arguments.data, arguments.cache)
    return X, y.astype(int)


def measure(way: str, data: tuple[np.ndarray, np.ndarray], n: int, seed: int) -> Run:
    """Fit once, and return the figures."""
    X, y = data
    rows = np.random.default_rng(seed).permutation(len(y))
    train, more, test = np.split(rows, [n, n + n // 4])
    given = {}
    if way == "a quarter held out":
        train, more = train[n // 4 :], train[: n // 4]
    if way.startswith("a quarter"):
        given["eval_set"] = X[more], y[more]
    test = test[:MOST_TESTED]
    model = SelfInformedClassifier(
        budget=1.0, max_epochs=30, random_state=seed, **WAYS[way]
    )
    start = time.process_time()
    model.fit(X[train], y[train], **given)
    seconds = time.process_time() - start
    figures = {"accuracy": model.score(X[test], y[test]), "seconds": seconds}
    if model.partition_ is not None:
        scores = model.estimator_.decision_function(X[test])
        groups = ConfusionSpectralPartitioner(model.n_clusters_, random_state=0)
        known = groups.fit(scores, y[test]).labels_
        figures["agreement"] = adjusted_rand_score(known, model.partition_.labels_)
        figures["n_groups"] = model.n_clusters_
    return figures


def report(runs: Runs) -> str:
    """Return a table for every set."""
    head = "accuracy  to no heads   groups  agreement   time"
    lines = []
    for name in N_TRAIN:
        found = {way: runs.select(set=name, way=way) for way in WAYS}
        plain = found["no heads"]
        if not plain:
            continue
        lines += [f"{name + ', ' + format(N_TRAIN[name], ',') + ' rows':22}{head}"]
        for way, rows in found.items():
            pairs = [*zip(rows, plain, strict=False)]
            gain = [100 * (one["accuracy"] - two["accuracy"]) for one, two in pairs]
            error = np.std(gain, ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else np.nan
            seconds = [sum(row["seconds"] for row in of) for of in (rows, plain)]
            accuracy = 100 * np.mean([row["accuracy"] for row in rows])
            line = f"  {way:20}{accuracy:8.2f}"
            if way != "no heads":
                groups, agreement = (
                    np.mean([row[key] for row in rows])
                    for key in ("n_groups", "agreement")
                )
                line += f"{np.mean(gain):+7.2f} ± {error:.2f}{groups:8.1f}"
                line += f"{agreement:11.2f}{seconds[0] / seconds[1]:7.1f}"
            lines.append(line)
        lines.append("")
    return "\n".join(lines[:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    runs = Runs(arguments.json)
    measure("cv=2", load("digits", arguments), 100, 0)  # a first fit loads libraries
    for name, n in N_TRAIN.items():
        data = load(name, arguments)
        for seed in SEEDS:
            for way in WAYS:
                key = {"set": name, "way": way, "seed": seed}
                runs.once(key, measure, way, data, n, seed)
            print(f"{name}, seed {seed}: done", flush=True)
    table = report(runs)
    print(table)
    write_page(PAGE, table)


if __name__ == "__main__":
    main()
