"""Fit several estimators at once, those of one shape in one training."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from sklearn_structreg.core.convergence import warn_once
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.stacking import (
    FEWEST,
    Job,
    can_stack,
    groups_of,
    train_together,
)
from sklearn_structreg.core.validation_data import gather_metadata

__all__ = ["Fit", "can_train_together", "fit_together", "train_on_together"]


@dataclass
class Fit:
    """An estimator to fit, its data, and the error if that fails."""

    estimator: Any
    X: Any
    y: Any
    metadata: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None
    seconds: float = 0.0
    is_done: bool = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Keep an error, and count the time."""
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            self.error = error
        self.seconds += time.perf_counter() - start

    def alone(self) -> None:
        """Fit as always."""
        with self.attempt():
            self.estimator.fit(self.X, self.y, **self.metadata)
        self.is_done = True


@torch.inference_mode(False)
def fit_together(fits: Sequence[Fit], *, alone: bool = True) -> None:
    """Fit estimators, each as it would be alone.

    `alone` is whether to fit those, too, that cannot join a stack, one by one.
    """
    prepared, readings = [], _Readings()
    for fit in fits:
        each = None
        if getattr(fit.estimator, "_can_join", False):
            with fit.attempt():
                each = _Prepared(fit, readings)
            fit.is_done = fit.error is not None
        if each is not None and can_stack(each.job):
            prepared.append(each)
        elif each is not None and alone:  # no second network is in memory meanwhile
            _train([each])
        elif alone and not fit.is_done:
            fit.alone()
    _share_batches([each.job for each in prepared], [each.data for each in prepared])
    by_job = {id(each.job): each for each in prepared}
    for jobs in groups_of([each.job for each in prepared]):
        _train([by_job[id(job)] for job in jobs])


def _train(members: Sequence[_Prepared]) -> None:
    """Train fits of one group."""
    start = time.perf_counter()
    train_together([member.job for member in members])
    seconds = (time.perf_counter() - start) / len(members)
    for member in members:
        fit = member.fit
        with fit.attempt():
            member.conclude()
        fit.seconds, fit.is_done = fit.seconds + seconds, True


class _Readings:
    """Data that estimators have read, for others that would read them alike."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[TrainingData, dict[str, Any]]] = {}

    def read(self, estimator: Any, fit: Fit) -> TrainingData:
        """Return training data, and set the attributes that come with them."""
        names = "module", "standardize", "dtype", "image_shape", "class_weight"
        how = [repr(getattr(estimator, name, None)) for name in names]
        of = fit.X, fit.y, *fit.metadata.values()
        key = (type(estimator), *how, *map(id, of))
        if key not in self._known:
            before = dict(vars(estimator))
            more = gather_metadata(**fit.metadata)
            data = estimator._read_data(fit.X, fit.y, min_samples=2, **more)
            after = vars(estimator).items()
            new = {k: v for k, v in after if k not in before or before[k] is not v}
            self._known[key] = data, new
        data, attributes = self._known[key]
        vars(estimator).update(attributes)
        return data


class _Prepared:
    """A fit that is ready to train."""

    def __init__(self, fit: Fit, readings: _Readings) -> None:
        self.fit, self.attempt = fit, copy.copy(fit.estimator)
        self.attempt._validate_params()
        self.data = readings.read(self.attempt, fit)
        self.job = self.attempt._set_up(self.data)

    def conclude(self) -> None:
        """Make the estimator a fitted one, or raise the error."""
        if self.job.error is not None:
            raise self.job.error
        with warn_once():
            self.attempt._conclude(self.job, self.data)
        self.fit.estimator.__dict__ = self.attempt.__dict__


def can_train_together(
    estimator: Any, data: TrainingData, seed: int, number: int
) -> bool:
    """Whether so many estimators like this one gain by `train_on_together`."""
    several = number >= FEWEST and estimator._can_join
    return several and can_stack(estimator._set_up(data, seed))


def train_on_together(
    estimators: Sequence[Any], data: TrainingData, seeds: Sequence[int]
) -> None:
    """Train estimators on data that they have read, from a seed each."""
    each = zip(estimators, seeds, strict=True)
    jobs = [estimator._set_up(data, seed) for estimator, seed in each]
    _share_batches(jobs, [data] * len(jobs))
    for group in groups_of(jobs):
        train_together(group)
    for estimator, job in zip(estimators, jobs, strict=True):
        if job.error is not None:
            raise job.error
        estimator.net_ = job.net
        estimator._note_structure()


def _share_batches(jobs: Sequence[Job], data: Sequence[TrainingData]) -> None:
    """Let jobs on the same data, in the same order, have the same batches."""
    known: dict[Any, Any] = {}
    for job, of_job in zip(jobs, data, strict=True):
        recipe = job.net.recipe
        held_out = recipe.early_stopping, recipe.validation_fraction
        alike = job.train.n_batches == 1 and not recipe.early_stopping
        seed = None if alike else job.net.seed
        key = id(of_job), seed, tuple(job.train.sizes), held_out
        job.train, job.valid = known.setdefault(key, (job.train, job.valid))
