"""Measure which weights a hardened Blockout net should have.

Cluster probabilities are thresholded to memberships C. A weight that joins nodes with
no common cluster becomes zero; the others may be

- "folded": as inference has them, W~ times the mean mask P P^T / k;
- "counted": W~ times C C^T / k, the paper's Eq. 4 with the thresholded memberships;
- "sure": W~ times the part of the mean mask that the kept memberships make,
  (P * C)(P * C)^T / k;

each with and without a factor per layer that gives back the norm of the folded weights.
Digits, an MLP with two hidden layers, means over seeds: accuracy on held-out samples,
and the share of weights inside blocks.

Run ``python -m benchmarks.reproduce.blockout_hardening`` (about a minute).
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.blockout.conversion import blockout_layers
from sklearn_structreg.blockout.memberships import threshold_memberships

THRESHOLDS = (0.3, 0.5, 0.6, 0.7, 0.8)
RULES = ("folded", "counted", "sure")


def hardened_weights(
    model: BlockoutClassifier, threshold: float, rule: str, rescale: bool
) -> tuple[list[Tensor], list[float]]:
    """Return the weights of every layer, and the shares that are inside blocks."""
    P = [torch.from_numpy(p) for p in model.cluster_probabilities_]
    C = [torch.from_numpy(threshold_memberships(p, threshold)).float() for p in P[:-1]]
    last = threshold_memberships(P[-1], threshold, at_least_one=True)
    C.append(torch.from_numpy(last).float())
    weights, shares = [], []
    layers = blockout_layers(model.module_)
    pairs = zip(layers, pairwise(P), pairwise(C), strict=True)
    for layer, (p_in, p_out), (c_in, c_out) in pairs:
        within = (c_out @ c_in.T > 0).float()
        folded = layer.mean_weight().detach()
        free = layer.weight.detach() * layer.scale / p_in.shape[1]
        weight = {
            "folded": folded * within,
            "counted": free * (c_out @ c_in.T),
            "sure": free * ((p_out * c_out) @ (p_in * c_in).T),
        }[rule]
        if rescale and weight.any():
            weight = weight * (folded.norm() / weight.norm())
        weights.append(weight)
        shares.append(float(within.mean()))
    return weights, shares


def measure(X: np.ndarray, y: np.ndarray, factor: float, seeds: int) -> dict[str, Any]:
    """Train, harden by every rule and threshold, return means over the seeds."""
    accuracies: dict[tuple[str, float, bool], list[float]] = {}
    before, all_shares = [], {threshold: [] for threshold in THRESHOLDS}
    for seed in range(seeds):
        split = train_test_split(X, y, test_size=0.4, random_state=seed)
        scaler = StandardScaler().fit(split[0])
        X_train, X_test = scaler.transform(split[0]), scaler.transform(split[1])
        y_train, y_test = split[2:]
        model = BlockoutClassifier(
            hidden_layer_sizes=(256, 256),
            logit_rate_factor=factor,
            max_epochs=60,
            random_state=seed,
        ).fit(X_train, y_train)
        before.append(model.score(X_test, y_test))
        x = torch.from_numpy(X_test).float()
        for threshold, rule, rescale in product(THRESHOLDS, RULES, (False, True)):
            net = model.fold()
            weights, shares = hardened_weights(model, threshold, rule, rescale)
            with torch.no_grad():
                for linear, weight in zip(net[::2], weights, strict=True):
                    linear.weight.copy_(weight)
                hit = net(x).argmax(1).numpy() == y_test
            accuracies.setdefault((rule, threshold, rescale), []).append(hit.mean())
            if (rule, rescale) == (RULES[0], False):
                all_shares[threshold].append(shares)
    rows = []
    for threshold in THRESHOLDS:
        shares = np.mean(all_shares[threshold], axis=0)
        row = {"threshold": threshold, "shares": shares.round(4).tolist()}
        for rule in RULES:
            for rescale in (False, True):
                mean = float(np.mean(accuracies[rule, threshold, rescale]))
                row[rule + ", rescaled" * rescale] = round(mean, 4)
        rows.append(row)
    return {"factor": factor, "folded": float(np.mean(before)), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--factors",
        type=float,
        nargs="+",
        default=[20, 100, 400],
        help="of the logits' learning rate",
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    results = []
    print(f"means over {arguments.seeds} seeds: accuracy -> with the norm given back")
    for factor in arguments.factors:
        found = measure(X, y, factor, arguments.seeds)
        results.append(found)
        print(f"\nlogit_rate_factor={factor:g}: {found['folded']:.4f} before hardening")
        print("threshold  weights in blocks   " + "  ".join(f"{r:>16}" for r in RULES))
        for row in found["rows"]:
            cells = [f"{row[r]:.4f} -> {row[r + ', rescaled']:.4f}" for r in RULES]
            text = " ".join(f"{share:.2f}" for share in row["shares"])
            print(f"{row['threshold']:9g}  {text:>17}   {'  '.join(cells)}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
