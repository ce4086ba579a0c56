"""BlockoutClassifier: a network that learns its own hierarchical architecture."""

from __future__ import annotations

from typing import ClassVar

from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from sklearn_structreg.blockout.conversion import ends_at_outputs
from sklearn_structreg.blockout.hierarchy import ClassHierarchy
from sklearn_structreg.blockout.parameters import BlockoutParameters
from sklearn_structreg.blockout.regularizer import Blockout
from sklearn_structreg.blockout.structure import LearnedStructure
from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.core.parameters import component

__all__ = ["BlockoutClassifier"]


@component
class BlockoutClassifier(LearnedStructure, BlockoutParameters, StructuredClassifier):
    """Neural network that learns a hierarchical architecture, for classes.

    The fully-connected layers of the network are trained with `Blockout`: every node,
    inputs and classes included, belongs to each of k clusters with a probability that
    is learned, and weights between nodes without a common cluster have no effect.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    cluster_probabilities_ : list of ndarray of shape (d_j, n_clusters)
        P of every node set, from the inputs of the first layer to the classes.
    expected_clusters_ : list of ndarray of shape (d_j,)
        Mean number of clusters that each node belongs to: sums of the probabilities.
    history_ : skorch.history.History
        One row per epoch. For each node set, ``probability_histogram`` counts the
        probabilities in 50 equal bins of [0, 1], and ``probability_quantiles`` are
        their quantiles 0, 0.05, 0.25, 0.5, 0.75, 0.95 and 1 (Fig. 7).
    classes_, n_features_in_, feature_names_in_, input_shape_, net_, module_, n_iter_
    multilabel_, regularizers_
        As in :class:`~sklearn_structreg.core.StructuredClassifier`.

    See Also
    --------
    Blockout : The regularizer, with notes on its method; for any estimator.
    BlockoutRegressor : The same for numbers.

    References
    ----------
    C. Murdock, Z. Li, H. Zhou and T. Duerig, "Blockout: Dynamic Model Selection for
    Hierarchical Deep Networks", CVPR 2016: sections 4 to 6, Eqs. 3-10, Algorithm 1.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.preprocessing import minmax_scale
    >>> from sklearn_structreg import BlockoutClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = minmax_scale(X)
    >>> net = BlockoutClassifier(max_epochs=20, random_state=0).fit(X, y)
    >>> net.score(X, y) > 0.9
    True
    >>> [p.shape for p in net.cluster_probabilities_]
    [(64, 6), (100, 6), (10, 6)]
    """

    _regularizers: ClassVar = (Blockout,)

    def class_hierarchy(
        self,
        class_names: ArrayLike | None = None,
        *,
        threshold: float = 0.5,
        distance: str = "probabilities",
    ) -> ClassHierarchy:
        """Return the clusters that classes share, and a tree over the classes.

        Parameters
        ----------
        class_names : array-like of shape (n_classes,), default=None
            None stands for `classes_`.
        threshold : float in (0, 1], default=0.5
            A class is in a cluster from this probability on.
        distance : {"probabilities", "profile"}, default="probabilities"
            Between two classes, for the tree: see
            :meth:`~sklearn_structreg.blockout.ClassHierarchy.of`.

        Returns
        -------
        ClassHierarchy

        Raises
        ------
        ValueError
            If the chain of Blockout layers does not end at the classes.
        """
        check_is_fitted(self, "net_")
        P = self.cluster_probabilities_[-1]
        if not ends_at_outputs(self._one_module, self.input_shape_):
            raise ValueError(
                f"The {len(P)} nodes of the last set are not the "
                f"{len(self.classes_)} classes; name a chain in layers that ends at "
                "the output layer."
            )
        names = self.classes_ if class_names is None else class_names
        return ClassHierarchy.of(P, names, threshold=threshold, distance=distance)
