"""Reproduce the paper's Table 1 and Fig. 6: Blockout beside Dropout on CIFAR-100.

A batch-normalised convolutional net with global average pooling is trained as it is,
with two fully-connected layers more, with Dropout on them, and with Blockout in its
three variants; then hard/learned with 2, 4 and 6 clusters and with wider layers. Every
run is one record in the results, so that the script goes on where it was stopped.

Full setting (a GPU; all images, flipped and shifted)::

    python -m benchmarks.reproduce.blockout --data FOLDER

Small setting (a CPU core, about 6 minutes for each seed; 20 classes of 4 superclasses,
100 images each, averaged down to 16 x 16, a narrower net)::

    python -m benchmarks.reproduce.blockout --data FOLDER --small

Pixels (a CPU core, two minutes for each seed; 150 images of the same classes, averaged
down to 8 x 8, and the fully-connected layers alone, without convolutions, so that they
overfit at once)::

    python -m benchmarks.reproduce.blockout --data FOLDER --setting pixels

FOLDER holds cifar100.npz (see benchmarks/data.py). Dropout's rate is the best of
several by test accuracy, which favours Dropout.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import ExponentialLR

from benchmarks.cifar100 import CLASS_NAMES, SUPERCLASSES
from benchmarks.data import load_images
from benchmarks.networks import compact_convnet
from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.baselines import Dropout
from sklearn_structreg.core import StructuredClassifier, make_mlp

RESULTS = Path(__file__).parents[1] / "results"
PAPER = {
    "baseline": 61.56,
    "FC": 62.66,
    "Dropout": 64.32,
    "soft/learned": 63.57,
    "hard/fixed": 65.62,
    "hard/learned": 65.66,
    "hard/learned, 2 clusters": 64.54,
    "hard/learned, 4 clusters": 65.93,
    "hard/learned, 1024 nodes": 66.69,
    "hard/learned, 2048 nodes": 66.71,
}
"""Table 1, test accuracy in per cent; 6 clusters and 512 nodes where not said."""


@dataclass(frozen=True)
class Setting:
    """How much is trained on, and how long."""

    superclasses: int
    images_per_class: int
    test_per_class: int
    image_size: int
    widths: tuple[int, ...]
    nodes: tuple[int, ...]
    drop_rates: tuple[float, ...]
    max_epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    augment: bool


SETTINGS = {
    "full": Setting(
        superclasses=20,
        images_per_class=500,
        test_per_class=100,
        image_size=32,
        widths=(64, 128, 256, 512),
        nodes=(512, 1024, 2048),
        drop_rates=(0.2, 0.3, 0.4, 0.5),
        max_epochs=100,
        batch_size=128,
        learning_rate=0.1,
        weight_decay=5e-4,
        augment=True,
    ),
    "small": Setting(
        superclasses=4,
        images_per_class=100,
        test_per_class=50,
        image_size=16,
        widths=(8, 16, 32),
        nodes=(256, 512, 1024),
        drop_rates=(0.2, 0.4, 0.6),
        max_epochs=80,
        batch_size=64,
        learning_rate=0.05,
        weight_decay=5e-4,
        augment=False,
    ),
    "pixels": Setting(
        superclasses=4,
        images_per_class=150,
        test_per_class=100,
        image_size=8,
        widths=(),
        nodes=(256, 512, 1024),
        drop_rates=(0.2, 0.4, 0.6),
        max_epochs=60,
        batch_size=128,
        learning_rate=0.03,
        weight_decay=5e-4,
        augment=False,
    ),
    "smoke": Setting(
        superclasses=1,
        images_per_class=20,
        test_per_class=20,
        image_size=8,
        widths=(4, 8),
        nodes=(16, 32),
        drop_rates=(0.3,),
        max_epochs=2,
        batch_size=32,
        learning_rate=0.05,
        weight_decay=5e-4,
        augment=True,
    ),
}


PAPER = {
    "gradient": "paper",
    "init_probability": 0.5,
    "block_penalty": 0,
    "logit_rate_factor": 20,
}


def runs(setting: Setting) -> dict[str, dict[str, Any]]:
    """Return what to train: a name, and what differs from hard/learned."""
    narrow, *wider = setting.nodes
    methods: dict[str, dict[str, Any]] = {
        "baseline": {"drop_rate": 0.0, "nodes": 0},
        "FC": {"drop_rate": 0.0},
        **{f"Dropout {rate:g}": {"drop_rate": rate} for rate in setting.drop_rates},
        "soft/learned": {"assignment": "soft"},
        "hard/fixed": {"learn_probabilities": False},
        "hard/learned": {},
        "hard/learned, 2 clusters": {"n_clusters": 2},
        "hard/learned, 4 clusters": {"n_clusters": 4},
        "hard/learned, p = 0.8": {"init_probability": 0.8},
        "hard/learned, logit rate x 1": {"logit_rate_factor": 1.0},
        "hard/learned, logit rate x 400": {"logit_rate_factor": 400.0},
        "hard/learned, last two layers": {"layers": "last two"},
        "hard/learned, 4 x epochs": {"epochs": 4},
        f"Dropout {setting.drop_rates[0]:g}, 4 x epochs": {
            "drop_rate": setting.drop_rates[0],
            "epochs": 4,
        },
        **{f"hard/learned, {n} nodes": {"nodes": n} for n in wider},
        **{f"FC, {n} nodes": {"nodes": n, "drop_rate": 0.0} for n in wider},
    }
    return {name: {"nodes": narrow} | changed for name, changed in methods.items()}


def dropout_names(setting: Setting) -> set[str]:
    """Return what the best Dropout is chosen from."""
    return {f"Dropout {rate:g}" for rate in setting.drop_rates}


class Augment(nn.Module):
    """Flip and shift images at random while training, each in its own way."""

    def forward(self, images: Tensor) -> Tensor:
        """Return images of the same shape."""
        if not self.training:
            return images
        n, _, height, width = images.shape
        shift = height // 8
        padded = functional.pad(images, (shift,) * 4)
        down, right = torch.randint(2 * shift + 1, (2, n, 1, 1), device=images.device)
        rows = torch.arange(height, device=images.device).view(1, -1, 1) + down
        columns = torch.arange(width, device=images.device).expand(n, 1, width)
        flip = torch.rand(n, 1, 1, device=images.device) < 0.5
        columns = torch.where(flip, columns.flip(-1), columns) + right
        sample = torch.arange(n, device=images.device).view(-1, 1, 1)
        return padded[sample, :, rows, columns].permute(0, 3, 1, 2)


class Network(nn.Sequential):
    """The compact net, with `nodes` in two more layers unless that is zero.

    Without `widths` there are no convolutions.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        n_outputs: int,
        widths: tuple[int, ...],
        nodes: int,
        augment: bool,
    ) -> None:
        hidden = (nodes, nodes) if nodes else ()
        if widths:
            net = compact_convnet(
                input_shape, n_outputs, widths=widths, hidden_layer_sizes=hidden
            )
        else:
            mlp = make_mlp(math.prod(input_shape), n_outputs, hidden)
            net = nn.Sequential(nn.Flatten(), *mlp)
        super().__init__(*([Augment()] if augment else []), *net)


class TestAccuracy(Callback):
    """Record the accuracy on test images after every epoch."""

    def __init__(self, X: np.ndarray, y: np.ndarray) -> None:
        self.X, self.y = X, y

    @torch.no_grad()
    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Record."""
        module = net.module_.eval()
        device = next(module.parameters()).device
        parts = torch.from_numpy(self.X).split(500)
        guessed = torch.cat([module(part.to(device)).argmax(1).cpu() for part in parts])
        accuracy = (guessed == torch.from_numpy(self.y)).double().mean()
        net.history.record("test_accuracy", float(accuracy))


class Decay:
    """Let the learning rate fall by a constant factor, to a hundredth in the end."""

    def __call__(self, optimizer: torch.optim.Optimizer, n_epochs: int) -> Any:
        """Make the scheduler."""
        return ExponentialLR(optimizer, 0.01 ** (1 / n_epochs))


def load(setting: Setting, folder: Path) -> tuple[np.ndarray, ...]:
    """Load, pick classes and images, average down, standardise the channels."""
    X, y, X_test, y_test = load_images("cifar100", folder)
    names = " ".join(list(SUPERCLASSES.values())[: setting.superclasses]).split()
    labels = sorted(CLASS_NAMES.index(name) for name in names)
    rows = np.concatenate(
        [np.flatnonzero(y == label)[: setting.images_per_class] for label in labels]
    )
    test_rows = np.concatenate(
        [np.flatnonzero(y_test == label)[: setting.test_per_class] for label in labels]
    )
    X, y, X_test, y_test = X[rows], y[rows], X_test[test_rows], y_test[test_rows]
    factor = X.shape[1] // setting.image_size

    def prepare(images: np.ndarray) -> np.ndarray:
        n, size = len(images), setting.image_size
        pixels = images.reshape(n, size, factor, size, factor, 3).mean((2, 4))
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)

    X, X_test = prepare(X), prepare(X_test)
    mean, std = X.mean((0, 2, 3), keepdims=True), X.std((0, 2, 3), keepdims=True)
    y, y_test = np.searchsorted(labels, y), np.searchsorted(labels, y_test)
    return (X - mean) / std, y, (X_test - mean) / std, y_test


def train(
    setting: Setting,
    changed: dict[str, Any],
    seed: int,
    data: tuple[np.ndarray, ...],
    device: str,
) -> dict[str, Any]:
    """Train once; return a record."""
    X, y, X_test, y_test = data
    changed = dict(changed)
    params = {
        "widths": setting.widths,
        "nodes": changed.pop("nodes"),
        "augment": setting.augment,
    }
    net = Network(X.shape[1:], int(y.max()) + 1, **params)
    linear = [n for n, part in net.named_modules() if type(part) is nn.Linear]
    if changed.get("layers") == "last two":  # P_0 is after the first layer
        changed["layers"] = linear[-2:]
    kind: type[StructuredClassifier] = BlockoutClassifier
    if "drop_rate" not in changed:
        changed = PAPER | changed
    else:  # a plain network, or with dropout behind hidden layers
        kind, rate = StructuredClassifier, changed.pop("drop_rate")
        changed["regularizers"] = [Dropout(rate, layers=linear[:-1])] if rate else None
    model = kind(
        Network,
        module_params=params,
        max_epochs=setting.max_epochs * changed.pop("epochs", 1),
        batch_size=setting.batch_size,
        learning_rate=setting.learning_rate,
        weight_decay=setting.weight_decay,
        lr_schedule=Decay(),
        callbacks=[("test", TestAccuracy(X_test, y_test))],
        device=device,
        random_state=seed,
        **changed,
    )
    start = time.perf_counter()
    model.fit(X, y)
    record: dict[str, Any] = {
        "test_accuracy": [round(a, 4) for a in model.history_[:, "test_accuracy"]],
        "train_loss": [round(a, 4) for a in model.history_[:, "train_loss"]],
        "seconds": round(time.perf_counter() - start, 1),
    }
    if isinstance(model, BlockoutClassifier):
        record["probability_deciles"] = [
            np.quantile(P, [0.1, 0.5, 0.9]).round(3).tolist()
            for P in model.cluster_probabilities_
        ]
    return record


def summarize(records: list[dict[str, Any]], setting: Setting) -> list[dict[str, Any]]:
    """Return a row for each method: accuracy, and how soon it is Dropout's equal."""
    curves: dict[str, np.ndarray] = {}
    for name in runs(setting):
        found = [r["test_accuracy"] for r in records if r["method"] == name]
        if found:
            curves[name] = np.array(found)
    dropout = {n: curves[n][:, -1].mean() for n in dropout_names(setting) & set(curves)}
    best = max(dropout, key=lambda name: dropout[name]) if dropout else None
    rows = []
    for name, curve in curves.items():
        final = curve[:, -1]
        reached = None
        if best is not None:
            # On the mean curve: single ones cross by luck.
            over = np.flatnonzero(curve.mean(axis=0) >= dropout[best])
            reached = int(over[0]) + 1 if over.size else None
        rows.append(
            {
                "method": name,
                "accuracy": 100 * float(final.mean()),
                "standard_deviation": 100 * float(final.std(ddof=1))
                if len(final) > 1
                else None,
                "seeds": len(final),
                "epochs_to_dropout": reached,
                "paper": PAPER.get("Dropout" if name == best else name),
            }
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    print(f"{'':>26}  accuracy   (sd)  seeds  epochs to Dropout's  paper")
    for row in rows:
        spread, epochs, paper = (
            "-" if row[key] is None else f"{row[key]:.{digits}f}"
            for key, digits in (
                ("standard_deviation", 2),
                ("epochs_to_dropout", 0),
                ("paper", 2),
            )
        )
        print(
            f"{row['method']:>26}  {row['accuracy']:8.2f}  {spread:>5}  "
            f"{row['seeds']:5d}  {epochs:>19}  {paper:>5}"
        )


def draw(records: list[dict[str, Any]], setting: Setting, path: Path) -> None:
    """Draw the curves of Fig. 6: mean test accuracy and training loss by epoch."""
    import matplotlib.pyplot as plt

    rows = summarize(records, setting)
    dropout = [row for row in rows if row["method"] in dropout_names(setting)]
    best = max(dropout, key=lambda row: row["accuracy"])["method"] if dropout else ""
    shown = ["baseline", "FC", best, "soft/learned", "hard/fixed", "hard/learned"]
    shown += ["hard/learned, p = 0.8", "hard/learned, logit rate x 400"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for color, name in enumerate(shown):
        found = [record for record in records if record["method"] == name]
        if not found:
            continue
        for ax, key in zip(axes, ("train_loss", "test_accuracy"), strict=True):
            curves = np.array([record[key] for record in found])
            epochs = np.arange(curves.shape[1]) + 1
            ax.plot(epochs, curves.mean(axis=0), color=f"C{color}", label=name)
            low, high = curves.min(axis=0), curves.max(axis=0)
            ax.fill_between(epochs, low, high, color=f"C{color}", alpha=0.15, lw=0)
    axes[0].set(xlabel="epoch", ylabel="training loss")
    axes[1].set(xlabel="epoch", ylabel="test accuracy")
    axes[1].legend(frameon=False)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--setting", choices=SETTINGS, default="full")
    parser.add_argument("--small", action="store_const", const="small", dest="setting")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--seconds", type=float, help="start no run that would outlast this"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    began = time.perf_counter()
    setting = SETTINGS[arguments.setting]
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / f"blockout_{arguments.setting}.json"
    kept = json.loads(path.read_text()) if path.exists() else {"records": []}
    records = kept["records"]
    done = {(record["method"], record["seed"]) for record in records}
    chosen = {
        name: changed
        for name, changed in runs(setting).items()
        if arguments.methods is None or name in arguments.methods
    }
    data = load(setting, arguments.data)
    print(f"{arguments.setting}: {len(data[0])} images, {len(data[2])} test images")
    longest = 0.0
    for seed in range(arguments.seeds):
        for name, changed in chosen.items():
            if (name, seed) in done:
                continue
            left = (arguments.seconds or np.inf) - (time.perf_counter() - began)
            if longest > left:
                continue
            record = train(setting, changed, seed, data, arguments.device)
            longest = max(longest, record["seconds"])
            records.append({"method": name, "seed": seed} | record)
            rows = summarize(records, setting)
            result = {"setting": vars(setting), "rows": rows, "records": records}
            path.write_text(json.dumps(result, indent=1) + "\n")
            final = record["test_accuracy"][-1]
            print(
                f"{name}, seed {seed}: {final:.4f}, {record['seconds']} s", flush=True
            )
    show(summarize(records, setting))
    draw(records, setting, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
