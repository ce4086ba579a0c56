"""Measure how near `alpha_max` is to the strength that empties a network in a fit.

For each data set, network, optimizer and penalty: `alpha_max`, and the weakest strength
of a grid (steps of 10 ** 0.25) at which a fit with the defaults leaves a layer without
weights.

Run ``python -m benchmarks.reproduce.cges_alpha_max`` (some minutes).
"""

from __future__ import annotations

import warnings
from itertools import product
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklearn_structreg import CGESClassifier
from sklearn_structreg.cges import alpha_max


def convnet(input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Build a network with batch normalization."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(144, n_outputs)),
    )


NETS: dict[str, dict[str, Any]] = {
    "linear": {"hidden_layer_sizes": ()},
    "(100,)": {},
    "(100, 100)": {"hidden_layer_sizes": (100, 100)},
    "batch-norm conv": {"module": convnet, "image_shape": (1, 8, 8)},
}
GRID = 10 ** np.arange(-1.5, 2.75, 0.25)


def weakest_that_empties(model: CGESClassifier, X: np.ndarray, y: np.ndarray) -> float:
    """Return the first strength, from above, below which a network is left."""
    emptied = np.inf
    for alpha in GRID[::-1]:
        model.set_params(alpha=alpha).fit(X, y)
        if 1.0 not in model.history_[-1, "layer_sparsity"].values():
            break
        emptied = alpha
    return float(emptied)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)  # that nothing is left
    print("  data          network  optimizer  penalty  alpha_max  emptied at   ratio")
    data = {
        "wine": load_wine(return_X_y=True),
        "digits": tuple(each[:600] for each in load_digits(return_X_y=True)),
    }
    for (name, (X, y)), net, optimizer, penalty in product(
        data.items(), NETS, ("sgd", "adam"), ("l1", "group", "cges")
    ):
        if name == "wine" and "conv" in net:
            continue
        model = CGESClassifier(
            penalty=penalty,
            optimizer=optimizer,
            max_epochs=40,
            random_state=0,
            **NETS[net],
        )
        largest, emptied = alpha_max(model, X, y), weakest_that_empties(model, X, y)
        print(
            f"{name:>6}{net:>17}{optimizer:>11}{penalty:>9}{largest:11.3g}"
            f"{emptied:12.3g}{largest / emptied:8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
