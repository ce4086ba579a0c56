"""Accuracy of the methods and their rivals, at their defaults and tuned.

A tuned contestant chooses one of `N_SETTINGS` settings on a quarter of the training
rows, is fitted on all of them, and meets the test rows once.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split

from benchmarks.value.contestants import Contestant
from benchmarks.value.datasets import DataSet
from benchmarks.value.runs import Run, Runs

__all__ = ["compete"]

SECTION = "accuracy"
VALIDATION_SHARE = 0.25

Rows = tuple[np.ndarray, np.ndarray]


def compete(
    data: DataSet, seed: int, contestants: Sequence[Contestant], runs: Runs
) -> None:
    """Do all runs on one split of a data set that are not done yet."""
    torch.set_num_threads(1)
    split = data.split(seed)
    train = split.X_train, split.y_train
    fit, valid = halves(*train, seed)
    key = {"section": SECTION, "data": data.name, "group": data.group, "seed": seed}
    tests = [(split.X_test, split.y_test)]
    tests += [(X, split.y_test) for X in split.corrupted]
    for contestant in contestants:
        if not contestant.applies_to(*train):
            continue
        settings = [{}] if contestant.default else []
        if contestant.grid:
            found = [
                runs.once(
                    key_of(key, contestant, setting, "validation"),
                    *(measure, contestant, setting, seed, fit, [valid]),
                )
                for setting in contestant.grid
            ]
            settings.append(best(found)["setting"])
        for setting in settings:
            runs.once(
                key_of(key, contestant, setting, "test"),
                *(measure, contestant, setting, seed, train, tests),
            )


def halves(X: np.ndarray, y: np.ndarray, seed: int) -> tuple[Rows, Rows]:
    """Split training rows into those for fits and those for the choice of settings."""
    X, X_valid, y, y_valid = train_test_split(
        X, y, test_size=VALIDATION_SHARE, stratify=y, random_state=seed
    )
    return (X, y), (X_valid, y_valid)


def key_of(key: Run, contestant: Contestant, setting: Run, part: str) -> Run:
    """Return the entries that tell a run from all others."""
    return key | {"contestant": contestant.name, "setting": setting, "part": part}


def best(validations: Sequence[Run]) -> Run:
    """Return the run of the highest accuracy; where they tie, of the lowest loss."""
    return max(validations, key=lambda run: (run["accuracy"], -run["log_loss"]))


def measure(
    contestant: Contestant, setting: Run, seed: int, train: Rows, tests: Sequence[Rows]
) -> Run:
    """Fit once, and return accuracy, log loss and time; of further tests the accuracy.

    A fit that fails counts as the most frequent class.
    """
    X, y = train if contestant.is_net else (flat(train[0]), train[1])
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = contestant.make(**setting, random_state=seed).fit(X, y)
            seconds = time.process_time() - start
            scores = [score(contestant, model, *rows) for rows in tests]
            further: dict[str, Any] = contestant.figures(model)
    except (ValueError, RuntimeError) as error:
        seconds = time.process_time() - start
        frequent = np.bincount(y).argmax()
        scores = [(float(np.mean(rows[1] == frequent)), np.inf) for rows in tests]
        further = {"error": str(error)}
    accuracy, loss = scores[0]
    if len(scores) > 1:
        further["corrupted"] = float(np.mean([a for a, _ in scores[1:]]))
    result = {"accuracy": accuracy, "log_loss": min(loss, 99), "seconds": seconds}
    return result | further


def score(
    contestant: Contestant, model: Any, X: np.ndarray, y: np.ndarray
) -> tuple[float, float]:
    """Return accuracy and log loss."""
    p = model.predict_proba(X if contestant.is_net else flat(X))
    labels = np.arange(p.shape[1])
    return float(accuracy_score(y, p.argmax(axis=1))), float(
        log_loss(y, p, labels=labels)
    )


def flat(X: np.ndarray) -> np.ndarray:
    """Return rows of numbers."""
    return X.reshape(len(X), -1)
