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
import copy
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.blockout import blockout_layers, threshold_memberships

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--factor", type=float, default=400, help="of the logits' rate")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    accuracies: dict[tuple[str, float, bool], list[float]] = {}
    before, all_shares = [], {threshold: [] for threshold in THRESHOLDS}
    for seed in range(arguments.seeds):
        split = train_test_split(X, y, test_size=0.4, random_state=seed)
        scaler = StandardScaler().fit(split[0])
        X_train, X_test = scaler.transform(split[0]), scaler.transform(split[1])
        y_train, y_test = split[2:]
        model = BlockoutClassifier(
            hidden_layer_sizes=(256, 256),
            logit_rate_factor=arguments.factor,
            max_epochs=60,
            random_state=seed,
        ).fit(X_train, y_train)
        before.append(model.score(X_test, y_test))
        trial = copy.copy(model)
        for threshold in THRESHOLDS:
            for rule in RULES:
                for rescale in (False, True):
                    net = model.fold()
                    weights, shares = hardened_weights(model, threshold, rule, rescale)
                    linears = [part for part in net if hasattr(part, "weight")]
                    for linear, weight in zip(linears, weights, strict=True):
                        linear.weight.data.copy_(weight)
                    logits = trial._logits(X_test, net)
                    hit = float(np.mean(model.classes_[logits.argmax(1)] == y_test))
                    accuracies.setdefault((rule, threshold, rescale), []).append(hit)
            all_shares[threshold].append(shares)
    print(f"folded net: {np.mean(before):.4f}, means over {arguments.seeds} seeds")
    print("threshold  weights in blocks   " + "  ".join(f"{r:>16}" for r in RULES))
    table = []
    for threshold in THRESHOLDS:
        row = {"threshold": threshold}
        shares = np.mean(all_shares[threshold], axis=0)
        row["shares"] = shares.round(4).tolist()
        cells = []
        for rule in RULES:
            plain, scaled = (
                float(np.mean(accuracies[rule, threshold, r])) for r in (False, True)
            )
            row |= {rule: plain, f"{rule}, rescaled": scaled}
            cells.append(f"{plain:.4f} -> {scaled:.4f}")
        table.append(row)
        text = " ".join(f"{share:.2f}" for share in shares)
        print(f"{threshold:9g}  {text:>17}   {'  '.join(cells)}")
    if arguments.json:
        result = {"folded": float(np.mean(before)), "rows": table}
        arguments.json.write_text(json.dumps(result | vars(arguments), default=str))


if __name__ == "__main__":
    main()
