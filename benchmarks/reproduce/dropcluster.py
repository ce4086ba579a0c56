"""DropCluster beside its rivals on CIFAR-100: the tables of the paper, and corruptions.

    python -m benchmarks.reproduce.dropcluster --data FOLDER [--small] [--device cuda]

FOLDER holds cifar100.npz (x_train, y_train, x_test, y_test; uint8). ResNet-50 with the
stem that makes 64 maps of 16 x 16, SGD with momentum 0.9, rate 0.1 divided by ten at 60
and 80 % of 250 epochs, weight decay 5e-4, batches of 128, random flips, crops after
padding by 4 and rotations; regularizers where the paper puts them; clusters from a
fifth of the epochs on, every fifth. Accuracies are means over the last fifth of the
epochs, each tested after the epoch. The net of the last epoch is then tested on the
seven corruptions at severities 1 to 5, which the paper did on Tiny ImageNet.

What the paper leaves open: rotations here are up to 15 degrees; mini-batches to cluster
are not augmented; "the convolutional layer in the fourth group" is the group's output.

`--small` is for a CPU: the first 10 classes with 250 images each, a residual net of
four basic blocks from 16 channels on, 30 epochs, three rates besides the paper's best.
Its accuracies stand beside each other, not beside the paper's.

Every run is a line of JSON as soon as it is done; started again, the script goes on
with what is missing. `--max-runs 0` prints and draws what there is.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample
from torch.optim.lr_scheduler import MultiStepLR

from benchmarks.corruptions import CORRUPTIONS, corrupt
from benchmarks.data import load_images
from benchmarks.networks import ResNet
from sklearn_structreg import DropClusterClassifier
from sklearn_structreg.baselines import (
    DropBlock,
    Dropout,
    SpatialDropout,
    StochasticDepth,
)
from sklearn_structreg.baselines.stochastic_depth import residual_branches
from sklearn_structreg.core import Regularizer, StructuredClassifier

RESULTS = Path(__file__).parents[1] / "results"

SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {
        "depths": (3, 4, 6, 3),
        "width": 64,
        "expansion": 4,
        "max_epochs": 250,
        "classes": 100,
        "images_per_class": 500,
        "rates": (0.1, 0.15, 0.2, 0.25, 0.3),
        "fractions": (1.0, 0.9, 0.8, 0.5, 0.2),
        "seeds": 4,
    },
    "small": {
        "depths": (1, 1, 1, 1),
        "width": 16,
        "expansion": 1,
        "max_epochs": 30,
        "classes": 10,
        "images_per_class": 250,
        "rates": (0.05, 0.1, 0.2),
        "fractions": (1.0, 0.2),
        "seeds": 3,
    },
}
BEST_RATES = {
    "none": 0.0,
    "dropout": 0.2,
    "spatial": 0.15,
    "dropblock": 0.15,
    "stochastic_depth": 0.25,
    "dropcluster": 0.1,
}
"""Of Table 1."""
PAPER_TABLE_1 = {
    "none": (60.82, 83.66),
    "dropout": (61.00, 84.32),
    "dropblock": (62.01, 84.54),
    "dropcluster": (63.01, 85.45),
    "spatial": (61.04, 84.63),
    "stochastic_depth": (61.73, 85.39),
}
PAPER_TABLE_2 = {
    "dropblock": {1.0: 62.01, 0.9: 61.89, 0.8: 60.72, 0.5: 61.39, 0.2: 53.33},
    "dropcluster": {1.0: 63.01, 0.9: 62.31, 0.8: 62.18, 0.5: 61.36, 0.2: 56.03},
    "stochastic_depth": {1.0: 61.73, 0.9: 56.30, 0.8: 49.48, 0.5: 42.16, 0.2: 29.57},
}
PAPER_TABLE_5 = {
    "dropblock": (61.25, 60.57, 58.31, 54.48, 48.87, 56.27, 51.63),
    "dropcluster": (62.57, 61.92, 58.85, 56.29, 51.94, 58.44, 54.07),
    "stochastic_depth": (62.08, 61.64, 57.83, 52.40, 47.92, 57.45, 50.18),
}
"""Tiny ImageNet at severity 1, in the order of `CORRUPTIONS`."""


class AugmentedResNet(nn.Module):
    """The network, whose images are flipped, shifted and rotated in training."""

    def __init__(self, n_outputs: int, **params: Any) -> None:
        super().__init__()
        self.net = ResNet(n_outputs, **params)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.net(augment(x) if self.training else x)
        return logits


def augment(x: Tensor) -> Tensor:
    """Flip, rotate by up to 15 degrees, and shift by up to 4 pixels each way."""
    n, device = len(x), x.device
    flip = torch.randint(2, (n,), device=device) * 2.0 - 1
    angle = torch.deg2rad(30 * torch.rand(n, device=device) - 15)
    shift = torch.randint(-4, 5, (n, 2), device=device) * (2 / x.shape[-1])
    cos, sin = angle.cos(), angle.sin()
    rows = [flip * cos, -sin, shift[:, 0], flip * sin, cos, shift[:, 1]]
    theta = torch.stack(rows, 1).view(n, 2, 3).to(x.dtype)
    grid = affine_grid(theta, list(x.shape), align_corners=False)
    return grid_sample(x, grid, align_corners=False)


def schedule(optimizer: torch.optim.Optimizer, n_epochs: int) -> MultiStepLR:
    """Divide the rate by ten at 60 and 80 % of the epochs, as at 150 and 200 of 250."""
    return MultiStepLR(optimizer, [round(0.6 * n_epochs), round(0.8 * n_epochs)])


class TestAccuracy(Callback):
    """Note the accuracy on the test set after each of the last epochs."""

    def __init__(self, X: Tensor, y: Tensor, first_epoch: int) -> None:
        self.X, self.y, self.first_epoch = X, y, first_epoch
        self.found: list[tuple[float, float]] = []

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Test."""
        if len(net.history) > self.first_epoch:
            self.found.append(accuracy(net.module_, self.X, self.y))


def accuracy(module: nn.Module, X: Tensor, y: Tensor) -> tuple[float, float]:
    """Return top-1 and top-5 accuracy in per cent."""
    device = next(module.parameters()).device
    module.eval()
    hits = torch.zeros(2)
    with torch.inference_mode():
        for images, target in zip(X.split(1000), y.split(1000), strict=True):
            top = module(images.to(device)).topk(5, dim=1).indices.cpu()
            match = top == target[:, None]
            hits += torch.stack([match[:, 0].sum(), match.sum()])
    one, five = (100 * hits / len(y)).tolist()
    return one, five


def load(folder: Path, setting: dict[str, Any]) -> dict[str, Any]:
    """Return the images in [0, 1] and labels of the setting's classes."""
    x_train, y_train, x_test, y_test = load_images("cifar100", folder)
    of_class = [
        np.flatnonzero(y_train == label)[: setting["images_per_class"]]
        for label in range(setting["classes"])
    ]
    tested = np.flatnonzero(y_test < setting["classes"])
    images = (x_train[np.concatenate(of_class)] / np.float32(255)).astype(np.float32)
    return {
        "x_train": images,
        "y_train": y_train[np.concatenate(of_class)].astype(np.int64),
        "x_test": (x_test[tested] / np.float32(255)).astype(np.float32),
        "y_test": torch.from_numpy(y_test[tested].astype(np.int64)),
        "mean": images.mean((0, 1, 2)),
        "std": images.std((0, 1, 2)),
    }


def normalized(images: np.ndarray, data: dict[str, Any]) -> np.ndarray:
    """Put channels first, with the training images' mean 0 and deviation 1."""
    scaled = (images - data["mean"]) / data["std"]
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def plan(
    setting: dict[str, Any], seeds: int, methods: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield the runs, a whole seed after the other."""
    for seed in range(seeds):
        for fraction in (1.0, 0.2, *sorted(set(setting["fractions"]) - {1.0, 0.2})):
            for method in methods:
                rates = [BEST_RATES[method]]
                if fraction == 1:  # smaller sets, as in the paper, at that of Table 1
                    rates = sorted({*rates, *setting["rates"]})
                for rate in (0.0,) if method == "none" else rates:
                    yield {
                        "method": method,
                        "rate": rate,
                        "fraction": fraction,
                        "seed": seed,
                    }


def rival(method: str, rate: float, size: dict[str, Any]) -> list[Regularizer]:
    """Make the regularizer of a method other than DropCluster, at the paper's place."""
    last = "net.groups.3"
    match method:
        case "dropblock":
            return [DropBlock(rate, layers="net.groups.0")]
        case "spatial":
            return [SpatialDropout(rate, layers=last)]
        case "dropout":
            return [Dropout(rate, layers=last)]
        case "stochastic_depth":
            names = residual_branches(ResNet(2, **size))
            return [StochasticDepth(rate, layers=[f"net.{name}" for name in names])]
    return []


def train(
    run: dict[str, Any], setting: dict[str, Any], data: dict[str, Any], device: str
) -> dict[str, Any]:
    """Train one network, test it, and return what came out."""
    size = {name: setting[name] for name in ("depths", "width", "expansion")}
    method = run["method"]
    kind: type[StructuredClassifier] = StructuredClassifier
    special: dict[str, Any] = {"regularizers": rival(method, run["rate"], size)}
    if method == "dropcluster":
        kind = DropClusterClassifier
        special = {"drop_rate": run["rate"], "layer": "net.conv1"}
    rng = np.random.default_rng(run["seed"])
    kept = [
        rng.permutation(np.flatnonzero(data["y_train"] == label))
        for label in np.unique(data["y_train"])
    ]
    rows = np.concatenate([r[: round(run["fraction"] * len(r))] for r in kept])
    n_epochs = setting["max_epochs"]
    x_test = torch.from_numpy(normalized(data["x_test"], data))
    test = TestAccuracy(x_test, data["y_test"], n_epochs - n_epochs // 5)
    model = kind(
        AugmentedResNet,
        module_params=size,
        **special,
        max_epochs=n_epochs,
        batch_size=128,
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        lr_schedule=schedule,
        callbacks=[("test", test)],
        device=device,
        random_state=run["seed"],
    )
    start = time.perf_counter()
    model.fit(normalized(data["x_train"][rows], data), data["y_train"][rows])
    seconds = time.perf_counter() - start
    result = run | {
        "top1": float(np.mean([one for one, _ in test.found])),
        "top5": float(np.mean([five for _, five in test.found])),
        "train_loss": float(model.history_[-1, "train_loss"]),
        "n_structured": int(model.structured_channels_.sum())
        if method == "dropcluster"
        else None,
        "seconds": seconds,
    }
    if run["fraction"] == 1 and run["rate"] == BEST_RATES[method]:
        result["corruptions"] = {
            name: [
                accuracy(model.module_, images, data["y_test"])[0]
                for images in corrupted(name, data)
            ]
            for name in CORRUPTIONS
        }
    return result


CORRUPTED: dict[str, list[Tensor]] = {}


def corrupted(name: str, data: dict[str, Any]) -> list[Tensor]:
    """Return the test set under a corruption, at severities 1 to 5."""
    if name not in CORRUPTED:
        CORRUPTED[name] = [
            torch.from_numpy(normalized(corrupt(data["x_test"], name, level), data))
            for level in range(1, 6)
        ]
    return CORRUPTED[name]


def means(
    records: list[dict[str, Any]],
) -> dict[tuple[str, float, float], list[dict[str, Any]]]:
    """Group the runs that differ by their seeds alone."""
    groups = defaultdict(list)
    for record in records:
        key = record["method"], record["rate"], record["fraction"]
        groups[key].append(record)
    return dict(sorted(groups.items(), key=lambda item: (-item[0][2], item[0][:2])))


def report(records: list[dict[str, Any]]) -> None:
    """Print the tables, each beside the paper's."""
    groups = means(records)
    print("\nregularizer        rate  train set  seeds  top-1   se    top-5  paper's")
    for (method, rate, fraction), runs in groups.items():
        ones = [run["top1"] for run in runs]
        error = np.std(ones, ddof=1) / len(ones) ** 0.5 if len(ones) > 1 else np.nan
        five = np.mean([run["top5"] for run in runs])
        paper: Any = PAPER_TABLE_2.get(method, {}).get(fraction, "")
        if fraction == 1:
            paper = PAPER_TABLE_1[method][0]
        print(
            f"{method:18s} {rate:4.2f}  {fraction:8.0%}  {len(runs):6d}  "
            f"{np.mean(ones):5.2f} {error:5.2f}  {five:6.2f}   {paper}"
        )
    print(
        "\ntop-1 at severity 1 / 3 / 5 (the paper's Table 5: Tiny ImageNet, severity 1)"
    )
    print(f"{'':18s}" + "".join(f"{name:>20s}" for name in CORRUPTIONS))
    for (method, _, _), runs in groups.items():
        tested = [run["corruptions"] for run in runs if "corruptions" in run]
        if not tested:
            continue
        line = f"{method:18s}"
        for name in CORRUPTIONS:
            levels = np.mean([one[name] for one in tested], axis=0)
            line += f"{levels[0]:8.1f}{levels[2]:6.1f}{levels[4]:6.1f}"
        print(line)
        if method in PAPER_TABLE_5:
            numbers = "".join(
                f"{value:8.1f}{'':12s}" for value in PAPER_TABLE_5[method]
            )
            print(f"{'  paper':18s}{numbers}")


def draw(records: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw accuracy by training-set size and by severity of the corruption."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = means(records)
    figure, axes = plt.subplots(
        2, 4, figsize=(13, 6), sharey=True, layout="constrained"
    )
    first, *others = axes.ravel()
    for color, (method, rate) in enumerate(BEST_RATES.items()):
        name = method if not rate else f"{method} {rate:g}"
        runs = {f: r for (m, p, f), r in groups.items() if (m, p) == (method, rate)}
        sizes = sorted(runs)
        ones = [[run["top1"] for run in runs[size]] for size in sizes]
        if not ones:
            continue
        first.errorbar(
            [100 * size for size in sizes],
            [np.mean(one) for one in ones],
            [np.std(one) for one in ones],
            marker="o",
            capsize=3,
            color=f"C{color}",
            label=name,
        )
        for axis, corruption in zip(others, CORRUPTIONS, strict=True):
            tested = [
                run["corruptions"][corruption]
                for run in runs.get(1.0, [])
                if "corruptions" in run
            ]
            if tested:
                axis.plot(range(1, 6), np.mean(tested, 0), "o-", color=f"C{color}")
            axis.set(title=f"{corruption}", xlabel="severity", xticks=range(1, 6))
    first.set(
        xlabel="training set (%)", xlim=(0, 105), ylabel="top-1 (%)", title="clean"
    )
    axes[1, 0].set_ylabel("top-1 (%)")
    figure.legend(loc="outside lower center", ncols=6, frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--methods", nargs="+", default=list(BEST_RATES))
    parser.add_argument("--rates", type=float, nargs="+", help="in place of the grid")
    parser.add_argument("--max-runs", type=int, help="stop after so many new runs")
    parser.add_argument("--output", type=Path, help="of JSON lines")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name = "small" if arguments.small else "paper"
    setting = SETTINGS[name]
    if arguments.rates:
        setting["rates"] = tuple(arguments.rates)
    output = arguments.output or RESULTS / f"dropcluster_{name}.jsonl"
    output.parent.mkdir(parents=True, exist_ok=True)
    lines = output.read_text().splitlines() if output.exists() else []
    records = [json.loads(line) for line in lines]
    done = {
        tuple(r[k] for k in ("method", "rate", "fraction", "seed")) for r in records
    }
    data = load(arguments.data, setting)
    n_left = arguments.max_runs
    for run in plan(setting, arguments.seeds or setting["seeds"], arguments.methods):
        if tuple(run.values()) in done:
            continue
        if n_left is not None and n_left <= 0:
            break
        record = train(run, setting, data, arguments.device)
        records.append(record)
        with output.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
        print(
            f"{run}: top-1 {record['top1']:.2f} in {record['seconds']:.0f} s",
            flush=True,
        )
        n_left = None if n_left is None else n_left - 1
    if records:
        report(records)
        title = f"CIFAR-100, {name} setting: means over seeds"
        draw(records, output.with_suffix(".png"), title)


if __name__ == "__main__":
    main()
