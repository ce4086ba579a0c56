"""Measure how far `alpha_max` lies above the strength at which training empties a net.

For each data set, network and penalty: `alpha_max`, the weakest strength of a grid
(steps of 10 ** 0.25) that still leaves no weight, and the next, which does not; trained
in full batches from fresh weights.

Run ``python -m benchmarks.reproduce.cges_alpha_max`` (a few minutes).
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits, load_wine
from sklearn.preprocessing import StandardScaler

from sklearn_structreg import CGESClassifier
from sklearn_structreg.cges import alpha_max

NETS = {"linear": (), "one hidden layer": (100,), "two hidden layers": (100, 100)}


def main() -> None:
    torch.set_num_threads(1)
    print(
        f"{'data':>8}{'network':>19}{'penalty':>9}  alpha_max  emptied at   not emptied"
        "   ratio"
    )
    for load in (load_wine, load_digits):
        X, y = load(return_X_y=True)
        X = StandardScaler().fit_transform(X)
        for net, hidden in NETS.items():
            for penalty in ("l1", "group", "cges"):
                model = CGESClassifier(
                    hidden_layer_sizes=hidden,
                    penalty=penalty,
                    batch_size=None,
                    learning_rate=0.1,
                    max_epochs=200,
                    random_state=0,
                )
                largest = alpha_max(model, X, y)
                for factor in 10 ** np.arange(0.05, -4, -0.25):
                    model.set_params(alpha=factor * largest).fit(X, y)
                    if model.sparsity_ < 1:
                        break
                emptied = 10**0.25 * factor * largest
                name = load.__name__.removeprefix("load_")
                print(
                    f"{name:>8}{net:>19}{penalty:>9}{largest:11.4g}{emptied:12.4g}"
                    f"{factor * largest:14.4g}{largest / emptied:8.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
