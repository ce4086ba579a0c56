"""The data sets of the suite: tables and images, raw, each with splits by seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from sklearn.datasets import make_classification
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.preprocessing import scale

from benchmarks.corruptions import corrupt
from benchmarks.data import load_images, load_tables, sklearn_tables

__all__ = ["DataSet", "Split", "data_sets"]

SMALL_ROWS = 600
"""Rows of a table with ``--small``, test rows included."""
N_FOLDS = 3
N_TEST_IMAGES = {True: 1_000, False: 10_000}
SHIFTS = ("gaussian", "impulse", "defocus")
"""Corruptions of the test images, at severity 3; their mean is reported."""


@dataclass(frozen=True)
class Split:
    """Rows for training and for the test, and corrupted copies of the test rows."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    corrupted: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes
    ----------
    name : str
        As in the tables of results.
    group : str
        The data sets that it is averaged with.
    split : callable
        ``split(seed)`` returns a `Split`.
    """

    name: str
    group: str
    split: Callable[[int], Split]


@cache
def data_sets(folders: tuple[Path, ...], small: bool) -> list[DataSet]:
    """Return the table of data sets.

    Parameters
    ----------
    folders : tuple of Path
        Where ``.npz`` files lie: tables with X and y, and mnist.npz and cifar100.npz
        with x_train, y_train, x_test and y_test. A file that is in none is left out.
    small : bool
        Whether to take few rows, and images at half their size.
    """
    most = SMALL_ROWS if small else None
    found = []
    for name, (X, y) in sklearn_tables().items():
        found.append(table(name, "scikit-learn", X, y, most))
        found.append(table(f"{name} scaled", "scikit-learn", scale(X), y, most))
    for folder in folders:
        for name, (X, y) in load_tables(folder).items():
            found.append(table(name, "wide", X, y, most))
    X, y = make_classification(
        300, 2_000, n_informative=20, n_classes=3, random_state=0
    )
    found.append(table("made-2000", "synthetic", X, y, most))
    found.append(table("products", "synthetic", *products(1_000, 100), most))
    sizes = (200,) if small else (100, 1_000, 5_000)
    for name in ("mnist", "cifar100"):
        path = next((f for f in folders if (f / f"{name}.npz").exists()), None)
        if path is None:
            continue
        for n_rows in sizes:
            part = partial(images, path, name, n_rows, small)
            found.append(DataSet(f"{name}-{n_rows}", "images", part))
        if name == "mnist":
            noisy = partial(images, path, name, sizes[-1], small, noise=0.2)
            found.append(DataSet(f"{name}-{sizes[-1]} noisy", "images", noisy))
    return found


def products(n_rows: int, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a target of products: five features matter, and none of them alone."""
    X = np.random.default_rng(0).standard_normal((n_rows, n_features))
    signal = X[:, 0] * X[:, 1] + X[:, 2] * X[:, 3] + np.sin(3 * X[:, 4])
    return X, (signal > 0).astype(int)


def table(
    name: str, group: str, X: np.ndarray, y: np.ndarray, most: int | None
) -> DataSet:
    """Describe a table, at most so many rows of it; its splits are stratified folds."""
    if most is not None and len(X) > most:
        X, _, y, _ = train_test_split(X, y, train_size=most, stratify=y, random_state=0)
    return DataSet(name, group, partial(fold, X, y))


def fold(X: np.ndarray, y: np.ndarray, seed: int) -> Split:
    """Split a table: seeds 0, 1 and 2 are three folds, 3 to 5 are three others."""
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed // N_FOLDS)
    train, test = list(folds.split(X, y))[seed % N_FOLDS]
    return Split(X[train], y[train], X[test], y[test])


@cache
def image_file(folder: Path, name: str) -> tuple[np.ndarray, ...]:
    """Load a file of images; of CIFAR-100 the first ten classes."""
    X, y, X_test, y_test = load_images(name, folder)
    if name == "cifar100":
        X, y = X[y < 10], y[y < 10]
        X_test, y_test = X_test[y_test < 10], y_test[y_test < 10]
    return X, y, X_test, y_test


def images(
    folder: Path, name: str, n_rows: int, small: bool, seed: int, noise: float = 0
) -> Split:
    """Draw training images; a share of their labels may be wrong."""
    X, y, X_test, y_test = image_file(folder, name)
    rows = np.arange(len(X))
    rows, _ = train_test_split(rows, train_size=n_rows, stratify=y, random_state=seed)
    n_test = N_TEST_IMAGES[small]
    X, y, X_test, y_test = (
        X[rows],
        y[rows].astype(int),
        X_test[:n_test],
        y_test[:n_test],
    )
    rng = np.random.default_rng(seed)
    wrong = rng.random(n_rows) < noise
    n_classes = len(np.unique(y))
    y = np.where(wrong, (y + rng.integers(1, n_classes, n_rows)) % n_classes, y)
    X, X_test = as_channels_last(X, small), as_channels_last(X_test, small)
    corrupted = tuple(channels_first(corrupt(X_test, shift, 3)) for shift in SHIFTS)
    return Split(channels_first(X), y, channels_first(X_test), y_test, corrupted)


def as_channels_last(X: np.ndarray, halved: bool) -> np.ndarray:
    """Return images of shape (n, height, width, channels) in [0, 1]."""
    X = X.reshape(*X.shape[:3], -1).astype(np.float32) / 255
    if not halved:
        return X
    n, height, width, channels = X.shape
    return X.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def channels_first(X: np.ndarray) -> np.ndarray:
    """Return images of shape (n, channels, height, width)."""
    return np.ascontiguousarray(X.transpose(0, 3, 1, 2))
