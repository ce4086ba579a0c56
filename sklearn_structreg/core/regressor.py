"""StructuredRegressor: a network with regularizers, for numbers."""

from __future__ import annotations

from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils import check_array, check_consistent_length
from torch.optim import Optimizer
from torch.utils.data import Dataset

from sklearn_structreg.core.checks import check_table
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.dataset_items import dataset_targets
from sklearn_structreg.core.deployed import TargetScale
from sklearn_structreg.core.estimator import StructuredEstimator
from sklearn_structreg.core.parameters import component, parameter_of
from sklearn_structreg.core.targets import (
    check_weight,
    encode_numbers,
    mean_and_scale,
)
from sklearn_structreg.core.task import Task

__all__ = ["StructuredRegressor"]


@component
class StructuredRegressor(RegressorMixin, StructuredEstimator):
    """A neural network as a scikit-learn regressor; regularizers give it structure.

    The network learns targets of mean zero and variance one, by default by their
    squared error; predictions are scaled back. So a learning rate or a strength suits
    targets of any unit.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    target_mean_, target_scale_ : ndarray of shape (n_targets,)
        Weighted mean and standard deviation of each target in the first fit; the scale
        of a constant target is 1.
    module_ : torch.nn.Module
        The trained module; it predicts standardized targets.
    n_features_in_, feature_names_in_, input_shape_
    net_, regularizers_, history_, n_iter_, learning_rate_, estimators_
        As in :class:`~sklearn_structreg.core.StructuredClassifier`.

    See Also
    --------
    StructuredClassifier : The same for classes.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import scale
    >>> from sklearn_structreg.core import StructuredRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> X = scale(X)
    >>> net = StructuredRegressor(random_state=0).fit(X, y)
    >>> net.score(X, y) > 0.5
    True
    """

    # Squared errors of raw features are steep: a rate for SGD would suit few of them.
    optimizer: str | type[Optimizer] = parameter_of(
        StructuredEstimator, "optimizer", default="adam"
    )

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ArrayLike | Dataset[Any],
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch on these samples, from the present weights.

        The optimizer keeps its state from call to call, but not that of a `fit` before;
        the learning rate is constant. The first call's targets set the scale of all
        that follow. Parameters set in between take effect, or are refused where the
        network's structure depends on them.

        Parameters
        ----------
        X, y : as in `fit`
            A single sample will do.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative; used as they are, so that they compare across calls.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        self._partial_fit(X, y, sample_weight)
        return self

    def predict(self, X: ArrayLike | Dataset[Any]) -> NDArray[np.float64]:
        """Return the predicted targets.

        Parameters
        ----------
        X : as in `fit`
            Samples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_targets), float64
            As many dimensions as y had in `fit`.
        """
        outputs = self._logits(X) * self.target_scale_ + self.target_mean_
        return outputs[:, 0] if self._one_dimensional else outputs

    def _target_scale(self) -> TargetScale:
        return TargetScale(self.target_mean_, self.target_scale_, self._one_dimensional)

    def _as_plain(self) -> StructuredRegressor:
        """Return a regressor of no method with the targets of this one."""
        targets = "target_mean_", "target_scale_", "_one_dimensional"
        plain: StructuredRegressor = self._copy_as(StructuredRegressor, *targets)
        return plain

    def _target_checks(self, y: Any) -> dict[str, bool]:
        return {} if y is None else {"multi_output": True, "y_numeric": True}

    def _read_targets(self, rows: Any, y: Any, sample_weight: Any) -> TrainingData:
        y = dataset_targets(rows) if y is None else y
        check_table(y, "y")
        y = check_array(y, ensure_2d=False, dtype="numeric", input_name="y")
        check_consistent_length(rows, y)
        weight = check_weight(sample_weight, len(rows))
        target = np.asarray(y, dtype=np.float64)
        one_dimensional = target.ndim == 1
        target = target.reshape(len(target), -1)
        if not hasattr(self, "target_mean_"):
            self.target_mean_, self.target_scale_ = mean_and_scale(target, weight)
            self._one_dimensional = one_dimensional
        elif target.shape[1] != len(self.target_mean_):
            raise ValueError(
                f"y has {target.shape[1]} target(s), but the first fit saw "
                f"{len(self.target_mean_)}; fit anew."
            )
        encode = partial(
            encode_numbers,
            mean=self.target_mean_,
            scale=self.target_scale_,
            dtype=self.dtype,
        )
        return TrainingData.from_arrays(rows, encode(target), weight, encode)

    @property
    def _task(self) -> Task:
        return Task.VALUES

    @property
    def _n_outputs(self) -> int:
        return len(self.target_mean_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
