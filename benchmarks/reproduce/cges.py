"""The accuracy that sparsity costs: the thesis's Figure 3 and Table 2.

A network is trained with L2, L1, group, exclusive and CGES penalties over a range of
strengths, and pruned iteratively to a tenth of its parameters; means over seeds of the
test accuracy, the share of parameters and of multiply-adds left, counted by element and
after compaction, and the latency of the compacted network beside the dense one's.

    python -m benchmarks.reproduce.cges --data FOLDER                      # MNIST, GPU
    python -m benchmarks.reproduce.cges --data FOLDER --dataset cifar100   # GPU
    python -m benchmarks.reproduce.cges --data FOLDER --small              # MNIST, CPU

``--small`` is 4,000 training images, a quarter of the channels and an eighth of the
hidden units of the paper's network, 12 epochs. FOLDER holds the data set's ``.npz``.
Every run leaves a record and its network in ``--work``; a run that is there is not
repeated, so that ``--minutes 5`` can be called again and again. ``--report`` only makes
the table, the JSON and the PNG in ``benchmarks/results`` of the runs that are there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.data import load_images
from benchmarks.networks import paper_convnet, small_resnet
from sklearn_structreg import CGESClassifier

RESULTS = Path(__file__).parents[1] / "results"

PENALTIES: dict[str, dict[str, Any]] = {
    "L2": {"penalty": "l2"},
    "L1": {"penalty": "l1"},
    "GS-filter": {"penalty": "group", "groups": "filter"},
    "GS-feature": {"penalty": "group", "groups": "feature"},
    "ES": {"penalty": "exclusive"},
    "CGES": {"penalty": "cges"},
    "CGES, scale None": {"penalty": "cges", "layer_scale": None},
}
"""The names of Figure 3; the last is CGES with the constants of the bare formula."""


@dataclass(frozen=True)
class Setting:
    """A data set, a network and a training."""

    dataset: str
    network: Callable[..., nn.Module]
    n_train: int
    n_test: int
    max_epochs: int
    batch_size: int
    strengths: dict[str, tuple[float, ...]]
    pruned: dict[str, float]  # the strength beside iterative pruning
    n_seeds: int = 3
    learning_rate: float = 0.05


MNIST_STRENGTHS = {
    "L2": (1e-3,),
    "L1": (1e-3, 3e-3, 1e-2, 3e-2),
    "GS-filter": (1e-3, 3e-3, 6e-3, 1e-2),
    "GS-feature": (1e-3, 3e-3, 6e-3, 1e-2),
    "ES": (3e-3, 1e-2, 3e-2, 1e-1),
    "CGES": (3e-3, 1e-2, 3e-2, 1e-1),
    "CGES, scale None": (1e-3, 3e-3, 1e-2, 3e-2),
}
SETTINGS = {
    "mnist": Setting(
        "mnist", paper_convnet, 60_000, 10_000, 60, 100,
        MNIST_STRENGTHS, {"L2": 1e-3, "CGES": 1e-2},
    ),
    "mnist small": Setting(
        "mnist", partial(paper_convnet, widths=(8, 16), n_hidden=128),
        4_000, 10_000, 12, 50, MNIST_STRENGTHS, {"L2": 1e-3, "CGES": 1e-2},
    ),
    "cifar100": Setting(
        "cifar100", small_resnet, 50_000, 10_000, 60, 128,
        MNIST_STRENGTHS, {"L2": 1e-3, "CGES": 1e-2},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One network to train."""

    penalty: str
    alpha: float
    density: float | None
    seed: int

    @property
    def label(self) -> str:
        """The name of the run's files."""
        pruned = "" if self.density is None else f"-pruned{self.density:g}"
        name = self.penalty.replace(", ", "-").replace(" ", "-")
        return f"{name}-{self.alpha:g}{pruned}-seed{self.seed}"


def runs(setting: Setting) -> Iterator[Run]:
    """Yield all runs, seed by seed, so that every curve is there early."""
    for seed in range(setting.n_seeds):
        for penalty, strengths in setting.strengths.items():
            yield from (Run(penalty, alpha, None, seed) for alpha in strengths)
        for penalty, alpha in setting.pruned.items():
            yield Run(penalty, alpha, 0.1, seed)


def load(setting: Setting, folder: Path | None) -> tuple[np.ndarray, ...]:
    """Load images as float32 (n, C, H, W), each channel with mean 0 and deviation 1."""
    X, y, X_test, y_test = load_images(setting.dataset, folder)
    X, y = X[: setting.n_train], y[: setting.n_train]
    X_test, y_test = X_test[: setting.n_test], y_test[: setting.n_test]
    X, X_test = (x if x.ndim == 4 else x[..., None] for x in (X, X_test))
    X, X_test = (np.moveaxis(x, -1, 1).astype(np.float32) for x in (X, X_test))
    mean, deviation = X.mean((0, 2, 3), keepdims=True), X.std((0, 2, 3), keepdims=True)
    return (X - mean) / deviation, y, (X_test - mean) / deviation, y_test


def train(
    setting: Setting, run: Run, data: Sequence[np.ndarray]
) -> tuple[dict[str, Any], nn.Module]:
    """Train one network; return its record, and itself on the CPU."""
    X, y, X_test, y_test = data
    model = CGESClassifier(
        setting.network,
        **PENALTIES[run.penalty],
        alpha=run.alpha,
        target_density=run.density,
        max_epochs=setting.max_epochs,
        batch_size=setting.batch_size,
        learning_rate=setting.learning_rate,
        lr_schedule="cosine",
        random_state=run.seed,
    )
    start = time.perf_counter()
    model.fit(X, y)
    record = {
        "penalty": run.penalty,
        "alpha": run.alpha,
        "target_density": run.density,
        "seed": run.seed,
        "accuracy": model.score(X_test, y_test),
        "parameters": model.n_nonzero_parameters_ / model.n_parameters_,
        "layer_sparsity": model.history_[-1, "layer_sparsity"],
        "fit_seconds": time.perf_counter() - start,
    }
    return record, model.module_.cpu()


def train_all(
    setting: Setting, data: Sequence[np.ndarray], work: Path, deadline: float
) -> None:
    """Train what is not yet there, until the deadline."""
    work.mkdir(parents=True, exist_ok=True)
    for run in runs(setting):
        target = work / f"{run.label}.json"
        if target.exists():
            continue
        if time.monotonic() > deadline:
            print("time is up; call again for the rest")
            return
        record, module = train(setting, run, data)
        torch.save(module.state_dict(), target.with_suffix(".pt"))
        target.write_text(json.dumps(record, indent=1) + "\n")
        print(
            f"{run.label:32} accuracy {record['accuracy']:.4f}  "
            f"parameters {record['parameters']:6.1%}  {record['fit_seconds']:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the .npz of the images")
    parser.add_argument("--dataset", default="mnist", choices=["mnist", "cifar100"])
    parser.add_argument("--small", action="store_true", help="for a CPU")
    parser.add_argument("--work", type=Path, help="folder of the runs")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    arguments = parser.parse_args()
    name = arguments.dataset + (" small" if arguments.small else "")
    setting = SETTINGS[name]
    work = arguments.work or Path("build") / f"cges-{name.replace(' ', '-')}"
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    data = load(setting, arguments.data)
    deadline = time.monotonic() + 60 * arguments.minutes
    train_all(setting, data, work, deadline)


if __name__ == "__main__":
    main()
