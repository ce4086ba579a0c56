"""Measure what hardening costs a Blockout net, and which weights it should have.

Cluster probabilities are thresholded to memberships C. A weight that joins nodes with
no common cluster becomes zero; the others may be

- "folded": as inference has them, W~ times the mean mask P P^T / k;
- "counted": W~ times C C^T / k, the paper's Eq. 4 with the thresholded memberships;
- "sure": W~ times the part of the mean mask that the kept memberships make,
  (P * C)(P * C)^T / k.

Digits, an MLP with two hidden layers of 256, means over seeds: accuracy on held-out
samples, the multiply-adds of the blocks by those of the dense chain, and the time of
the merged branches by that of the dense net for a batch of 100 rows on one thread.

Run ``python -m benchmarks.reproduce.blockout_hardening`` (three minutes); it writes its
figures and docs/blockout_hardening.inc.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.blockout.conversion import blockout_layers
from sklearn_structreg.blockout.memberships import threshold_memberships
from sklearn_structreg.core import StructuredClassifier

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "blockout_hardening.json"
PAGE = ROOT / "docs" / "blockout_hardening.inc"
THRESHOLDS = (0.3, 0.4, 0.5, 0.7)
RULES = ("folded", "counted", "sure")
COMMON = {"hidden_layer_sizes": (256, 256), "max_epochs": 60}
START = {"init_probability": 0.5, "block_penalty": 0}
PAPER = START | {"gradient": "paper", "logit_rate_factor": 20}
HONEST = START | {"gradient": "straight_through", "logit_rate_factor": 100}
SETTINGS: dict[str, dict[str, Any]] = {
    "paper's gradient": PAPER,
    "straight through": HONEST,
    "block_penalty=0.1": HONEST | {"block_penalty": 0.1},
    "block_penalty=0.3": HONEST | {"block_penalty": 0.3},
    "block_penalty=1": HONEST | {"block_penalty": 1},
}


def hardened_weights(
    model: BlockoutClassifier, threshold: float, rule: str
) -> list[Tensor]:
    """Return the weights of every layer."""
    P = [torch.from_numpy(p) for p in model.cluster_probabilities_]
    C = [torch.from_numpy(threshold_memberships(p, threshold)).float() for p in P[:-1]]
    last = threshold_memberships(P[-1], threshold, at_least_one=True)
    C.append(torch.from_numpy(last).float())
    weights = []
    layers = blockout_layers(model.module_)
    pairs = zip(layers, pairwise(P), pairwise(C), strict=True)
    for layer, (p_in, p_out), (c_in, c_out) in pairs:
        free = layer.weight.detach() * layer.scale / p_in.shape[1]
        weights.append(
            {
                "folded": layer.mean_weight().detach() * (c_out @ c_in.T > 0),
                "counted": free * (c_out @ c_in.T),
                "sure": free * ((p_out * c_out) @ (p_in * c_in).T),
            }[rule]
        )
    return weights


def seconds(net: nn.Module, x: Tensor) -> float:
    """Time one forward pass."""
    start = time.perf_counter()
    with torch.inference_mode():
        net(x)
    return time.perf_counter() - start


def measure(split: list[Any], settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train once and harden by every rule and threshold."""
    X_train, X_test, y_train, y_test = split
    model = BlockoutClassifier(**COMMON, **settings, random_state=seed)
    model.fit(X_train, y_train)
    x = torch.from_numpy(X_test).float()
    rows = {}
    for threshold in THRESHOLDS:
        hardened = model.harden(X_test, y_test, threshold)
        dense, sparse = hardened.multiply_adds
        merged = hardened.merged_branches().eval()
        nets = hardened.module.eval(), merged
        ratios = []
        for _ in range(30):
            one, two = (seconds(net, x[:100]) for net in nets)
            ratios.append(two / one)
        row = {"cost": sparse / dense, "time": statistics.median(ratios)}
        for rule in RULES:
            net = model.fold()
            linear = [part for part in net.modules() if isinstance(part, nn.Linear)]
            weights = hardened_weights(model, threshold, rule)
            with torch.no_grad():
                for layer, weight in zip(linear, weights, strict=True):
                    layer.weight.copy_(weight)
                row[rule] = float((net(x).argmax(1).numpy() == y_test).mean())
        rows[str(threshold)] = row
    return {"soft": model.score(X_test, y_test), "rows": rows}


def report(results: dict[str, Any]) -> str:
    """Return the table of means."""
    plain = np.mean(results["plain net"])
    lines = [f"means over {len(results['plain net'])} seeds; plain net: {plain:.4f}"]
    for name in SETTINGS:
        found = results[name]
        soft = np.mean([run["soft"] for run in found])
        lines += [
            "",
            f"{name}: {soft:.4f} before hardening",
            "threshold  multiply-adds  time of merged  "
            + "  ".join(f"{rule:>8}" for rule in RULES),
        ]
        for threshold in THRESHOLDS:
            rows = [run["rows"][str(threshold)] for run in found]
            mean = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
            cells = "  ".join(f"{mean[rule]:8.4f}" for rule in RULES)
            lines.append(
                f"{threshold:9g}  {mean['cost']:13.2f}  {mean['time']:14.2f}  {cells}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    seeds = range(arguments.seeds)
    splits = [train_test_split(X, y, test_size=0.4, random_state=s) for s in seeds]
    results: dict[str, Any] = {"plain net": []}
    for seed, (X_train, X_test, y_train, y_test) in enumerate(splits):
        plain = StructuredClassifier(**COMMON, random_state=seed).fit(X_train, y_train)
        results["plain net"].append(plain.score(X_test, y_test))
    for name, settings in SETTINGS.items():
        found = [measure(split, settings, s) for s, split in enumerate(splits)]
        results[name] = found
        print(f"{name}: done", flush=True)
    table = report(results)
    print(table)
    arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    page = "\n".join(f"    {text}".rstrip() for text in table.splitlines())
    PAGE.write_text(f".. code-block:: text\n\n{page}\n")


if __name__ == "__main__":
    main()
