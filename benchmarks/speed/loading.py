"""How fast and in how much memory data beyond memory is read, beside bare torch.

- A `Dataset` of PNG pictures, decoded by two workers: the time of epochs by that of a
  bare `DataLoader` loop with the same workers, network and batches.
- A memory map: the memory of the process above that before the fit, and with it.
- Augmentation: random crops and flips of a mini-batch by `Training(augment=...)`, by
  the time of the same ones for each image inside of a `Dataset`, as torchvision's
  transforms are used.

Ratios are of medians over repeats, taking turns in one process. Run
``python -m benchmarks.speed.loading`` (some minutes; ``--gigabytes 4`` for a memory map
of that size).
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from sklearn_structreg.core import StructuredClassifier, Training, make_convnet

RESULTS = Path(__file__).parents[1] / "results" / "loading.json"
N_PICTURES, SIZE, BATCH_SIZE, N_WORKERS = 4_000, 64, 128, 2
FEW, MANY = 1, 4  # epochs; their difference is timed
SHIFT = 4


class Pictures(Dataset[tuple[Tensor, int]]):
    """PNG files in memory, decoded item by item."""

    def __init__(self, n_pictures: int) -> None:
        rng = np.random.default_rng(0)
        self.targets = rng.integers(10, size=n_pictures)
        smooth = rng.integers(0, 256, (n_pictures, SIZE // 8, SIZE // 8, 3), np.uint8)
        self.files = [encoded(picture) for picture in smooth]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        pixels = np.array(Image.open(io.BytesIO(self.files[row])))
        picture = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        return picture, int(self.targets[row])


class Augmented(Dataset[tuple[Tensor, int]]):
    """Images in memory, each cropped and flipped by itself."""

    def __init__(self, images: Tensor, targets: np.ndarray) -> None:
        self.images, self.targets = images, targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return crop_and_flip(self.images[row : row + 1])[0], int(self.targets[row])


def encoded(picture: np.ndarray) -> bytes:
    """Enlarge a picture, and encode it."""
    file = io.BytesIO()
    Image.fromarray(picture).resize((SIZE, SIZE)).save(file, "png")
    return file.getvalue()


def crop_and_flip(images: Tensor) -> Tensor:
    """Shift images at random by a few pixels, with zeros around; mirror every other."""
    n, _, height, width = images.shape
    padded = functional.pad(images, (SHIFT,) * 4)
    top, left = torch.randint(0, 2 * SHIFT + 1, (2, n))
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    mirrored = torch.rand(n) < 0.5
    columns[mirrored] = columns[mirrored].flip(1)
    first = torch.arange(n)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[first, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def small_net() -> nn.Module:
    """Build a network that costs little beside the decoding."""
    return nn.Sequential(
        nn.AvgPool2d(4), make_convnet((3, SIZE // 4, SIZE // 4), 10, (32,), (8, 16))
    )


def estimator(n_epochs: int, **training: object) -> StructuredClassifier:
    return StructuredClassifier(
        small_net(),
        max_epochs=n_epochs,
        batch_size=BATCH_SIZE,
        device="cpu",
        training=Training(**training),
        random_state=0,
    )


def bare_loop(
    dataset: Dataset[tuple[Tensor, int]], n_epochs: int, n_workers: int
) -> None:
    """Train as a short script would."""
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    loader = DataLoader(
        dataset,
        BATCH_SIZE,
        shuffle=True,
        num_workers=n_workers,
        persistent_workers=n_workers > 0,
    )
    for _ in range(n_epochs):
        for X, y in loader:
            optimizer.zero_grad()
            functional.cross_entropy(net(X), y).backward()
            optimizer.step()


def epochs_in_turns(n_repeats: int, *calls: Callable[[int], object]) -> list[float]:
    """Return the median seconds of some epochs of each call."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(n_repeats):
        for call, seconds in zip(calls, times, strict=True):
            moments = [time.perf_counter()]
            for n_epochs in (FEW, MANY):
                call(n_epochs)
                moments.append(time.perf_counter())
            few, many = np.diff(moments)
            seconds.append(many - few)
    return [statistics.median(seconds) for seconds in times]


def ratio_of_workers(n_repeats: int) -> float:
    """Compare an estimator with the bare loop, both with workers."""
    pictures = Pictures(N_PICTURES)
    loading = {"num_workers": N_WORKERS}
    own, bare = epochs_in_turns(
        n_repeats,
        lambda n: estimator(n, loader_params=loading).fit(pictures),
        lambda n: bare_loop(pictures, n, N_WORKERS),
    )
    return own / bare


def gain_of_batches(n_repeats: int) -> float:
    """Compare augmentation of mini-batches with that of single images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(N_PICTURES, 3, SIZE, SIZE, generator=generator)
    y = np.arange(N_PICTURES) % 10
    X = images.numpy()
    batches, single, none = epochs_in_turns(
        n_repeats,
        lambda n: estimator(n, augment=crop_and_flip).fit(X, y),
        lambda n: estimator(n).fit(Augmented(images, y)),
        lambda n: estimator(n).fit(X, y),
    )
    print(f"seconds: batches {batches:.2f}, single {single:.2f}, none {none:.2f}")
    return (single - none) / (batches - none)


MEASURE = """
import resource, sys
import numpy as np
from sklearn_structreg.core import StructuredClassifier
X = np.load(sys.argv[1], mmap_mode="r")
y = np.arange(len(X)) % 10
model = StructuredClassifier(max_epochs=1, hidden_layer_sizes=(16,), device="cpu")
model.fit(X[:1000], y[:1000])
def private():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    anonymous = next(line for line in lines if line.startswith("Anonymous:"))
    return int(anonymous.split()[1]) / 1024
import threading, time
peak, stop = [private()], threading.Event()
def watch():
    while not stop.is_set():
        peak.append(private())
        time.sleep(0.05)
thread = threading.Thread(target=watch)
thread.start()
model.fit(X, y)
stop.set()
thread.join()
print(max(peak) - peak[0])
"""
"""Memory that belongs to the process alone; pages of the file can be given back."""


def memory_of_map(gigabytes: float) -> float:
    """Return the mebibytes that a fit on a memory map takes beyond a small fit."""
    n_features = 1_000
    n_rows = int(gigabytes * 2**30 / (4 * n_features))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "X.npy"
        X = np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, n_features))
        rng = np.random.default_rng(0)
        for start in range(0, n_rows, 10_000):
            part = X[start : start + 10_000]
            part[:] = rng.standard_normal(part.shape, np.float32)
        X.flush()
        del X
        command = [sys.executable, "-c", MEASURE, str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(result.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)  # the labels are random
    found = {
        "workers, by the bare loop": ratio_of_workers(arguments.repeats),
        "augmentation, single images by batches": gain_of_batches(arguments.repeats),
        f"memory map of {arguments.gigabytes:g} GiB, MiB": memory_of_map(
            arguments.gigabytes
        ),
    }
    for name, value in found.items():
        print(f"{name:45} {value:8.2f}")
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
