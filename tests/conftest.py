"""What the tests share: data, and a clean end."""

import signal
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

# Programs that a shell starts in the background ignore Ctrl-C, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits, scaled to [0, 1]: X (1797, 64), y (1797,)."""
    X, y = load_digits(return_X_y=True)
    X /= 16
    X.flags.writeable = False
    return X, y


@pytest.fixture
def blobs():
    """Three well separated classes: X (90, 4) float64, y (90,) int."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 30)
    X = rng.normal(size=(90, 4)) + 3 * np.eye(3, 4)[y]
    order = rng.permutation(90)
    return X[order], y[order]


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """The networks here are small: a second thread only waits for the first."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
