"""Training minimises loss plus penalty, whatever the optimizer."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.preprocessing import scale
from torch import nn

from sklearn_structreg import StructuredClassifier
from sklearn_structreg.cges import CGES


class Nesterov(torch.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr, momentum=0.9, nesterov=True)


OPTIMIZERS = {
    "SGD": {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.8},
    "momentum": {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.1},
    "Nesterov": {"optimizer": Nesterov, "learning_rate": 0.1},
    "Adam": {"optimizer": "adam", "learning_rate": 0.05},
    "AdamW": {"optimizer": "adamw", "learning_rate": 0.05},
    "NAdam": {"optimizer": torch.optim.NAdam, "learning_rate": 0.05},
    "RMSprop": {"optimizer": torch.optim.RMSprop, "learning_rate": 0.005},
    "Adagrad": {"optimizer": torch.optim.Adagrad, "learning_rate": 0.5},
}
# The factors of the group and the exclusive term; with "cges" they share the strength.
PENALTIES = {
    "l1": (0.02, 0.0, 0.0),
    "group": (0.08, 1.0, 0.0),
    "exclusive": (0.03, 0.0, 1.0),
    "cges": (0.05, 0.4, 0.6),
}


def shrink(W, step, penalty):
    """Return argmin of |U - W|^2 / 2 + step * penalty, by bisection for |u|_1."""
    alpha, group, exclusive = PENALTIES[penalty]
    if penalty == "l1":
        return np.sign(W) * np.maximum(np.abs(W) - step * alpha, 0)
    a, b = step * alpha * group, step * alpha * exclusive

    def at(tau):
        U = np.sign(W) * np.maximum(np.abs(W) - tau, 0)
        norms = np.maximum(np.linalg.norm(U, axis=0), 1e-300)
        return U * np.maximum(1 - a / norms, 0)

    low, high = np.zeros(W.shape[1]), np.abs(W).max(axis=0)
    for _ in range(60 if b else 0):  # tau - b |u(tau)|_1 rises with tau
        middle = (low + high) / 2
        below = middle < b * np.abs(at(middle)).sum(axis=0)
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return at(low)


def objective(W, bias, X, y, penalty):
    alpha, group, exclusive = PENALTIES[penalty]
    z = X @ W.T + bias
    z = z - z.max(axis=1, keepdims=True)
    loss = np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y])
    if penalty == "l1":
        return loss + alpha * np.abs(W).sum()
    groups = np.linalg.norm(W, axis=0).sum()
    squares = np.square(np.abs(W).sum(0)).sum() / 2
    return loss + alpha * (group * groups + exclusive * squares)


@pytest.fixture(scope="module")
def problem(digits):
    return scale(digits[0][:300]), digits[1][:300]


@pytest.fixture(scope="module")
def optimum(problem):
    """Objective and zeros of each penalty, by FISTA in float64."""
    X, y = problem
    design, onehot = np.c_[X, np.ones(len(X))], np.eye(10)[y]
    step = 1 / (0.5 * np.linalg.norm(design, 2) ** 2 / len(X))
    found = {}
    for penalty in PENALTIES:
        W = point = np.zeros((10, 65))
        t = 1.0
        for _ in range(600):
            slopes = (softmax(design @ point.T, axis=1) - onehot) / len(X)
            new = point - step * slopes.T @ design
            new[:, :-1] = shrink(new[:, :-1], step, penalty)
            t, last = (1 + math.sqrt(1 + 4 * t * t)) / 2, t
            point = new + (last - 1) / t * (new - W)
            W = new
        value = objective(W[:, :-1], W[:, -1], X, y, penalty)
        found[penalty] = value, np.mean(W[:, :-1] == 0)
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_optimizer_reaches_the_optimum_and_its_zeros(
    problem, optimum, name, penalty
):
    X, y = problem
    alpha, _, exclusive = PENALTIES[penalty]
    cges = CGES(
        alpha,
        penalty=penalty,
        exclusivity=1 - exclusive,  # of the top layer, with a single one
        layer_scale=None,
        ramp=0,
        refit=0,
    )
    model = StructuredClassifier(
        lambda shape, n_outputs: nn.Linear(shape[0], n_outputs),
        regularizers=[cges],
        standardize=False,
        batch_size=None,
        max_epochs=400,
        lr_schedule="cosine",
        dtype="float64",
        random_state=0,
        **OPTIMIZERS[name],
    ).fit(X, y)
    W = model.module_.weight.detach().numpy()
    bias = model.module_.bias.detach().numpy()
    best, zeros = optimum[penalty]
    value = objective(W, bias, X, y, penalty)
    assert best * (1 - 1e-6) <= value <= 1.01 * best
    assert np.mean(W == 0) == pytest.approx(zeros, abs=0.03)
