"""Measure the accuracy that pruning keeps, beside torch's own recipe.

MNIST images, LeNet-300-100 and a small convolutional network, pruned to 10, 5 and 2 %
of the weights within the same epochs by

- torch: half of the epochs dense, then five rounds of
  `torch.nn.utils.prune.global_unstructured` by magnitude, each followed by as many
  epochs with an optimizer of its own (the usual recipe);
- rounds: `IterativePruning`, without a penalty;
- L2, CGES: a `CGESClassifier` with one of these penalties and the same rounds.

Each is tuned for either network by as many settings at 5 %, by the accuracy on
validation rows after one training: torch and rounds by the learning rate and its
schedule, the others by the rate and alpha. The settings chosen train anew on other
rows for each seed, and the test set is read once. Beside the means are the differences
to torch from the same rows, with the standard error of their mean.

Run ``python -m benchmarks.value.pruning --data FOLDER``, where FOLDER holds
``mnist.npz`` (about 20 minutes on one core). ``--only`` takes names of networks,
``--small`` is the convnet at 5 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.data import load_images
from benchmarks.value.runs import Run, Runs
from benchmarks.value.section import Options, run_section
from benchmarks.value.standing import paired
from sklearn_structreg import CGESClassifier
from sklearn_structreg.core import make_mlp

N_TRAIN, N_VALID, EPOCHS, BATCH = 2_000, 5_000, 40, 128
DENSITIES = (0.1, 0.05, 0.02)
TUNED_AT = 0.05
RATES = (0.05, 0.1)

Rows = tuple[np.ndarray, np.ndarray]
Params = dict[str, Any]


def lenet(shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Build LeNet-300-100."""
    return nn.Sequential(nn.Flatten(), *make_mlp(784, n_outputs, (300, 100)))


def convnet(shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Build a network of two convolutions, on images of half the size."""
    return nn.Sequential(
        *(nn.AvgPool2d(2), nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(16 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, n_outputs)),
    )


NETWORKS: dict[str, Callable[..., nn.Module]] = {"LeNet": lenet, "convnet": convnet}


def penalised(penalty: str, alphas: Sequence[float]) -> list[Params]:
    """Return the settings with a penalty."""
    return [
        {"rate": rate, "schedule": "cosine", "penalty": penalty, "alpha": alpha}
        for rate, alpha in product(RATES, alphas)
    ]


SCHEDULED: list[Params] = [
    {"rate": rate, "schedule": schedule}
    for rate, schedule in product(RATES, (None, "cosine"))
]
SETTINGS: dict[str, list[Params]] = {
    "torch": SCHEDULED,
    "rounds": SCHEDULED,
    "L2": penalised("l2", (1e-3, 5e-3)),
    "CGES": penalised("cges", (0.3, 1.0)),
}


def torchs_recipe(
    network: nn.Module, X: np.ndarray, y: np.ndarray, density: float, params: Params
) -> Callable[[np.ndarray], np.ndarray]:
    """Train and prune with torch alone; return a function that predicts."""
    images, labels = torch.tensor(X), torch.tensor(y)
    weights = [
        (layer, "weight")
        for layer in network.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    n_weights = n_left = sum(layer.weight.numel() for layer, _ in weights)
    stages = [EPOCHS // 2] + [EPOCHS // 10] * 5
    for stage, n_epochs in enumerate(stages):
        if stage:
            n_kept = round(n_weights * density ** (stage / 5))
            prune.global_unstructured(
                weights, prune.L1Unstructured, amount=n_left - n_kept
            )
            n_left = n_kept
        optimizer = torch.optim.SGD(network.parameters(), params["rate"], momentum=0.9)
        cosine = CosineAnnealingLR(optimizer, n_epochs)
        for _ in range(n_epochs):
            for batch in torch.randperm(len(X)).split(BATCH):
                optimizer.zero_grad()
                outputs = network(images[batch])
                nn.functional.cross_entropy(outputs, labels[batch]).backward()
                optimizer.step()
            if params["schedule"] == "cosine":
                cosine.step()
    for layer, name in weights:
        prune.remove(layer, name)

    def predict(X: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.tensor(X)).argmax(1).numpy()

    return predict


def fitted(
    network: str, contestant: str, params: Params, density: float, rows: Rows, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Train a network; return a function that predicts."""
    X, y = rows
    if contestant == "torch":
        torch.manual_seed(seed)
        module = NETWORKS[network](X.shape[1:], 10)
        return torchs_recipe(module, X, y, density, params)
    model = CGESClassifier(
        alpha=params.get("alpha", 0),
        penalty=params.get("penalty", "cges"),
        module=NETWORKS[network],
        target_density=density,
        learning_rate=params["rate"],
        lr_schedule=params["schedule"],
        max_epochs=EPOCHS,
        batch_size=BATCH,
        random_state=seed,
    )
    return model.fit(X, y).predict


class Images:
    """Samples of the training images: other rows for each seed; the test set."""

    def __init__(self, folder: Path | None) -> None:
        X, y, X_test, y_test = load_images("mnist", folder)
        X, X_test = (part[:, None].astype(np.float32) for part in (X, X_test))
        mean, scale = X.mean(), X.std()
        self.X, self.y = (X - mean) / scale, y.astype(np.int64)
        self.test = (X_test - mean) / scale, y_test

    def rows(self, seed: int) -> tuple[Rows, Rows]:
        """Return training and validation rows."""
        order = np.random.default_rng(seed).permutation(len(self.X))
        parts = order[:N_TRAIN], order[N_TRAIN : N_TRAIN + N_VALID]
        train, valid = ((self.X[part], self.y[part]) for part in parts)
        return train, valid


def measure(runs: Runs, options: Options) -> None:
    """Tune every contestant at one density, and train it at all on other rows."""
    images = Images(options.data)
    densities = [TUNED_AT] if options.small else DENSITIES
    for network, contestant in product(NETWORKS, SETTINGS):
        if not options.wants(network) or (options.small and network != "convnet"):
            continue
        key = {"network": network, "contestant": contestant}
        for params in SETTINGS[contestant]:
            tuning = key | {"density": TUNED_AT, "params": params}
            runs.once(
                {"on": "valid", "seed": 0} | tuning, fit, images, "valid", 0, tuning
            )
        chosen = tuned(runs, network, contestant)
        for density, seed in product(densities, options.seeds):
            final = key | {"density": density, "params": chosen}
            number = seed + 1  # the rows of seed 0 were for the choice
            runs.once(
                {"on": "test", "seed": number} | final,
                fit,
                images,
                "test",
                number,
                final,
            )


def fit(images: Images, on: str, seed: int, setting: Params) -> Run:
    """Return the accuracy on validation or test rows, in per cent."""
    train, valid = images.rows(seed)
    X, y = valid if on == "valid" else images.test
    predict = fitted(**setting, rows=train, seed=seed)
    return {"accuracy": 100 * float((predict(X) == y).mean())}


def tuned(runs: Runs, network: str, contestant: str) -> Params:
    """Return the settings of a contestant that are best on validation rows."""
    settings = SETTINGS[contestant]
    key = {"on": "valid", "network": network, "contestant": contestant}
    scores = [runs.mean("accuracy", **key, params=params) for params in settings]
    return settings[int(np.argmax(scores))]


def report(runs: Runs) -> str:
    """Return means over seeds, and paired differences to torch's recipe."""
    names = list(SETTINGS)
    lines = [
        f"{'':>8} {'left':>5}"
        + "".join(f"{name:>8}" for name in names)
        + "".join(f"{f'{name} - torch':>17}" for name in names[1:])
    ]
    for network, density in product(NETWORKS, DENSITIES):
        scores = {}
        for name in names:
            key = {"on": "test", "network": network, "contestant": name}
            found = runs.select(
                **key, density=density, params=tuned(runs, network, name)
            )
            scores[name] = {row["seed"]: row["accuracy"] for row in found}
        seeds = sorted(set.intersection(*(set(each) for each in scores.values())))
        if not seeds:
            continue
        means = {name: np.array([scores[name][s] for s in seeds]) for name in names}
        cells = [f"{means[name].mean():8.2f}" for name in names]
        for name in names[1:]:
            cells.append(f"{paired(means[name] - means['torch']):>17}")
        lines.append(f"{network:>8} {density:5.0%}" + "".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    run_section("pruning_value", __doc__, measure, report)
