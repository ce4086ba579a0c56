"""Measure whether clusters of classes recover superclasses planted in the data.

Sixteen classes fall into four superclasses. The classes of a superclass differ in eight
features of their own and carry no information in the others', which are noise. After
training, a tree over the classes' cluster probabilities is cut into four groups, and
their agreement with the superclasses is the adjusted Rand index: 1 is recovered, 0 is
what chance gives. The tree goes by the probabilities themselves, or by their profile
(see ClassHierarchy.of). As a control the same is done with the plain linear model's
absolute weights, so that it is known that there is something to be found.

"priced" nets have the straight-through gradient and a price on their multiply-adds. A
seed has failed if neither tree agrees to at least .9.

Run ``python -m benchmarks.reproduce.blockout_planted`` (two minutes); it writes its
figures and docs/blockout_planted.inc.
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

from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.core import StructuredClassifier

N_SUPERCLASSES, N_CLASSES, N_FEATURES = 4, 4, 8
ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "blockout_planted.json"
PAGE = ROOT / "docs" / "blockout_planted.inc"
FOUND = 0.9
START = {"init_probability": 0.5, "block_penalty": 0}
PAPER = START | {"gradient": "paper", "logit_rate_factor": 20}
HONEST = START | {"gradient": "straight_through", "logit_rate_factor": 100}
PRICED = HONEST | {"block_penalty": 0.3, "n_clusters": 12}
MLP = {"hidden_layer_sizes": (64,), "max_epochs": 80}
SETTINGS: dict[str, dict[str, Any]] = {
    "linear, paper's gradient": PAPER,
    "linear, paper's, priced": PRICED | {"gradient": "paper"},
    "linear, straight through": HONEST | {"n_clusters": 12},
    "linear, priced": PRICED,
    "linear, priced, 6 clusters": PRICED | {"n_clusters": 6},
    "linear, priced, soft": PRICED | {"assignment": "soft"},
    "MLP, paper's gradient": PAPER | MLP,
    "MLP, straight through": HONEST | {"n_clusters": 12} | MLP,
    "MLP, priced": PRICED | MLP,
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


def run(settings: dict[str, Any], seed: int, n_train: int) -> dict[str, Any]:
    """Fit once; return accuracy and agreements, and those of the hardened net."""
    X, y, superclass = planted(n_train + 1000, 3.0, seed)
    settings = {"hidden_layer_sizes": (), "max_epochs": 40} | settings
    kind = StructuredClassifier if settings.pop("plain", False) else BlockoutClassifier
    model = kind(random_state=seed, **settings).fit(X[:n_train], y[:n_train])
    held_out = X[n_train:], y[n_train:]
    result: dict[str, Any] = {"accuracy": model.score(*held_out)}
    if kind is StructuredClassifier:
        profile = model.module_[-1].weight.detach().abs().numpy()
        tree = linkage(profile, "average", metric="correlation")
        found = fcluster(tree, N_SUPERCLASSES, "maxclust")
        return result | {"profile": adjusted_rand_score(superclass, found)}
    for distance in ("probabilities", "profile"):
        found = model.class_hierarchy(distance=distance).labels(N_SUPERCLASSES)
        result[distance] = adjusted_rand_score(superclass, found)
    hardened = model.harden(*held_out)
    dense, sparse = hardened.multiply_adds
    return result | {"hardened": hardened.hardened_score, "cost": sparse / dense}


def line(name: str, rows: list[dict[str, Any]]) -> str:
    """Return a line of the table."""
    cells = [f"{name:>30}  {np.mean([row['accuracy'] for row in rows]):8.3f}"]
    for distance in ("probabilities", "profile"):
        found = [row[distance] for row in rows if distance in row]
        spread = f"{min(found):5.2f} to {max(found):4.2f}" if found else ""
        mean = f"{np.mean(found):5.2f} ({spread})" if found else ""
        cells.append(f"{mean:>21}")
    best = [max(row.get("probabilities", -1), row["profile"]) for row in rows]
    cells.append(f"{sum(b < FOUND for b in best):4d} of {len(rows)}")
    for figure in ("hardened", "cost"):
        found = [row[figure] for row in rows if figure in row]
        cells.append(f"{np.mean(found):8.3f}" if found else "")
    return "  ".join(cells).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1500, help="to train on")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"adjusted Rand index, mean (and range) over {arguments.seeds} seeds; of",
        "the hardened net accuracy, and multiply-adds by those of the dense one",
        f"{'':>30}  accuracy       by probabilities             by profile"
        "      failed  hardened  mult.-adds",
    ]
    print("\n".join(lines))
    results = {}
    control = {"plain weights (control)": {"plain": True}}
    for name, settings in (control | SETTINGS).items():
        rows = [run(settings, s, arguments.samples) for s in range(arguments.seeds)]
        results[name] = rows
        lines.append(line(name, rows))
        print(lines[-1], flush=True)
    arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    page = "\n".join(f"    {text}".rstrip() for text in lines)
    PAGE.write_text(f".. code-block:: text\n\n{page}\n")


if __name__ == "__main__":
    main()
