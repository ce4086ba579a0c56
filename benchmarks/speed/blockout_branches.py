"""How fast a hardened Blockout net predicts as parallel branches.

The peer is the same function as plain Linear layers, zeros included, in the same
process. Both take turns; a figure is the median over the repeats. Memberships are made:
an MLP whose nodes are each in one of k clusters, or in each of six with some
probability, or the ones that digits give. Latency is for one batch, one thread.

Run ``python -m benchmarks.speed.blockout_branches``; ``--json FILE`` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.blockout.branches import to_branches
from sklearn_structreg.blockout.hardening import mask_blocks
from sklearn_structreg.core import count_multiply_adds, make_mlp

BATCHES = (1, 128, 1024)


def one_each(sizes: list[int], k: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Put every node into one cluster."""
    return [np.eye(k, dtype=bool)[rng.integers(k, size=size)] for size in sizes]


def several(sizes: list[int], p: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Put every node into each of six clusters with probability p."""
    return [rng.random((size, 6)) < p for size in sizes]


def from_digits(nodes: int, threshold: float) -> list[np.ndarray]:
    """Learn the memberships of two hidden layers on digits."""
    X, y = load_digits(return_X_y=True)
    model = BlockoutClassifier(
        hidden_layer_sizes=(nodes, nodes),
        gradient="paper",
        init_probability=0.5,
        block_penalty=0,
        logit_rate_factor=400,
        max_epochs=60,
        random_state=0,
    ).fit(StandardScaler().fit_transform(X), y)
    return list(model.harden(threshold=threshold).memberships)


def latency(
    nets: list[nn.Module], x: torch.Tensor, repeats: int, seconds: float = 0.02
) -> list[float]:
    """Return the median seconds per call of each net, taking turns."""
    times: list[list[float]] = [[] for _ in nets]
    with torch.inference_mode():
        start = time.perf_counter()
        nets[0](x)
        calls = max(1, int(seconds / (time.perf_counter() - start)))
        for _ in range(repeats + 1):
            for net, found in zip(nets, times, strict=True):
                start = time.perf_counter()
                for _ in range(calls):
                    net(x)
                found.append((time.perf_counter() - start) / calls)
    return [statistics.median(found[1:]) for found in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    print("latency of branches, and of merged branches, over that of the dense layers")
    print("             memberships  nodes  branches  multiply-adds  batch  dense (ms)")
    for nodes in arguments.nodes:
        sizes = [256, nodes, nodes, 100]
        cases = {
            "one of 2 clusters": one_each(sizes, 2, rng),
            "one of 6 clusters": one_each(sizes, 6, rng),
            "each of 6, p = 0.15": several(sizes, 0.15, rng),
            "each of 6, p = 0.3": several(sizes, 0.3, rng),
        }
        if nodes == arguments.nodes[0]:
            for threshold in (0.5, 0.8):
                cases[f"digits from {threshold}"] = from_digits(nodes, threshold)
        for name, memberships in cases.items():
            widths = [len(members) for members in memberships]
            net = make_mlp(widths[0], widths[-1], widths[1:-1]).eval()
            names = ["0", "2", "4"]
            dense = mask_blocks(net, names, memberships).to(arguments.device)
            branches = to_branches(dense, names, memberships)
            merged = to_branches(dense, names, memberships, merge=True)
            n_branches = [len(layer.weights) for layer in branches[::2]]
            one = torch.zeros(1, widths[0], device=arguments.device)
            share = count_multiply_adds(branches, one) / count_multiply_adds(dense, one)
            for batch in BATCHES:
                x = torch.randn(batch, widths[0], device=arguments.device)
                nets = [dense, branches, merged]
                plain, *branched = latency(nets, x, arguments.repeats)
                rows.append(
                    {
                        "memberships": name,
                        "nodes": nodes,
                        "branches": n_branches,
                        "multiply_adds": share,
                        "batch": batch,
                        "dense_ms": 1e3 * plain,
                        "ratio": branched[0] / plain,
                        "ratio_merged": branched[1] / plain,
                    }
                )
                print(
                    f"{name:>24}  {nodes:5d}  {'/'.join(map(str, n_branches)):>8}  "
                    f"{share:13.3f}  {batch:5d}  {1e3 * plain:10.3f}  "
                    f"{branched[0] / plain:16.2f}  {branched[1] / plain:6.2f}",
                    flush=True,
                )
    if arguments.json:
        machine = {"torch": torch.__version__, "processor": platform.machine()}
        arguments.json.write_text(json.dumps(machine | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
