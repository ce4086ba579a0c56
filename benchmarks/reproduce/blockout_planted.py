"""Measure whether clusters of classes recover superclasses planted in the data.

Sixteen classes fall into four superclasses. The classes of a superclass differ in eight
features of their own and carry no information in the others', which are noise. After
training, a tree over the classes' cluster probabilities is cut into four groups, and
their agreement with the superclasses is the adjusted Rand index: 1 is recovered, 0 is
what chance gives. The tree goes by the probabilities themselves, or by their profile
(see ClassHierarchy.of). As a control the same is done with the plain linear model's
absolute weights, so that it is known that there is something to be found.

"slow weights" start at a tenth of the usual size and have a hundredth of the usual
learning rate, while the probabilities have a high one: then it is these that learn.

Run ``python -m benchmarks.reproduce.blockout_planted`` (about a minute); ``--json
FILE`` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score
from torch import nn

from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.core import StructuredClassifier, make_mlp

N_SUPERCLASSES, N_CLASSES, N_FEATURES = 4, 4, 8
SLOW = {"learning_rate": 5e-4, "init_probability": 0.25}
SETTINGS: dict[str, dict[str, Any]] = {
    "MLP, defaults": {"hidden": (64,)},
    "linear, defaults": {},
    "linear, 48 clusters": {"n_clusters": 48},
    "slow weights, 6 clusters": SLOW | {"logit_rate_factor": 2e3, "start": 0.1},
    "slow weights, 48 clusters": SLOW
    | {"logit_rate_factor": 16e3, "start": 0.1, "n_clusters": 48},
    "slow, 48 clusters, usual start": SLOW
    | {"logit_rate_factor": 16e3, "n_clusters": 48},
    "slow MLP, 48 clusters": {
        "learning_rate": 5e-3,
        "init_probability": 0.25,
        "logit_rate_factor": 16e3,
        "n_clusters": 48,
        "hidden": (64,),
    },
}


def planted(
    n_samples: int, separation: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw samples, labels, and the superclass of each label, in a shuffled order."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(N_SUPERCLASSES, N_CLASSES, N_FEATURES))
    means *= separation / np.linalg.norm(means, axis=2, keepdims=True)
    label = rng.integers(N_SUPERCLASSES * N_CLASSES, size=n_samples)
    superclass, within = label // N_CLASSES, label % N_CLASSES
    X = rng.normal(size=(n_samples, N_SUPERCLASSES, N_FEATURES))
    X[np.arange(n_samples), superclass] += means[superclass, within]
    shuffled = rng.permutation(N_SUPERCLASSES * N_CLASSES)
    X = X.reshape(n_samples, -1).astype(np.float32)
    return X, shuffled[label], np.argsort(shuffled) // N_CLASSES


class Net(nn.Sequential):
    """An MLP whose weights start at `start` times the usual size."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_outputs: int,
        hidden: tuple[int, ...] = (),
        start: float = 1.0,
    ) -> None:
        super().__init__(*make_mlp(input_shape[0], n_outputs, hidden))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(start)


def run(settings: dict[str, Any], seed: int, n_train: int) -> dict[str, Any]:
    """Fit once; return accuracy, agreements, and the diagnosis of the classes' P."""
    X, y, superclass = planted(n_train + 1000, 3.0, seed)
    settings = dict(settings)
    params = {key: settings.pop(key) for key in ("hidden", "start") if key in settings}
    kind = StructuredClassifier if settings.pop("plain", False) else BlockoutClassifier
    model = kind(
        Net, module_params=params, max_epochs=40, random_state=seed, **settings
    ).fit(X[:n_train], y[:n_train])
    result: dict[str, Any] = {"accuracy": model.score(X[n_train:], y[n_train:])}
    if kind is StructuredClassifier:
        profile = model.module_[0].weight.detach().abs().numpy()
        tree = linkage(profile, "average", metric="correlation")
        found = fcluster(tree, N_SUPERCLASSES, "maxclust")
        return result | {"profile": adjusted_rand_score(superclass, found)}
    for distance in ("probabilities", "profile"):
        found = model.class_hierarchy(distance=distance).labels(N_SUPERCLASSES)
        result[distance] = adjusted_rand_score(superclass, found)
    return result | {"outcome": model.diagnose().node_sets[-1].outcome}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1500, help="to train on")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"adjusted Rand index, mean (and range) over {arguments.seeds} seeds")
    print(f"{'':>30}  accuracy  by probabilities       by profile           outcomes")
    results = {}
    control = {"plain weights (control)": {"plain": True}}
    for name, settings in (control | SETTINGS).items():
        rows = [run(settings, s, arguments.samples) for s in range(arguments.seeds)]
        results[name] = rows
        cells = []
        for distance in ("probabilities", "profile"):
            found = [row[distance] for row in rows if distance in row]
            cells.append("")
            if found:
                low, high = min(found), max(found)
                cells[-1] = f"{np.mean(found):5.2f} ({low:5.2f} to {high:4.2f})"
        outcomes = sorted({row["outcome"] for row in rows if "outcome" in row})
        accuracy = np.mean([row["accuracy"] for row in rows])
        print(
            f"{name:>30}  {accuracy:8.3f}  {cells[0]:>20} {cells[1]:>20}  "
            f"{', '.join(outcomes)}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
