"""How fast and in how much memory data beyond memory is read, beside bare torch.

- A `Dataset` of PNG pictures, decoded by two workers: the time of epochs by that of a
  bare `DataLoader` loop with the same workers, network and batches.
- A memory map: the memory of the process above that before the fit, and with it.
- Augmentation of images of 32 x 32: the time that a bare `DataLoader` adds to an epoch
  which loads, crops and flips image by image, as torchvision's transforms do, by the
  time that `Training(augment=...)` adds to one on arrays.

A ratio is the median over repeats, taking turns in one process. It is one of processor
times, workers included, which other processes on the machine do not lengthen; for
workers that of the passing time comes beside it. Run ``python -m
benchmarks.speed.loading`` (some minutes; ``--gigabytes 4`` for a memory map of that
size).
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import resource
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
SMALL, SHIFT = 32, 4


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
    """Images in memory, each cropped and flipped by itself, as torchvision does."""

    def __init__(self, images: Tensor, targets: np.ndarray) -> None:
        self.images, self.targets = images, targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        image = functional.pad(self.images[row], (SHIFT,) * 4)
        top, left = torch.randint(0, 2 * SHIFT + 1, (2,)).tolist()
        image = image[:, top : top + SMALL, left : left + SMALL]
        image = image.flip(2) if torch.rand(1) < 0.5 else image
        return image, int(self.targets[row])


def encoded(picture: np.ndarray) -> bytes:
    """Enlarge a picture, and encode it."""
    file = io.BytesIO()
    Image.fromarray(picture).resize((SIZE, SIZE)).save(file, "png")
    return file.getvalue()


def crop_and_flip(images: Tensor) -> Tensor:
    """Shift images at random by a few pixels, with zeros around; mirror every other."""
    n, n_channels, height, width = images.shape
    padded = functional.pad(images, (SHIFT,) * 4).flatten(2)
    top, left = torch.randint(0, 2 * SHIFT + 1, (2, n, 1))
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    columns = torch.where(torch.rand(n, 1) < 0.5, columns.flip(1), columns)
    places = rows[:, :, None] * (width + 2 * SHIFT) + columns[:, None]
    places = places.flatten(1)[:, None].expand(-1, n_channels, -1)
    return padded.gather(2, places).reshape(images.shape)


def small_net() -> nn.Module:
    """Build a network that costs little beside the decoding."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(16), make_convnet((3, 16, 16), 10, (32,), (8, 16))
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


def moment() -> np.ndarray:
    """Return the processor time of this process and of workers that ended, and now."""
    gc.collect()  # ends the workers of loaders that nothing refers to
    spent = 0.0
    for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(whose)
        spent += usage.ru_utime + usage.ru_stime
    return np.array([spent, time.perf_counter()])


def epochs_in_turns(n_repeats: int, *calls: Callable[[int], object]) -> np.ndarray:
    """Return seconds of some epochs: (n_calls, n_repeats, processor and passing)."""
    seconds = np.zeros((len(calls), n_repeats, 2))
    for call in calls:  # warm up
        call(FEW)
    for repeat in range(n_repeats):
        for number, call in enumerate(calls):
            moments = [moment()]
            for n_epochs in (FEW, MANY):
                call(n_epochs)
                moments.append(moment())
            few, many = np.diff(moments, axis=0)
            seconds[number, repeat] = many - few
    return seconds


def ratio_of_workers(n_repeats: int) -> tuple[float, float]:
    """Compare an estimator with the bare loop, both with workers."""
    pictures = Pictures(N_PICTURES)
    loading = {"num_workers": N_WORKERS}
    own, bare = epochs_in_turns(
        n_repeats,
        lambda n: estimator(n, loader_params=loading).fit(pictures),
        lambda n: bare_loop(pictures, n, N_WORKERS),
    )
    print("seconds of processor, and passing: own, bare\n", own, "\n", bare)
    processor, passing = np.median(own / bare, axis=0)
    return float(processor), float(passing)


def gain_of_batches(n_repeats: int) -> float:
    """Compare augmentation of mini-batches with that of single images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(N_PICTURES, 3, SMALL, SMALL, generator=generator)
    y = np.arange(N_PICTURES) % 10
    X = images.numpy()
    seconds = epochs_in_turns(
        n_repeats,
        lambda n: estimator(n, augment=crop_and_flip).fit(X, y),
        lambda n: bare_loop(Augmented(images, y), n, 0),
        lambda n: estimator(n).fit(X, y),
    )
    batches, single, none = seconds[..., 0]
    print("seconds of batches, single images, none\n", batches, single, none)
    return float(np.median((single - none) / (batches - none)))


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
    processor, passing = ratio_of_workers(arguments.repeats)
    found = {
        "workers, by the bare loop": processor,
        "workers, passing time": passing,
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
