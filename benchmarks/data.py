"""Data for the benchmarks: a folder of .npz files, or scikit-learn's fetchers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import fetch_openml, load_breast_cancer, load_digits, load_wine

OPENML = {"mnist": ("mnist_784", (28, 28), 60_000)}
"""Name on OpenML, shape of an image, and how many of the rows are for training."""


def load_images(name: str, folder: Path | None = None) -> tuple[np.ndarray, ...]:
    """Load an image data set.

    Parameters
    ----------
    name : str
        Such as "mnist".
    folder : Path or None, default=None
        Where ``<name>.npz`` lies, with x_train, y_train, x_test and y_test. Without
        it the data comes from OpenML, which needs a network.

    Returns
    -------
    x_train, y_train, x_test, y_test : ndarray
        Images as uint8 of shape (n, H, W) or (n, H, W, C), labels of shape (n,).
    """
    if folder is not None:
        with np.load(folder / f"{name}.npz") as data:
            return tuple(data[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    if name not in OPENML:
        raise ValueError(f"{name!r} is on no fetcher: name a folder with {name}.npz.")
    label, shape, n_train = OPENML[name]
    X, y = fetch_openml(label, version=1, return_X_y=True, as_frame=False)
    X, y = X.astype(np.uint8).reshape(-1, *shape), y.astype(np.int64)
    return X[:n_train], y[:n_train], X[n_train:], y[n_train:]


def load_tables(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Load every ``<name>.npz`` of a folder that has samples X and labels y."""
    tables = {}
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as data:
            if "X" in data:
                tables[file.stem] = data["X"], data["y"]
    return tables


def sklearn_tables() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Load the tables of classes that come with scikit-learn."""
    loaders = {"wine": load_wine, "cancer": load_breast_cancer, "digits": load_digits}
    return {name: load(return_X_y=True) for name, load in loaders.items()}
