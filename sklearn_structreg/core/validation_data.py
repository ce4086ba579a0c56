"""Validation data and groups as users pass them to `fit`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import column_or_1d
from torch.utils.data import Dataset

from sklearn_structreg.core.messages import explaining, shown

__all__ = ["gather_metadata", "read_groups", "reason_against", "split_eval_set"]


def gather_metadata(
    sample_weight: Any = None,
    eval_set: Any = None,
    groups: Any = None,
    X_val: Any = None,
    y_val: Any = None,
) -> dict[str, Any]:
    """Gather what `fit` takes beside samples and targets."""
    if X_val is not None or y_val is not None:
        if eval_set is not None:
            raise ValueError("eval_set and X_val are the same; pass one of them.")
        eval_set = (X_val, y_val)
    return {"sample_weight": sample_weight, "eval_set": eval_set, "groups": groups}


def read_groups(groups: Any, n_samples: int) -> NDArray[np.int64]:
    """Return the number of every sample's group."""
    with explaining("groups cannot be used: {}; give one label per sample."):
        _, numbers = np.unique(column_or_1d(groups), return_inverse=True)
    if len(numbers) != n_samples:
        raise ValueError(
            f"groups has {len(numbers)} labels for {n_samples} samples; give one each."
        )
    return numbers.astype(np.int64)


def reason_against(error: Exception) -> str:
    """Say in one sentence why an eval_set cannot be used."""
    reason, *_ = str(error).splitlines() or ["no reason given"]
    reason = reason.rstrip(".")
    if "contains NaN" in reason or "contains infinity" in reason:
        reason += "; impute such values, or leave the rows out"
    return f"The eval_set cannot be used: {reason}."


def split_eval_set(eval_set: Any) -> tuple[Any, ...]:
    """Return samples, targets and, if they are there, weights."""
    if isinstance(eval_set, Dataset):
        return eval_set, None
    if isinstance(eval_set, list) and len(eval_set) == 1:
        eval_set = eval_set[0]  # as boosting libraries take it
    if not (isinstance(eval_set, tuple | list) and len(eval_set) in (2, 3)):
        raise ValueError(
            f"eval_set={shown(eval_set)} is neither a tuple (X, y) or (X, y, "
            "sample_weight) nor a Dataset."
        )
    X, y, *_ = eval_set
    if X is None or (y is None and not isinstance(X, Dataset)):
        raise ValueError("eval_set needs samples and targets; pass (X, y).")
    return tuple(eval_set)
