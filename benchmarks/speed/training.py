"""How fast an estimator trains, beside a bare torch loop, skorch and scikit-learn.

All train the same multilayer perceptron (100 hidden ReLU units) on the same data with
the same optimizer, batch size and number of epochs, in one process, taking turns. A
figure is the median over the repeats of the time per epoch: the time of a `fit` less
that of a `fit` of one epoch, over the number of epochs between them. On one thread of a
CPU it is processor time, which other processes on the machine do not lengthen.

Run ``python -m benchmarks.speed.training``; ``--device cuda`` for a GPU, ``--threads``
for more than one thread, ``--json FILE`` to keep the figures.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from sklearn.datasets import load_digits, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetClassifier
from torch.nn import functional

from sklearn_structreg import CGESClassifier
from sklearn_structreg.cges import CGES, _compiled
from sklearn_structreg.core import StructuredClassifier, make_mlp

BATCH_SIZE, LEARNING_RATE, MOMENTUM = 128, 0.05, 0.9
Fit = Callable[[np.ndarray, np.ndarray, int], object]
Clock = Callable[[], float]


def bare_torch(device: str) -> Fit:
    """Train as a short script would: shuffled indices, one gather per batch."""

    def fit(X: np.ndarray, y: np.ndarray, n_epochs: int) -> object:
        torch.manual_seed(0)
        net = make_mlp(X.shape[1], int(y.max()) + 1).to(device)
        optimizer = torch.optim.SGD(
            net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM
        )
        samples = torch.from_numpy(X).to(device)
        target = torch.from_numpy(y).to(device)
        for _ in range(n_epochs):
            order = torch.randperm(len(X)).to(device)
            for start in range(0, len(X), BATCH_SIZE):
                rows = order[start : start + BATCH_SIZE]
                optimizer.zero_grad()
                loss = functional.cross_entropy(net(samples[rows]), target[rows])
                loss.backward()
                optimizer.step()
        return net

    return fit


def stock_skorch(device: str) -> Fit:
    """Train skorch's own classifier as it comes, but without a hold-out or prints."""

    def fit(X: np.ndarray, y: np.ndarray, n_epochs: int) -> object:
        torch.manual_seed(0)
        return NeuralNetClassifier(
            make_mlp(X.shape[1], int(y.max()) + 1),
            criterion=torch.nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD,
            optimizer__momentum=MOMENTUM,
            lr=LEARNING_RATE,
            batch_size=BATCH_SIZE,
            iterator_train__shuffle=True,
            max_epochs=n_epochs,
            train_split=None,
            device=device,
            verbose=0,
        ).fit(X, y)

    return fit


def scikit_learn(X: np.ndarray, y: np.ndarray, n_epochs: int) -> object:
    """Train scikit-learn's own perceptron, always on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are fixed
        return MLPClassifier(
            solver="sgd",
            momentum=MOMENTUM,
            nesterovs_momentum=False,
            alpha=0.0,
            learning_rate_init=LEARNING_RATE,
            batch_size=BATCH_SIZE,
            max_iter=n_epochs,
            n_iter_no_change=n_epochs + 1,
            random_state=0,
        ).fit(X, y)


def ours(estimator: type[StructuredClassifier], device: str, **params: object) -> Fit:
    """Train one of the package's estimators."""

    def fit(X: np.ndarray, y: np.ndarray, n_epochs: int) -> object:
        return estimator(
            max_epochs=n_epochs,
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            momentum=MOMENTUM,
            device=device,
            standardize=False,  # the others take the data as given, too
            random_state=0,
            **params,
        ).fit(X, y)

    return fit


def data_sets() -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """Return samples, labels and epochs per fit of each data set."""
    X, y = load_digits(return_X_y=True)
    sets = {"digits 1,797 x 64": (X / 16, y, 150)}
    for n, d, epochs in [(20_000, 64, 5), (50_000, 784, 3)]:
        X, y = make_classification(n, d, n_informative=20, n_classes=10, random_state=0)
        sets[f"{n:,} x {d}"] = (X, y, epochs)
    return {
        name: (X.astype(np.float32), y.astype(np.int64), epochs)
        for name, (X, y, epochs) in sets.items()
    }


def seconds(
    fit: Fit, X: np.ndarray, y: np.ndarray, n_epochs: int, clock: Clock
) -> float:
    """Time one fit, the device's work included."""
    start = clock()
    fit(X, y, n_epochs)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def without_loops(fit: Fit) -> Fit:
    """Give the proximal operators to torch, as on a GPU."""

    def plain(X: np.ndarray, y: np.ndarray, n_epochs: int) -> object:
        with mock.patch.object(_compiled, "ENABLED", False):
            return fit(X, y, n_epochs)

    return plain


def prox_share(
    fit: Fit, X: np.ndarray, y: np.ndarray, n_epochs: int, clock: Clock
) -> float:
    """Return the part of a fit's time that goes into the proximal steps.

    On a GPU the device is waited for around each step, which makes the fit slower.
    """
    spent = 0.0
    after_step = CGES.after_step

    def timed(
        self: CGES, module: torch.nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        nonlocal spent
        on_gpu = next(module.parameters()).is_cuda
        if on_gpu:
            torch.cuda.synchronize()
        start = clock()
        after_step(self, module, optimizer)
        if on_gpu:
            torch.cuda.synchronize()
        spent += clock() - start

    with mock.patch.object(CGES, "after_step", timed):
        total = seconds(fit, X, y, n_epochs, clock)
    return spent / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--data", type=int, help="so many of the data sets")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = arguments.device
    one_thread = device == "cpu" and arguments.threads == 1
    clock = time.process_time if one_thread else time.perf_counter
    peers: dict[str, Fit] = {
        "bare torch loop": bare_torch(device),
        "stock skorch": stock_skorch(device),
        "scikit-learn": scikit_learn,
        "plain net": ours(StructuredClassifier, device),
        "CGES": ours(CGESClassifier, device, alpha=1.0),
        "CGES, torch": without_loops(ours(CGESClassifier, device, alpha=1.0)),
    }
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name, (X, y, n_epochs) in list(data_sets().items())[: arguments.data]:
        times: dict[str, list[float]] = {peer: [] for peer in peers}
        for fit in peers.values():
            fit(X[:1000], y[:1000], 1)  # warm up
        for _ in range(arguments.repeats):
            for peer, fit in peers.items():  # in turns: noise falls on all alike
                once = seconds(fit, X, y, 1, clock)
                many = seconds(fit, X, y, n_epochs + 1, clock)
                times[peer].append((many - once) / n_epochs)
        medians = {peer: statistics.median(values) for peer, values in times.items()}
        print(f"\n{name}, {device}, {arguments.threads} thread(s)")
        print(f"{'':>16}   ms per epoch   epochs/s   of the bare loop")
        results[name] = {}
        for peer, value in medians.items():
            ratios = [
                t / b
                for t, b in zip(times[peer], times["bare torch loop"], strict=True)
            ]
            ratio = statistics.median(ratios)
            print(
                f"{peer:>16}   {1e3 * value:12.2f}   {1 / value:8.1f}   {ratio:16.2f}"
            )
            results[name][peer] = {"seconds_per_epoch": value, "of_bare_loop": ratio}
        for peer in ("CGES", "CGES, torch"):
            shares = [
                prox_share(peers[peer], X, y, n_epochs, clock)
                for _ in range(arguments.repeats)
            ]
            share = statistics.median(shares)
            print(f"{peer}: the proximal steps take {100 * share:.1f} % of the fit")
            results[name][peer]["prox_share"] = share
    if arguments.json:
        about = {
            "torch": torch.__version__,
            "machine": platform.machine(),
            "device": device,
            "threads": arguments.threads,
        }
        record = {"about": about, "results": results}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
