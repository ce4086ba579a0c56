"""CGESRegressor: a network for numbers that keeps only the weights it needs."""

from __future__ import annotations

from sklearn_structreg.cges.estimator import SparseEstimator
from sklearn_structreg.core import StructuredRegressor
from sklearn_structreg.core.parameters import component

__all__ = ["CGESRegressor"]


@component
class CGESRegressor(SparseEstimator, StructuredRegressor):
    r"""Neural network for numbers, with combined group and exclusive sparsity (CGES).

    The objective is that of :class:`CGESClassifier`, with the mean squared error of
    standardized targets as the loss. With a single layer and ``penalty="l1"`` this is
    the lasso.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    sparsity_, n_parameters_, n_nonzero_parameters_, feature_importances_
        As in :class:`CGESClassifier`.
    regularizers_ : mapping of str to Regularizer
        The fitted `IterativePruning` and `CGES`, as "iterativepruning" and "cges",
        and after them those of `regularizers`.
    history_ : skorch.history.History
        Holds ``sparsity`` and ``layer_sparsity`` (a dict per weight) of every epoch.
    target_mean_, target_scale_, n_features_in_, feature_names_in_, input_shape_
    n_iter_
        As in :class:`~sklearn_structreg.core.StructuredRegressor`.
    net_, module_
        The private skorch net and the trained network.

    See Also
    --------
    CGESClassifier : The same for classes.
    CGES, IterativePruning : The same penalty and pruning, beside other regularizers.

    Notes
    -----
    As of :class:`CGESClassifier`: the objective is minimised with every optimizer.

    References
    ----------
    J. Yoon, "Combined Group and Exclusive Sparsity for Deep Neural Networks",
    master's thesis, UNIST, 2018: section 3, Eqs. 3-8 and Algorithm 1.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn_structreg.cges import CGESRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> net = CGESRegressor(max_epochs=60, random_state=0).fit(X, y)
    >>> net.score(X, y) > 0.4, net.sparsity_ > 0.1
    (True, True)
    """
