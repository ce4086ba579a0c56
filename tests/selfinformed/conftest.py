"""Held-out scores with planted groups, for every test that needs some."""

import numpy as np
import pytest


def planted(n_classes, n_groups, n_samples, bonus, seed):
    """Return scores, labels and each class's group; a group's scores rise together."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.arange(n_classes) % n_groups)
    y = rng.integers(0, n_classes, n_samples)
    X = rng.random((n_samples, n_classes)) + bonus * (groups[y][:, None] == groups)
    X[np.arange(n_samples), y] += bonus
    return X, y, groups


@pytest.fixture(name="planted", scope="session")
def planted_fixture():
    return planted
