"""From the data that an estimator is given to what its network takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from sklearn_structreg.core.checkpoint import identity_of
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.device import dtype_name, resolve_device, resolve_dtype
from sklearn_structreg.core.processes import here
from sklearn_structreg.core.recipe import TensorSpec
from sklearn_structreg.core.samples import check_samples
from sklearn_structreg.core.streams import Stream
from sklearn_structreg.core.validation_data import (
    read_groups,
    reason_against,
    split_eval_set,
)

__all__ = ["ReadsData"]

OWN = ("module", "random_state")  # of each process; those of the first one count


class ReadsData(BaseEstimator):
    """Mixin of estimators: checks of samples, targets and validation data.

    Subclasses supply `_read_targets` and `_target_checks`.
    """

    net_: Any
    input_shape_: tuple[int, ...]
    n_features_in_: int
    _needs_rows: ClassVar[bool] = False  # whether it trains on parts of the data
    _validates = False  # whether the last call came with validation data

    def _read_data(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        eval_set: Any = None,
        groups: Any = None,
        *,
        min_samples: int,
    ) -> TrainingData:
        """Check samples and targets, and keep their shape for later calls."""
        seen = getattr(self, "input_shape_", None) if hasattr(self, "net_") else None
        samples = check_samples(
            self,
            X,
            y,
            dtype=None if self._standardizes() else self.dtype,
            image_shape=self.image_shape,
            seen_shape=seen,
            as_given=self._has_own_network,
            min_samples=min_samples,
            **self._target_checks(y),
        )
        if self._needs_rows and isinstance(samples.rows, Stream):
            raise ValueError(
                f"{type(self).__name__} trains on parts of the data, but an "
                "IterableDataset has no rows to choose from; pass a map-style Dataset."
            )
        if sample_weight is not None and isinstance(samples.rows, Stream):
            raise ValueError(
                "sample_weight cannot be matched with the items of an IterableDataset, "
                "whose order is its own; leave it out."
            )
        self.n_features_in_, self.input_shape_ = samples.n_features, samples.shape
        data = self._read_targets(samples.rows, samples.y, sample_weight)
        if data.n_rows < min_samples:
            raise ValueError(
                f"X has n_samples={data.n_rows} with a positive weight; at least "
                f"{min_samples} are needed."
            )
        if groups is not None:
            data = replace(data, groups=read_groups(groups, len(data.target)))
        self._validates = eval_set is not None
        if eval_set is not None:
            data = replace(data, held_out=self._read_eval_set(eval_set))
        if (processes := here()) is not None:
            identity = identity_of(self, data, y, sample_weight)
            processes.check_alike({n: identity[n] for n in identity if n not in OWN})
        return data

    def _read_eval_set(self, eval_set: Any) -> TrainingData:
        """Check validation data against the samples and targets of the training."""
        X, y, *weight = split_eval_set(eval_set)
        try:
            samples = check_samples(
                self,
                X,
                y,
                dtype=None if self._standardizes() else self.dtype,
                image_shape=None,
                seen_shape=self.input_shape_,
                **self._target_checks(y),
            )
            return self._read_targets(samples.rows, samples.y, *weight or [None])
        except (ValueError, TypeError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(reason_against(error)) from error

    def _target_checks(self, y: Any) -> dict[str, bool]:
        """Return options of scikit-learn's check of targets."""
        raise NotImplementedError  # abstract: classifiers and regressors have their own

    def _read_targets(self, rows: Any, y: Any, sample_weight: Any) -> TrainingData:
        """Encode the targets, and keep the key for decoding predictions."""
        raise NotImplementedError  # abstract: classifiers and regressors have their own

    @property
    def _has_own_network(self) -> bool:
        """Whether the user gives the network, which takes samples as they come."""
        return not isinstance(self.module, str)

    def _standardizes(self) -> bool:
        """Whether the network's first layer standardizes."""
        if isinstance(self.standardize, str):
            return not self._has_own_network
        return bool(self.standardize)

    def _make_spec(self) -> TensorSpec:
        """Describe the samples as the network takes them."""
        device = resolve_device(self.device)
        return TensorSpec(self.input_shape_, resolve_dtype(self.dtype), device)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.three_d_array = True
        return tags

    # ---- predicting ------------------------------------------------------------

    def _samples_to_predict(self, X: Any) -> tuple[TrainingData, TensorSpec]:
        check_is_fitted(self, "net_")
        parameter = next(self.module_.parameters())
        spec = TensorSpec(self.input_shape_, parameter.dtype, parameter.device)
        dtype = None if self._standardizes() else dtype_name(spec.dtype)
        rows = check_samples(self, X, dtype=dtype, seen_shape=spec.shape).rows
        target = np.zeros(len(rows), np.int64)  # type: ignore[arg-type]
        return TrainingData.from_arrays(rows, target), spec
