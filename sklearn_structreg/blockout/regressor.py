"""BlockoutRegressor: a network that learns its own architecture, for numbers."""

from __future__ import annotations

from typing import ClassVar

from sklearn_structreg.blockout.parameters import BlockoutParameters
from sklearn_structreg.blockout.regularizer import Blockout
from sklearn_structreg.blockout.structure import LearnedStructure
from sklearn_structreg.core import StructuredRegressor
from sklearn_structreg.core.parameters import component

__all__ = ["BlockoutRegressor"]


@component
class BlockoutRegressor(LearnedStructure, BlockoutParameters, StructuredRegressor):
    """Neural network that learns a hierarchical architecture, for numbers.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    cluster_probabilities_, expected_clusters_, history_
        As in `BlockoutClassifier`; the last node set are the targets.
    target_mean_, target_scale_, n_features_in_, feature_names_in_, input_shape_
    net_, module_, n_iter_, regularizers_
        As in :class:`~sklearn_structreg.core.StructuredRegressor`.

    See Also
    --------
    Blockout : The regularizer, with notes on its method; for any estimator.
    BlockoutClassifier : The same for classes.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import scale
    >>> from sklearn_structreg.blockout import BlockoutRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> X = scale(X)
    >>> net = BlockoutRegressor(random_state=0).fit(X, y)
    >>> net.score(X, y) > 0.5
    True
    >>> [p.shape for p in net.cluster_probabilities_]
    [(10, 6), (100, 6), (1, 6)]
    """

    _regularizers: ClassVar = (Blockout,)
