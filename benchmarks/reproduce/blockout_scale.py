"""Measure where Blockout's initial scale belongs, and how fast the logits should learn.

The scale is a factor of the mask ("mask", what `convert` does), is multiplied into
the first weights ("weights"), or is left out as in the paper ("none"). Digits, an MLP,
means over seeds: accuracy on held-out samples, training loss of the last epoch, and how
far the classes' probabilities are from one half on average.

Run ``python -m benchmarks.reproduce.blockout_scale`` (about a minute).
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.blockout import convert
from sklearn_structreg.blockout.conversion import blockout_layers
from sklearn_structreg.core import make_mlp

SETTINGS = [
    *(
        (scale, learning_rate, 20.0)
        for scale in ("mask", "weights", "none")
        for learning_rate in (0.02, 0.05, 0.5)
    ),
    *(("mask", 0.05, factor) for factor in (0.0, 1.0, 5.0, 100.0)),
]


def network(scale: str, seed: int) -> torch.nn.Module:
    """Make a Blockout net with its scale in one place or another."""
    torch.manual_seed(seed)
    net = convert(make_mlp(64, 10, (200,)), torch.zeros(1, 64))
    for layer in blockout_layers(net):
        if scale == "weights":
            layer.weight.data *= layer.scale
        if scale != "mask":
            layer.scale = 1.0
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    print("  scale  learning rate  logit factor  accuracy  train loss  |P - 1/2|")
    for scale, learning_rate, factor in SETTINGS:
        rows = []
        for seed in range(arguments.seeds):
            X_train, X_test, y_train, y_test = train_test_split(
                X / 16, y, test_size=0.4, random_state=seed
            )
            model = BlockoutClassifier(
                network(scale, seed),
                learning_rate=learning_rate,
                gradient="paper",
                init_probability=0.5,
                block_penalty=0,
                logit_rate_factor=factor,
                max_epochs=arguments.epochs,
                random_state=seed,
            ).fit(X_train, y_train)
            rows.append(
                [
                    model.score(X_test, y_test),
                    model.history_[-1, "train_loss"],
                    np.abs(model.cluster_probabilities_[-1] - 0.5).mean(),
                ]
            )
        accuracy, loss, distance = np.mean(rows, axis=0)
        print(
            f"{scale:>7}  {learning_rate:13g}  {factor:12g}  {accuracy:8.4f}  "
            f"{loss:10.3f}  {distance:9.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
