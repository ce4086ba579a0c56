"""The clustering pieces on MNIST, beside what scikit-learn has for the same job.

1. ReNA, Ward clustering and PCA reduce the 784 pixels to a few features, on which a
   logistic regression is fitted: time of the reduction and accuracy on test images.
2. A random forest's probabilities on held-out images are partitioned: how many of its
   mistakes fall within a group, beside groups of the same sizes drawn by lot.

Run ``python -m benchmarks.reproduce.pieces --data FOLDER`` with FOLDER/mnist.npz, or
without ``--data`` to fetch MNIST from OpenML; ``--json FILE`` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from sklearn.cluster import FeatureAgglomeration
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.image import grid_to_graph
from sklearn.linear_model import LogisticRegression

from benchmarks.data import load_images
from sklearn_structreg import ConfusionSpectralPartitioner, ReNAClusterer


def reductions(
    X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray
) -> dict[str, dict[str, float]]:
    """Reduce, classify, print a table."""
    graph = grid_to_graph(28, 28)
    ReNAClusterer(image_shape=(28, 28)).fit(X[:10])  # loads or compiles its loops
    results: dict[str, dict[str, float]] = {}
    print(f"{len(X)} training images\n{'':>12}  features  fit (s)  test accuracy")
    for k in (25, 50, 100, 200):
        reducers = {
            "ReNA": ReNAClusterer(k, image_shape=(28, 28)),
            "Ward": FeatureAgglomeration(k, connectivity=graph),
            "PCA": PCA(k, random_state=0),
        }
        for name, reducer in reducers.items():
            start = time.perf_counter()
            reducer.fit(X)
            seconds = time.perf_counter() - start
            model = LogisticRegression(max_iter=300).fit(reducer.transform(X), y)
            accuracy = model.score(reducer.transform(X_test), y_test)
            print(f"{name:>12}  {k:8d}  {seconds:7.3f}  {accuracy:13.4f}")
            results[f"{name} {k}"] = {"fit_seconds": seconds, "accuracy": accuracy}
    return results


def confusions(
    X: np.ndarray, y: np.ndarray, X_held_out: np.ndarray, y_held_out: np.ndarray
) -> dict[str, object]:
    """Partition a forest's confusions, print the groups."""
    forest = RandomForestClassifier(random_state=0, n_jobs=-1).fit(X, y)
    scores = forest.predict_proba(X_held_out)
    partitioner = ConfusionSpectralPartitioner(
        4, top_k=2, classes=forest.classes_, random_state=0
    ).fit(scores, y_held_out)
    groups, guessed = partitioner.labels_, scores.argmax(axis=1)
    wrong = guessed != y_held_out
    true, guessed = y_held_out[wrong], guessed[wrong]
    rng = np.random.default_rng(0)
    lots = [rng.permutation(groups) for _ in range(1000)]
    found = float(np.mean(groups[true] == groups[guessed]))
    drawn = float(np.mean([lot[true] == lot[guessed] for lot in lots]))
    members = [cluster.tolist() for cluster in partitioner.clusters_]
    print(f"\na forest's {wrong.sum()} mistakes on {len(wrong)} held-out images")
    print(f"groups: {members}")
    print(f"mistakes within a group: {found:.0%} found, {drawn:.0%} drawn by lot")
    return {"groups": members, "within_found": found, "within_drawn": drawn}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--samples", type=int, default=5000)
    arguments = parser.parse_args()
    X, y, X_test, y_test = load_images("mnist", arguments.data)
    X, X_test = (images.reshape(len(images), -1) / 255 for images in (X, X_test))
    X, y = X[: arguments.samples], y[: arguments.samples]
    results = {
        "reductions": reductions(X, y, X_test, y_test),
        "confusions": confusions(X, y, X_test, y_test),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
