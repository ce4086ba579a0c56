"""CGESClassifier: a network that keeps only the weights it needs."""

from __future__ import annotations

from sklearn_structreg.cges.estimator import SparseEstimator
from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.core.parameters import component

__all__ = ["CGESClassifier"]


@component
class CGESClassifier(SparseEstimator, StructuredClassifier):
    r"""Neural network with combined group and exclusive sparsity (CGES).

    Training minimizes, by a proximal step after every step of the optimizer,

    .. math:: L(W) + \alpha \sum_l \sum_g \Big( (1-\mu_l)\, a_l \|w_g^{(l)}\|_2
              + \frac{\mu_l\, b_l}{2} \|w_g^{(l)}\|_1^2 \Big),

    where the groups of layer l are the weights that leave one of its input features.
    The first term switches whole features off, the second lets the units of the layer
    compete for those that stay; from bottom to top :math:`\mu_l` moves the weight from
    the first to the second. The layers are all linear and convolutional ones; biases,
    normalization layers and frozen weights (``requires_grad=False``) are not penalised.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    sparsity_ : float
        Fraction of exact zeros among the penalised weights.
    n_parameters_ : int
        Learnable parameters, biases included.
    n_nonzero_parameters_ : int
        Those of them that are not zero.
    feature_importances_ : ndarray of shape (n_features,)
        For each input feature the norm of the first layer's weights that leave it, on
        standardized features where `standardize` is on; 0 means that the network does
        not use it. With `SelectFromModel` give a
        ``threshold`` next to zero, such as 1e-5, to keep all that are used. A pixel
        under a convolution counts every position of the kernel that covers it, so that
        pixels differ little but at the border.
    regularizers_ : mapping of str to Regularizer
        The fitted `IterativePruning` and `CGES`, as "iterativepruning" and "cges",
        and after them those of `regularizers`.
    history_ : skorch.history.History
        Holds ``sparsity`` and ``layer_sparsity`` (a dict per weight) of every epoch.
    classes_, multilabel_, n_features_in_, feature_names_in_, input_shape_, n_iter_
        As in :class:`~sklearn_structreg.core.StructuredClassifier`.
    net_, module_
        The private skorch net and the trained network.

    See Also
    --------
    CGESRegressor : The same for numbers.
    CGES, IterativePruning : The same penalty and pruning, beside other regularizers.

    Notes
    -----
    The operators run in the metric of the optimizer's steps: SGD's at the learning
    rate over one minus the momentum, that of Adam and its kin at a size for each
    weight. So the training minimises the objective with all of them, while the penalty
    is on and the learning rate falls low enough. An optimizer that is not known counts
    as plain SGD. In the last `refit` of the epochs the loss alone is minimised, with
    the zeros as they are.

    :class:`IterativePruning` describes the pruning in warm starts, with early stopping
    and after compaction.

    References
    ----------
    J. Yoon, "Combined Group and Exclusive Sparsity for Deep Neural Networks",
    master's thesis, UNIST, 2018: section 3, Eqs. 3-8 and Algorithm 1.

    S. Han, J. Pool, J. Tran, W. J. Dally, "Learning both weights and connections for
    efficient neural networks", NIPS 2015: iterative pruning.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_structreg import CGESClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = CGESClassifier(max_epochs=20, random_state=0)
    >>> model = make_pipeline(StandardScaler(), net).fit(X, y)
    >>> model.score(X, y) > 0.95, net.sparsity_ > 0.4
    (True, True)
    """
