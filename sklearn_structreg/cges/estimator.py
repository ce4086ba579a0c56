"""Parameters, untrained network and sparsity: shared by classifier and regressor."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sklearn_structreg.cges.importance import first_layer_norms
from sklearn_structreg.cges.layers import count_parameters, weight_sparsity
from sklearn_structreg.cges.parameters import CGESParameters
from sklearn_structreg.cges.pruning import IterativePruning, PruningParameters
from sklearn_structreg.cges.regularizer import CGES
from sklearn_structreg.cges.targets import TargetParameters
from sklearn_structreg.core.batches import Batches
from sklearn_structreg.core.parameters import component
from sklearn_structreg.core.task import Task
from sklearn_structreg.core.training import make_net

if TYPE_CHECKING:
    from sklearn_structreg.core.estimator import StructuredEstimator as Base
else:
    Base = object

__all__ = ["SparseEstimator", "Untrained", "check_estimator"]


class Untrained(NamedTuple):
    """A network before its training, its penalty, and the training data."""

    module: nn.Module
    penalty: CGES
    batches: Batches
    task: Task


@component
class SparseEstimator(CGESParameters, TargetParameters, PruningParameters, Base):
    """A network with pruning and then a CGES penalty, and its sparsity."""

    _regularizers: ClassVar = (IterativePruning, CGES)

    @property
    def feature_importances_(self) -> NDArray[np.float64]:
        """Norms of the first layer's weights over the input features."""
        if several := self._several():
            each = [network.feature_importances_ for network in several]
            importances: NDArray[np.float64] = np.mean(each, axis=0)
            return importances
        name = self._penalised()[0]
        return first_layer_norms(self.module_, name, self.input_shape_)

    @property
    def sparsity_(self) -> float:
        """Fraction of exact zeros among the penalised weights.

        Weights that the penalty leaves out count in `n_nonzero_parameters_` only; they
        are in ``regularizers_["cges"].left_out_``.
        """
        if several := self._several():
            return float(np.mean([network.sparsity_ for network in several]))
        names = self._penalised()
        return weight_sparsity(self.module_, names)[0]

    @property
    def n_parameters_(self) -> int:
        """Learnable parameters, biases included."""
        check_is_fitted(self, "net_")
        return count_parameters(self.module_)[0]

    @property
    def n_nonzero_parameters_(self) -> int:
        """Learnable parameters that are not zero."""
        check_is_fitted(self, "net_")
        return count_parameters(self.module_)[1]

    def _several(self) -> list[SparseEstimator]:
        """Return the estimators of several networks, whose figures are averaged."""
        several: list[SparseEstimator] = vars(self).get("estimators_", [])
        return several

    def _penalised(self) -> list[str]:
        """Name the penalised weights in forward order."""
        check_is_fitted(self, "net_")
        penalty = self.regularizers_["cges"]
        assert isinstance(penalty, CGES)
        return penalty.names

    def _untrained(self, X: Any, y: Any, sample_weight: Any) -> Untrained:
        """Build the network that `fit` would train, and note the shapes as it does."""
        self._validate_params()
        data = self._read_data(X, y, sample_weight, min_samples=2)
        spec, recipe, seed = self._make_spec(), self._make_recipe(), self._draw_seed()
        regularizers = self._make_regularizers()
        module = self._fresh_network(data, spec, regularizers, seed)
        penalty = regularizers["cges"]
        assert isinstance(penalty, CGES)
        size = recipe.rows_per_batch(data.n_rows)
        batches = data.batches(spec, batch_size=size, normalize=True)
        # The first step measures the constants of the layers.
        net = make_net(copy.deepcopy(module), regularizers, recipe, seed=seed)
        net.train_first_batch(batches)
        return Untrained(module, penalty, batches, recipe.task)


def check_estimator(estimator: Any, caller: str) -> None:
    """Raise a TypeError if a function's `estimator` is not one with a CGES penalty."""
    if not isinstance(estimator, SparseEstimator) or not hasattr(estimator, "alpha"):
        raise TypeError(
            f"{caller} takes a CGESClassifier or a CGESRegressor; got "
            f"{type(estimator).__name__}. Of a pipeline give the last step, and X as "
            "the steps before transform it; of a cross-validated one, an entry of "
            "estimators_."
        )
