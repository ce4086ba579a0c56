"""Self-informed structure learning on CIFAR-100, beside the paper's Table 2.

A compact convolutional net is trained once per seed. Everything else stands on it and
on the same split of the training images: heads for the groups of confusions or of
co-detections, for groups of the same sizes drawn by lot, one head for all classes that
costs as many multiply-adds as the six, and no head at all but a fresh classifier layer.
Two tasks: the 100 classes, and 120 labels of which every image has two, its class and
its superclass.

Run ``python -m benchmarks.reproduce.self_informed --data FOLDER`` with
FOLDER/cifar100.npz on a GPU, or with ``--small`` on a CPU (about half an hour on one
thread). What is done already is not done again; ``--minutes`` stops before the next
piece of work once they are over. ``--table`` prints what there is and draws it.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import adjusted_rand_score

from benchmarks.cifar100 import coarse_labels
from benchmarks.data import load_images
from benchmarks.networks import compact_convnet
from benchmarks.reproduce.self_informed_report import draw, summarize
from sklearn_structreg import SelfInformedClassifier
from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.selfinformed import mean_average_precision_at_k

RESULTS = Path(__file__).parents[1] / "results"
K = 5  # of the mean average precision
N_GROUPS = 6


class Setting(NamedTuple):
    """What is trained, on what."""

    n_images: int
    widths: tuple[int, ...]
    hidden: tuple[int, ...]
    heads: tuple[int, ...]
    base_epochs: int
    head_epochs: int
    seeds: int


SETTINGS = {
    "small": Setting(10_000, (16, 32, 64), (256, 256), (128, 128), 10, 10, 3),
    "full": Setting(50_000, (64, 128, 256), (1024, 1024), (512, 512), 60, 30, 5),
    "smoke": Setting(3_000, (8, 16, 16), (32, 32), (8, 8), 6, 2, 1),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "confusions": {"source": "confusion"},
    "confusions, randomized": {"source": "random"},
    "co-detections": {"source": "codetection"},
    "co-detections, randomized": {"source": "random_codetection"},
    "one wide head": {"n_clusters": 1},
    "fresh classifier layer": {"n_clusters": 1, "head_layer_sizes": (1,)},
    "confusions, fine-tuned": {"source": "confusion", "fine_tune": True},
}


def load(
    setting: Setting, folder: Path | None, task: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return scaled images, channels first, and labels or indicators."""
    X, y, X_test, y_test = load_images("cifar100", folder)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(y))
    by_class = [rows[y[rows] == c][: setting.n_images // 100] for c in range(100)]
    rows = np.concatenate(by_class)
    X, y = X[rows], y[rows]
    mean, std = X.mean(axis=(0, 1, 2)), X.std(axis=(0, 1, 2))
    X, X_test = (
        np.ascontiguousarray(np.moveaxis((x - mean) / std, -1, 1), dtype=np.float32)
        for x in (X, X_test)
    )
    if task == "120 labels":
        y, y_test = (indicator(labels) for labels in (y, y_test))
    return X, y, X_test, y_test


def indicator(fine: np.ndarray) -> np.ndarray:
    """Mark each image's class, and its superclass in 20 further columns."""
    marks = np.zeros((len(fine), 120), dtype=np.int64)
    marks[np.arange(len(fine)), fine] = 1
    marks[np.arange(len(fine)), 100 + coarse_labels()[fine]] = 1
    return marks


def width_of_one_head(
    n_inputs: int, sizes: tuple[int, ...], n_outputs: int
) -> tuple[int, ...]:
    """Return the layers of one head that costs what the six together do."""
    budget = N_GROUPS * (n_inputs * sizes[0] + sizes[0] * sizes[1])
    budget += sizes[1] * n_outputs
    total = n_inputs + n_outputs
    width = round((-total + (total**2 + 4 * budget) ** 0.5) / 2)
    return (width, width)


def purity(groups: np.ndarray) -> dict[str, float]:
    """Compare groups of classes with the superclasses.

    `purity` is the share of classes that are of their group's most frequent
    superclass; `kept_together` the share that are in their superclass's most frequent
    group; both beside the mean of groups of the same sizes drawn by lot.
    """
    coarse = coarse_labels()

    def measure(labels: np.ndarray) -> np.ndarray:
        table = np.zeros((labels.max() + 1, 20))
        np.add.at(table, (labels, coarse), 1)
        return np.array(
            [
                table.max(axis=1).sum() / 100,
                table.max(axis=0).sum() / 100,
                adjusted_rand_score(coarse, labels),
            ]
        )

    rng = np.random.default_rng(0)
    found = measure(groups)
    lots = np.mean([measure(rng.permutation(groups)) for _ in range(500)], axis=0)
    names = ("purity", "kept_together", "adjusted_rand")
    return {
        **dict(zip(names, found.tolist(), strict=True)),
        **{f"{n}_by_lot": x for n, x in zip(names, lots.tolist(), strict=True)},
    }


def measure(model: Any, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return accuracy (of the class, for 120 labels too) and mAP at K."""
    scores = model.predict_proba(X)
    fine = y[:, :100].argmax(axis=1) if y.ndim == 2 else y
    best = scores[:, :100].argmax(axis=1)
    precision = mean_average_precision_at_k(y, scores, k=K)
    return {"accuracy": float(np.mean(best == fine)), "map": precision}


def conditional(model: Any, X: np.ndarray, y: np.ndarray) -> list[dict[str, float]]:
    """Evaluate only the heads that the base's best classes ask for."""
    rows = []
    for top_k in (None, 1, 2):
        model.set_params(conditional=top_k)
        cost = model.count_multiply_adds(X[:2000])
        rows.append(
            {"top_k": top_k, "multiply_adds": cost, **measure(model, X, y)}  # type: ignore[dict-item]
        )
    model.set_params(conditional=None)
    return rows


def run(
    arguments: argparse.Namespace, name: str, out: Path, cache: Path, deadline: float
) -> None:
    """Do what is not done yet, in order, until the time is over."""
    setting = SETTINGS[name]
    records: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}

    def keep(key: str, work: Callable[[], dict[str, Any]]) -> None:
        if key in records or time.monotonic() > deadline:
            return
        start = time.perf_counter()
        records[key] = work() | {"seconds": time.perf_counter() - start}
        out.write_text(json.dumps(records, indent=1) + "\n")
        print(key, {k: v for k, v in records[key].items() if k in ("accuracy", "map")})

    variants = {
        variant: changes
        for variant, changes in VARIANTS.items()
        if name != "small" or "fine_tune" not in changes  # as dear as a base
    }
    n_groups = "auto" if name == "smoke" else N_GROUPS  # an untrained net has fewer
    for seed in range(setting.seeds):
        for task in ("100 classes", "120 labels"):
            wanted = [f"{task}/{seed}/{v}" for v in ("base", *variants)]
            if all(key in records for key in wanted) or time.monotonic() > deadline:
                continue
            X, y, X_test, y_test = load(setting, arguments.data, task)
            n_outputs = 120 if y.ndim == 2 else 100
            file = cache / f"self_informed_{name}_{n_outputs}_{seed}.pickle"
            common: dict[str, Any] = {
                "batch_size": 128,
                "lr_schedule": "cosine",
                "learning_rate": 0.05 if y.ndim == 1 else 0.02,
                "weight_decay": 5e-4,
                "random_state": seed,
                "verbose": arguments.verbose,
            }
            plain = StructuredClassifier(
                compact_convnet,
                module_params={
                    "widths": setting.widths,
                    "hidden_layer_sizes": setting.hidden,
                },
                max_epochs=setting.base_epochs,
                **common,
            )
            heads = SelfInformedClassifier(
                n_clusters=n_groups,
                head_layer_sizes=setting.heads,
                max_epochs=setting.head_epochs,
                **common,
            )

            def train_base(
                heads: Any = heads,
                plain: Any = plain,
                file: Path = file,
                data: Any = (X, y, X_test, y_test),
            ) -> dict[str, Any]:
                X, y, X_test, y_test = data
                # One unit, one epoch: only its base is wanted, on the heads' split.
                shell = heads.set_params(base=plain, max_epochs=1, n_clusters=1)
                shell = shell.set_params(head_layer_sizes=(1,)).fit(X, y)
                file.write_bytes(pickle.dumps(shell.base_))
                return {
                    **measure(shell.base_, X_test, y_test),
                    "train_accuracy": measure(shell.base_, X[::9], y[::9])["accuracy"],
                    "multiply_adds": shell.multiply_adds_.base,
                    "n_held_out": shell.n_held_out_,
                }

            keep(wanted[0], train_base)
            if not file.exists():
                continue
            base = FrozenEstimator(pickle.loads(file.read_bytes()))
            for variant, changes in variants.items():
                changes = {
                    "base": base,
                    "n_clusters": n_groups,
                    "head_layer_sizes": setting.heads,
                    "max_epochs": setting.head_epochs,
                    **changes,
                }
                if variant == "one wide head":
                    sizes = width_of_one_head(
                        setting.widths[-1], setting.heads, n_outputs
                    )
                    changes["head_layer_sizes"] = sizes

                def train_heads(
                    variant: str = variant,
                    model: Any = heads,
                    changes: dict[str, Any] = changes,
                    data: Any = (X, y, X_test, y_test),
                ) -> dict[str, Any]:
                    X, y, X_test, y_test = data
                    model.set_params(**changes).fit(X, y)
                    record = {
                        **measure(model, X_test, y_test),
                        "train_accuracy": measure(model, X[::9], y[::9])["accuracy"],
                        "multiply_adds": model.multiply_adds_.augmented,
                        "groups": model.partition_.labels_.tolist(),
                    }
                    if model.n_clusters_ > 1:
                        record["superclasses"] = purity(
                            np.unique(record["groups"][:100], return_inverse=True)[1]
                        )
                    if variant == "confusions":
                        record["conditional"] = conditional(model, X_test, y_test)
                    return record

                keep(f"{task}/{seed}/{variant}", train_heads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--small", action="store_true", help="the setting for CPUs")
    parser.add_argument("--smoke", action="store_true", help="a tiny one, for a test")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--table", action="store_true", help="only print and draw")
    parser.add_argument("--verbose", type=int, default=0)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    name = "small" if arguments.small else "smoke" if arguments.smoke else "full"
    out = arguments.out / f"self_informed_{name}.json"
    if not arguments.table:
        deadline = time.monotonic() + 60 * arguments.minutes
        run(arguments, name, out, arguments.cache, deadline)
    records = json.loads(out.read_text())
    print(f"{name} setting: {SETTINGS[name]}")
    print(summarize(records, list(VARIANTS)))
    draw(records, list(VARIANTS), f"CIFAR-100, {name} setting", out.with_suffix(".png"))


if __name__ == "__main__":
    main()
