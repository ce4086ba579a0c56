"""The DropCluster layer beside DropBlock as users have it, in one process.

    pip install dropblock  # for this comparison only
    OMP_NUM_THREADS=1 python -m benchmarks.speed.dropcluster

One thread. Forward and backward of each layer alone, in training, float32, on maps of
128 samples and 64 channels; the contenders take turns, medians of several rounds, in
time of the processor, which leaves out other work on the machine. The peer is
`DropBlock2D` of the package dropblock, with the paper's 5 x 5 blocks and one mask for
all channels; "ours, DropBlock" is the one here, with a mask for each channel as its
authors recommend, and with one for all.

Re-clustering is a whole `update_clusters` of a ResNet-50 whose stem gives 64 channels
of 16 x 16, from one mini-batch of 128. Its share of an epoch is that of the paper's
setting, CIFAR-100: 391 training steps of that network, of which one is timed per round
(forward, backward and optimizer step), and one update in 50 epochs; the share of an
epoch that begins with an update is given too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn

from benchmarks.networks import resnet50
from sklearn_structreg.baselines import DropBlock2d
from sklearn_structreg.core import insert_layer
from sklearn_structreg.dropcluster import DropCluster2d
from sklearn_structreg.dropcluster.update import update_clusters

RESULTS = Path(__file__).parents[1] / "results"
SHAPES = {"16x16": (128, 64, 16, 16), "32x32": (128, 64, 32, 32)}
STEPS_PER_EPOCH = 391
UPDATE_EVERY = 50


def seconds_of(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def contenders(maps: torch.Tensor) -> dict[str, nn.Module]:
    """Return the layers by name, ready to train on maps of this size."""
    cluster = DropCluster2d(15, drop_rate=0.1)
    cluster.update_clusters(maps)
    single = DropCluster2d(15, drop_rate=0.1, mask_per="sample")
    single.set_clusters(cluster.cluster_labels)
    layers: dict[str, nn.Module] = {
        "ours, DropCluster": cluster,
        "ours, DropCluster, a mask per sample": single,
        "ours, DropBlock, a mask per channel": DropBlock2d(5, 0.1),
        "ours, DropBlock, one mask": DropBlock2d(5, 0.1, per_channel=False),
        "torch, Dropout": nn.Dropout(0.1),
        "torch, SpatialDropout": nn.Dropout2d(0.1),
    }
    try:
        from dropblock import DropBlock2D
    except ImportError:
        print("the package dropblock is not installed: leaving it out")
    else:
        layers["dropblock, DropBlock2D"] = DropBlock2D(0.1, 5)
    return layers


def time_layers(shape: tuple[int, ...], rounds: int) -> dict[str, dict[str, float]]:
    """Time forward and backward of every layer, taking turns."""
    torch.manual_seed(0)
    maps, upstream = torch.randn(shape), torch.randn(shape)
    layers = contenders(maps)
    spent: dict[str, dict[str, list[float]]] = {
        name: {"forward": [], "backward": []} for name in layers
    }
    for turn in range(rounds + 2):
        for name, layer in layers.items():
            x = maps.clone().requires_grad_()
            start = time.process_time()
            out = layer(x)
            middle = time.process_time()
            out.backward(upstream)
            end = time.process_time()
            if turn >= 2:  # the first ones warm up
                spent[name]["forward"].append(middle - start)
                spent[name]["backward"].append(end - middle)
    return {
        name: {
            "forward": median(times["forward"]),
            "backward": median(times["backward"]),
            "both": median(map(sum, zip(*times.values(), strict=True))),
        }
        for name, times in spent.items()
    }


def time_update(rounds: int) -> dict[str, float]:
    """Time a training step of ResNet-50 and an update of its clusters, in turns."""
    torch.manual_seed(0)
    net = resnet50(100).train()
    insert_layer(net, "conv1", DropCluster2d(15, drop_rate=0.1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    X, y = torch.randn(128, 3, 32, 32), torch.randint(100, (128,))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X), y).backward()
        optimizer.step()

    update_clusters(net, X)
    steps, updates = [], []
    for _ in range(rounds):
        updates.append(seconds_of(lambda: update_clusters(net, X)))
        steps.append(seconds_of(step))
    epoch = STEPS_PER_EPOCH * median(steps)
    return {
        "seconds_update": median(updates),
        "seconds_step": median(steps),
        "seconds_epoch_of_391_steps": epoch,
        "share_of_an_epoch_that_updates": median(updates) / epoch,
        "share_of_training": median(updates) / (UPDATE_EVERY * epoch),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--steps", type=int, default=3, help="training steps to time")
    default = RESULTS / "dropcluster_speed.json"
    parser.add_argument("--output", type=Path, default=default)
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        warnings.warn("set OMP_NUM_THREADS=1 to give everyone one thread", stacklevel=1)
    torch.set_num_threads(1)
    results: dict[str, object] = {
        "machine": platform.machine(),
        "threads": 1,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rounds": arguments.rounds,
    }
    layers = {}
    for name, shape in SHAPES.items():
        layers[name] = time_layers(shape, arguments.rounds)
        ours = layers[name]["ours, DropCluster"]["both"]
        print(f"\n{' x '.join(map(str, shape))}")
        for contender, spent in layers[name].items():
            print(
                f"  {contender:36s} forward {1e3 * spent['forward']:6.2f} ms  backward "
                f"{1e3 * spent['backward']:6.2f} ms  both {1e3 * spent['both']:6.2f} ms"
                f"  {spent['both'] / ours:5.2f} x DropCluster"
            )
    results["seconds"] = layers
    results["update"] = update = time_update(arguments.steps)
    print(
        f"\nResNet-50: update {1e3 * update['seconds_update']:.1f} ms, training step "
        f"{update['seconds_step']:.2f} s; the update is "
        f"{100 * update['share_of_an_epoch_that_updates']:.4f} % of an epoch of "
        f"{STEPS_PER_EPOCH} steps"
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
