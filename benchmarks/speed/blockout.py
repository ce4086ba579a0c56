"""How long a training step of a Blockout layer takes, beside linear + dropout.

A step is forward, backward (the gradient of the inputs included) and SGD, for one
layer of as many outputs as inputs. The peers take turns in one process; a figure is
the median over the repeats, a ratio the median of the ratios of each turn. Memory is
what a step holds at most, in matrices as large as the weight, beyond what was there.

Run ``python -m benchmarks.speed.blockout``; ``--device cuda`` for a GPU, where the
plain path is measured with and without ``torch.compile``; ``--json FILE`` to keep the
figures, and to go on where a run broke off.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from sklearn_structreg.blockout import BlockoutLinear, NodeSet, _compiled

SIZES, BATCHES = (512, 2048, 4096), (128, 1024)
DROPOUT = "linear + dropout"
Step = Callable[[], None]


def stepper(layer: nn.Module, batch: int, size: int, device: str) -> Step:
    """Return a training step of a layer on a random batch."""
    layer.to(device).train()
    x = torch.randn(batch, size, device=device, requires_grad=True)
    slope = torch.randn(batch, size, device=device) / size
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        x.grad = None
        layer(x).backward(slope)
        optimizer.step()

    return step


def blockout(size: int, n_clusters: int, **settings: object) -> nn.Module:
    """Make a Blockout layer with node sets of its own."""
    inputs = NodeSet(size, n_clusters, **settings)
    return BlockoutLinear(inputs, NodeSet(size, n_clusters, **settings))


def without_loops(step: Step) -> Step:
    """Keep a step from the compiled loops."""

    def plain() -> None:
        with mock.patch.object(_compiled, "ENABLED", False):
            step()

    return plain


def peers(size: int, batch: int, n_clusters: int, device: str) -> dict[str, Step]:
    """Return a step of every peer."""

    def of(layer: nn.Module) -> Step:
        return stepper(layer, batch, size, device)

    steps = {
        DROPOUT: of(nn.Sequential(nn.Dropout(0.5), nn.Linear(size, size))),
        "linear": of(nn.Linear(size, size)),
        "blockout": of(blockout(size, n_clusters)),
        "blockout, fixed": of(blockout(size, n_clusters, learn_probabilities=False)),
        "blockout, soft": of(blockout(size, n_clusters, assignment="soft")),
        "blockout, plain autograd": without_loops(of(blockout(size, n_clusters))),
    }
    if device != "cpu":
        layer = blockout(size, n_clusters)
        layer.compile()
        steps["blockout, torch.compile"] = of(layer)
    return steps


def seconds(step: Step, n_steps: int, device: str) -> float:
    """Time steps, the device's work included."""
    start = time.perf_counter()
    for _ in range(n_steps):
        step()
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / n_steps


def peak_matrices(step: Step, size: int, device: str) -> float:
    """Return how much a step allocates at most, in weight-sized matrices.

    Beyond what is there before the step: parameters and the last step's gradients.
    """
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / (4 * size**2)
    for _ in range(2):  # what the first one leaves is known to the second
        with torch.profiler.profile(profile_memory=True) as profile:
            step()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / (4 * size**2)


def measure(
    size: int, batch: int, arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Time the peers in turns on layers of one size, and print the figures."""
    device = arguments.device
    steps = peers(size, batch, arguments.clusters, device)
    n_steps = max(1, round(4e9 / (6 * batch * size**2)))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(2):  # warm up
            step()
    for _ in range(arguments.repeats):
        for name, step in steps.items():
            times[name].append(seconds(step, n_steps, device))
    print(f"\n{size} x {size}, batch {batch}, {device}, {arguments.threads} thread(s)")
    print(f"{'':>24}   ms per step   of {DROPOUT}   matrices held")
    figures = {}
    for peer, step in steps.items():
        turns = zip(times[peer], times[DROPOUT], strict=True)
        figures[peer] = {
            "seconds_per_step": statistics.median(times[peer]),
            "of_dropout": statistics.median(own / other for own, other in turns),
            "matrices_held": peak_matrices(step, size, device),
            "repeats": arguments.repeats,
        }
        took, ratio, held, _ = figures[peer].values()
        print(f"{peer:>24}   {1e3 * took:11.2f}   {ratio:19.2f}   {held:13.2f}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--clusters", type=int, default=6)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--json", type=Path, help="figures in it are not taken again")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    about = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": arguments.device,
        "threads": arguments.threads,
        "clusters": arguments.clusters,
    }
    record = {"about": about, "results": {}}
    if arguments.json and arguments.json.exists():
        record["results"] = json.loads(arguments.json.read_text())["results"]
    for batch in arguments.batches:
        for size in arguments.sizes:
            name = f"{size} x {size}, batch {batch}"
            if name in record["results"]:
                continue
            record["results"][name] = measure(size, batch, arguments)
            if arguments.json:
                arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
