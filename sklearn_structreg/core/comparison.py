"""A file of a network beside the estimator: rows for both, and how far they differ."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklearn_structreg.core.deployed import FoldedSteps
from sklearn_structreg.core.messages import explaining
from sklearn_structreg.core.pipelines import Step
from sklearn_structreg.core.standardization import Standardize

__all__ = ["compared_rows", "largest_difference"]

N_ROWS = 8  # random ones, where no rows are given
REFUSED = "The network does not take random rows: {}; pass rows of yours as check."


def compared_rows(
    estimator: Any,
    steps: Sequence[Step],
    folded: FoldedSteps | None,
    given: Any,
    precision: torch.dtype,
) -> tuple[Tensor, NDArray[np.float64]]:
    """Return rows as the file takes them, and the estimator's logits for them."""
    with (
        explaining(REFUSED) if given is None else nullcontext(),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        X = given
        if X is None:
            X = _typical_rows(estimator)
            if folded is None:
                X = X.reshape(len(X), -1)
            else:
                X = folded.inputs.around(folded.inverse(X))
        arrived = X
        for _, step in steps:
            arrived = step.transform(arrived)
        logits = estimator._logits(arrived)
        if folded is None:
            data, spec = estimator._samples_to_predict(X)
            spec = replace(spec, dtype=precision, device=torch.device("cpu"))
            return data.first_rows(len(logits), spec).to(precision), logits
    return torch.tensor(folded.inputs.of(X), dtype=precision), logits


def _typical_rows(estimator: Any) -> NDArray[np.float64]:
    """Draw rows with the means and scales of the training, if the network has them."""
    shape = (N_ROWS, *estimator.input_shape_)
    rows = np.random.default_rng(0).standard_normal(shape)
    layers = estimator.module_.modules()
    first = next((each for each in layers if isinstance(each, Standardize)), None)
    if first is None:
        return rows
    mean, factor = (x.cpu().numpy() for x in (first.mean, first.factor))
    typical: NDArray[np.float64] = rows / factor + mean
    return typical


def largest_difference(
    estimator: Any,
    names: Sequence[str],
    found: Sequence[Tensor],
    logits: NDArray[np.float64],
) -> float:
    """Return the largest difference of an output from what the logits stand for."""
    differences = [0.0]
    for name, output in zip(names, found, strict=True):
        got, expected = output.double().numpy(), logits
        if name == "label":
            chances = estimator._probabilities(logits)
            differences.append(_lost_chance(output.numpy(), logits, chances))
            continue
        if name == "probabilities":
            expected = estimator._probabilities(logits)
        if name == "prediction":  # in standard deviations
            target = estimator._target_scale()
            got = (got.reshape(logits.shape) - target.mean) / target.scale
        size = max(1.0, float(np.abs(expected).max()))
        differences.append(float(np.abs(got - expected).max()) / size)
    return float(np.max(differences))


def _lost_chance(
    labels: NDArray[np.int64],
    logits: NDArray[np.float64],
    chances: NDArray[np.float64],
) -> float:
    """Return by how much labels are less probable than the right ones: 0 for these."""
    if labels.ndim == 2:
        return float((np.abs(2 * chances - 1) * (labels != (logits > 0))).max())
    taken = np.take_along_axis(chances, labels[:, None], axis=1)[:, 0]
    return float((chances.max(axis=1) - taken).max())
