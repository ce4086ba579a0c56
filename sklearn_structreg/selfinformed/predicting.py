"""Predictions of a network with heads, and their cost."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from sklearn_structreg.core.members import Ensemble
from sklearn_structreg.core.training import PREDICTION_ROWS
from sklearn_structreg.selfinformed.conditional import ConditionalNet, PredictingNet
from sklearn_structreg.selfinformed.ends import Rescaling
from sklearn_structreg.selfinformed.heads import AugmentedNet

if TYPE_CHECKING:
    from sklearn_structreg.core import StructuredClassifier as Base
else:
    Base = object

__all__ = ["PredictingHeads"]


class PredictingHeads(Base):
    """Mixin: heads in one product, or on demand."""

    conditional: int | None
    _gate: nn.Linear | Rescaling

    def count_multiply_adds(self, X: ArrayLike | Dataset[Any]) -> float:
        """Count the multiply-adds that predictions for these samples cost.

        Parameters
        ----------
        X : as in `fit`
            Samples; with `conditional`, the cost depends on them.

        Returns
        -------
        float
            Multiply-adds per sample, on average.
        """
        batches = self._batches_to_predict(X, PREDICTION_ROWS)
        module, n_samples = self._predictor(counted=True).eval(), 0
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            for samples, _, _ in batches.epoch(None):
                module(samples)
                n_samples += len(samples)
        return float(counter.get_total_flops()) / (2 * n_samples)

    def _logits(self, X: Any, module: nn.Module | None = None) -> NDArray[np.float64]:
        return super()._logits(X, self._predictor() if module is None else module)

    def _predictor(self, *, counted: bool = False) -> nn.Module:
        """Take the network, or the one that evaluates heads on demand.

        The products that make it fast are left out where its work is to be `counted`.
        """
        check_is_fitted(self, "net_")
        if self._is_ensemble:
            members = self._members_as_set()
            predictors = [each._predictor(counted=counted) for each in members]
            return Ensemble(predictors, self._task)
        module = cast(AugmentedNet, self.module_)
        if self.conditional is None:
            return module if counted else PredictingNet(module)
        return self._on_demand(module, counted=counted)

    def _exported_network(self, dtype: torch.dtype) -> nn.Module:
        if self.conditional is None:
            return super()._exported_network(dtype)
        if self._is_ensemble:
            networks = [
                each._exported_network(dtype) for each in self._members_as_set()
            ]
            return Ensemble(networks, self._task)
        return self._on_demand(cast(AugmentedNet, self._plain_network(dtype)))

    def _members_as_set(self) -> list[Any]:
        """Copy the members, with `conditional` as it was set since fit."""
        members = [copy.copy(each) for each in self.estimators_]
        for each in members:
            each.conditional = self.conditional
        return members

    def _on_demand(self, net: AugmentedNet, *, counted: bool = False) -> ConditionalNet:
        """Let the heads of the best classes alone decide."""
        self._validate_params()  # it may have been set since fit
        parameter = next(net.parameters())
        gate = copy.deepcopy(self._gate).to(parameter.device, parameter.dtype)
        assert self.conditional is not None
        return ConditionalNet(net, gate, self.conditional, self.multilabel_, counted)
