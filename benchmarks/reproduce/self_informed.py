"""Self-informed structure learning on CIFAR-100, beside the paper's Table 2.

A compact convolutional net is trained once per seed, on four fifths of the images; the
others are held out. What its convolutions give is kept. A base is these convolutions,
frozen, and fully-connected layers trained on what they give until that has settled.
Everything else stands on the base and on the same split: heads for the groups of
confusions or of co-detections, for groups of the same sizes drawn by lot, one head for
all classes that costs as many multiply-adds as the six, and no head at all but a fresh
classifier layer.

Three tasks: the 100 classes with a classifier layer alone on the convolutions; 120
labels, of which every image has two, its class and its superclass, with logistic
units; and the 100 classes with two more fully-connected layers in the base.

Run ``python -m benchmarks.reproduce.self_informed --data FOLDER`` with
FOLDER/cifar100.npz on a GPU, or with ``--small`` on a CPU (about ten minutes of one
thread). What is done already is not done again; ``--minutes`` stops before the next
piece of work once they are over, ``--bases`` trains the convolutional nets alone, and
``--table`` only prints what there is and draws it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cifar100 import coarse_labels
from benchmarks.data import load_images
from benchmarks.networks import compact_convnet
from benchmarks.reproduce.self_informed_report import TASKS, draw, summarize
from sklearn_structreg import ConfusionSpectralPartitioner
from sklearn_structreg.core import StructuredClassifier, count_multiply_adds
from sklearn_structreg.selfinformed import mean_average_precision_at_k
from sklearn_structreg.selfinformed.conditional import ConditionalNet
from sklearn_structreg.selfinformed.heads import AugmentedNet
from sklearn_structreg.selfinformed.places import find_attachment_point

RESULTS = Path(__file__).parents[1] / "results"
K = 5  # of the mean average precision
SHAPE = (3, 32, 32)


class Setting(NamedTuple):
    """What is trained, on what."""

    n_images: int
    widths: tuple[int, ...]
    hidden: tuple[int, ...]
    heads: tuple[int, ...]
    conv_epochs: int
    epochs: int
    seeds: int
    n_groups: int | str = 6


SETTINGS = {
    "small": Setting(10_000, (16, 32, 64), (256, 256), (128, 128), 10, 40, 3),
    "full": Setting(50_000, (64, 128, 256), (1024, 1024), (512, 512), 60, 60, 5),
    "smoke": Setting(3_000, (8, 16, 16), (32, 32), (8, 8), 2, 2, 1, "auto"),
}
VARIANTS = (
    "confusions",
    "confusions, randomized",
    "co-detections",
    "co-detections, randomized",
    "one wide head",
    "fresh classifier layer",
)


class Features(NamedTuple):
    """What the convolutions give for each part of the images, and the classes."""

    train: np.ndarray
    y_train: np.ndarray
    held_out: np.ndarray
    y_held_out: np.ndarray
    test: np.ndarray
    y_test: np.ndarray


def load(setting: Setting, folder: Path | None) -> tuple[np.ndarray, ...]:
    """Return scaled images, channels first, as many of each class, and classes."""
    X, y, X_test, y_test = load_images("cifar100", folder)
    rows = np.random.default_rng(0).permutation(len(y))
    n_each = setting.n_images // 100
    rows = np.concatenate([rows[y[rows] == c][:n_each] for c in range(100)])
    X, y = X[rows], y[rows]
    mean, std = X.mean(axis=(0, 1, 2)), X.std(axis=(0, 1, 2))
    X, X_test = (
        np.ascontiguousarray(np.moveaxis((x - mean) / std, -1, 1), dtype=np.float32)
        for x in (X, X_test)
    )
    return X, y, X_test, y_test


def training(n_epochs: int, task: str, seed: int) -> dict[str, Any]:
    """Return what all trainings share."""
    return {
        "max_epochs": n_epochs,
        "batch_size": 128,
        "lr_schedule": "cosine",
        "learning_rate": 0.1 if task == TASKS[2] else 0.05,
        "weight_decay": 5e-4,
        "standardize": False,
        "random_state": seed,
    }


def train_base(
    setting: Setting, images: tuple[np.ndarray, ...], seed: int
) -> tuple[Any, np.ndarray]:
    """Train the convolutional net on a split of the images; mark those held out."""
    plain = StructuredClassifier(
        compact_convnet,
        module_params={
            "widths": setting.widths,
            "hidden_layer_sizes": setting.hidden,
        },
        **training(setting.conv_epochs, TASKS[0], seed) | {"learning_rate": 0.05},
    )
    X, y = images[:2]
    rows = np.arange(len(y))
    train, _ = train_test_split(rows, test_size=0.2, stratify=y, random_state=seed)
    return plain.fit(X[train], y[train]), ~np.isin(rows, train)


def keep_features(
    model: StructuredClassifier, held: np.ndarray, images: tuple[np.ndarray, ...]
) -> tuple[Features, int]:
    """Return what the convolutions give, standardized, and what they cost."""
    net = model.module_.eval()
    first = next(i for i, layer in enumerate(net) if isinstance(layer, nn.Linear))
    below = net[:first]
    device = next(net.parameters()).device

    def run(X: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            parts = [below(part.to(device)).cpu() for part in torch.split(X, 1000)]
        return torch.cat(parts).numpy()

    X, y, X_test, y_test = images
    F, F_test = run(torch.from_numpy(X)), run(torch.from_numpy(X_test))
    mean, scale = F[~held].mean(axis=0), F[~held].std(axis=0) + 1e-6
    F, F_test = (F - mean) / scale, (F_test - mean) / scale
    features = Features(F[~held], y[~held], F[held], y[held], F_test, y_test)
    cost = count_multiply_adds(below, torch.zeros(1, *SHAPE, device=device))
    return features, cost


def indicator(fine: np.ndarray) -> np.ndarray:
    """Mark each image's class, and its superclass in 20 further columns."""
    marks = np.zeros((len(fine), 120), dtype=np.int64)
    marks[np.arange(len(fine)), fine] = 1
    marks[np.arange(len(fine)), 100 + coarse_labels()[fine]] = 1
    return marks


def run_module(module: nn.Module, X: np.ndarray) -> np.ndarray:
    """Return the logits of all rows."""
    device = next(module.parameters()).device
    with torch.no_grad():
        return module.eval()(torch.from_numpy(X).to(device)).cpu().numpy()


def measure(module: nn.Module, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return accuracy (of the class, for 120 labels too) and mAP at K."""
    scores = run_module(module, X)
    fine = y[:, :100].argmax(axis=1) if y.ndim == 2 else y
    best = scores[:, :100].argmax(axis=1)
    precision = mean_average_precision_at_k(y, scores, k=K)
    return {"accuracy": float(np.mean(best == fine)), "map": precision}


def groups_of(
    variant: str, base: nn.Module, X: np.ndarray, y: np.ndarray, n: Any, seed: int
) -> np.ndarray:
    """Return each class's group."""
    scores = run_module(base, X)
    if "head" in variant or "classifier" in variant:
        return np.zeros(scores.shape[1], dtype=np.int64)
    source = "codetection" if variant.startswith("co-") else "confusion"
    groups = (
        ConfusionSpectralPartitioner(
            n, source=source, classes=np.arange(scores.shape[1]), random_state=seed
        )
        .fit(scores, y)
        .labels_
    )
    if variant.endswith("randomized"):
        return np.random.default_rng(seed).permutation(groups)
    return groups


def width_of_one_head(
    n_heads: int, sizes: tuple[int, ...], n_inputs: int, n_outputs: int
) -> tuple[int, int]:
    """Return the layers of one head that costs what `n_heads` together do."""
    budget = n_heads * sizes[0] * (n_inputs + sizes[1]) + sizes[1] * n_outputs
    both = n_inputs + n_outputs
    width = round((-both + (both**2 + 4 * budget) ** 0.5) / 2)
    return width, width


def add_heads(
    base: nn.Module, groups: np.ndarray, sizes: tuple[int, ...], seed: int
) -> AugmentedNet:
    """Augment the fully-connected part."""
    sample = torch.zeros(2, base[0].in_features)
    net = AugmentedNet(base, find_attachment_point(base, sample, len(groups), None))
    members = [np.flatnonzero(groups == g).tolist() for g in range(groups.max() + 1)]
    net.add_heads(members, [sizes] * len(members), seed=seed)
    return net


def conditional(
    net: AugmentedNet, base: nn.Module, X: np.ndarray, y: np.ndarray
) -> list[dict[str, Any]]:
    """Evaluate only the heads that the base's best classes ask for."""
    rows = []
    for top_k in (1, 2, 5):
        module = ConditionalNet(net, base[-1], top_k, y.ndim == 2)
        with FlopCounterMode(display=False) as counter:
            figures = measure(module, X, y)
        cost = counter.get_total_flops() / (2 * len(X))
        rows.append({"top_k": top_k, "multiply_adds": cost, **figures})
    return rows


def purity(groups: np.ndarray) -> dict[str, float]:
    """Compare groups of classes with the superclasses.

    `purity` is the share of classes that are of their group's most frequent
    superclass; `kept_together` the share that are in their superclass's most frequent
    group; each beside the mean of 500 groups of the same sizes drawn by lot.
    """
    coarse = coarse_labels()

    def compare(labels: np.ndarray) -> np.ndarray:
        table = np.zeros((labels.max() + 1, 20))
        np.add.at(table, (labels, coarse), 1)
        together = table.max(axis=1).sum() / 100, table.max(axis=0).sum() / 100
        return np.array([*together, adjusted_rand_score(coarse, labels)])

    rng = np.random.default_rng(0)
    lots = np.mean([compare(rng.permutation(groups)) for _ in range(500)], axis=0)
    names = ("purity", "kept_together", "adjusted_rand")
    by_lot = {f"{n}_by_lot": x for n, x in zip(names, lots.tolist(), strict=True)}
    return dict(zip(names, compare(groups).tolist(), strict=True)) | by_lot


def run_task(
    setting: Setting,
    task: str,
    seed: int,
    features: Features,
    conv_cost: int,
    keep: Callable[[str, Callable[[], dict[str, Any]]], None],
) -> None:
    """Train the base's fully-connected layers, and all variants."""
    X, y, X_held_out, y_held_out, X_test, y_test = features
    if task == TASKS[1]:
        y, y_held_out, y_test = (
            indicator(labels) for labels in (y, y_held_out, y_test)
        )
    shared = training(setting.epochs, task, seed)
    n_outputs = 120 if task == TASKS[1] else 100
    layers = setting.hidden if task == TASKS[2] else ()
    plain = StructuredClassifier(hidden_layer_sizes=layers, **shared)
    net = plain.fit(X, y).module_.cpu()
    sample = torch.zeros(1, X.shape[1])

    def describe(module: nn.Module) -> dict[str, Any]:
        module = module.cpu()
        return {
            **measure(module, X_test, y_test),
            "train_accuracy": measure(module, X, y)["accuracy"],
            "multiply_adds": conv_cost + count_multiply_adds(module, sample),
        }

    keep(f"{task}/{seed}/base", lambda: describe(net))
    n_heads = (
        1
        + groups_of(
            "confusions", net, X_held_out, y_held_out, setting.n_groups, seed
        ).max()
    )

    def work(variant: str) -> dict[str, Any]:
        groups = groups_of(variant, net, X_held_out, y_held_out, setting.n_groups, seed)
        sizes: tuple[int, ...] = setting.heads
        if variant == "one wide head":
            sizes = width_of_one_head(n_heads, sizes, X.shape[1], n_outputs)
        elif variant == "fresh classifier layer":
            sizes = (1,)
        heads = add_heads(net, groups, sizes, seed)
        module = StructuredClassifier(heads, **shared).fit(X, y).module_
        record = {**describe(module), "groups": groups.tolist()}
        if groups.any():
            fine = np.unique(groups[:100], return_inverse=True)[1]
            record["superclasses"] = purity(fine)
        if variant == "confusions":
            record["conditional"] = conditional(module, net, X_test, y_test)
            for row in record["conditional"]:
                row["multiply_adds"] += conv_cost
        return record

    for variant in VARIANTS:
        keep(f"{task}/{seed}/{variant}", lambda variant=variant: work(variant))


def run(arguments: argparse.Namespace, name: str, out: Path) -> None:
    """Do what is not done yet, in order, until the time is over."""
    setting = SETTINGS[name]
    records: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    deadline = time.monotonic() + 60 * arguments.minutes

    def keep(key: str, work: Callable[[], dict[str, Any]]) -> None:
        if key in records or time.monotonic() > deadline:
            return
        start = time.perf_counter()
        records[key] = work() | {"seconds": time.perf_counter() - start}
        out.write_text(json.dumps(records, indent=1) + "\n")
        print(key, {k: round(records[key][k], 4) for k in ("accuracy", "map")})

    images = None
    for seed in range(setting.seeds):
        file = arguments.cache / f"self_informed_{name}_{seed}.pt"
        keys = [f"{t}/{seed}/{v}" for t in TASKS for v in ("base", *VARIANTS)]
        if time.monotonic() > deadline or all(key in records for key in keys):
            continue
        if not file.exists():
            images = images or load(setting, arguments.data)
            model, held = train_base(setting, images, seed)
            torch.save(keep_features(model, held, images), file)
        if arguments.bases:
            continue
        features, cost = torch.load(file, weights_only=False)
        for task in TASKS:
            if not all(f"{task}/{seed}/{v}" in records for v in ("base", *VARIANTS)):
                run_task(setting, task, seed, features, cost, keep)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--small", action="store_true", help="the setting for CPUs")
    parser.add_argument("--smoke", action="store_true", help="a tiny one, for a test")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--bases", action="store_true", help="only train the bases")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--table", action="store_true", help="only print and draw")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    name = "small" if arguments.small else "smoke" if arguments.smoke else "full"
    out = arguments.out / f"self_informed_{name}.json"
    if not arguments.table:
        run(arguments, name, out)
    if out.exists():
        records = json.loads(out.read_text())
        print(f"{name} setting: {SETTINGS[name]}")
        print(summarize(records, list(VARIANTS)))
        title = f"CIFAR-100, {name} setting"
        draw(records, list(VARIANTS), title, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
