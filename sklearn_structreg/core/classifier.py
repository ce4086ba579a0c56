"""StructuredClassifier: a network with regularizers, for classes or several labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.utils import check_consistent_length
from sklearn.utils._param_validation import StrOptions
from torch.utils.data import Dataset

from sklearn_structreg.core.checks import check_integer
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.dataset_items import dataset_targets
from sklearn_structreg.core.estimator import StructuredEstimator
from sklearn_structreg.core.messages import explaining, shown
from sklearn_structreg.core.parameters import component, parameter
from sklearn_structreg.core.targets import (
    check_labels,
    check_weight,
    encode_labels,
    has_columns,
    read_indicator,
    weigh_classes,
)
from sklearn_structreg.core.task import Task

__all__ = ["StructuredClassifier"]


@component
class StructuredClassifier(ClassifierMixin, StructuredEstimator):
    """A neural network as a scikit-learn classifier; regularizers give it structure.

    On its own this is the plain network. Give it any regularizers of this package or
    of your own, one or several together. Each method also has a classifier of its own
    with the parameters of its regularizer.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in sorted order. A class whose samples all have weight zero is absent.
    multilabel_ : bool
        Whether y was an indicator of several labels; `classes_` then counts them.
    n_features_in_ : int
        Features per sample, images flattened.
    feature_names_in_ : ndarray of shape (n_features,)
        Only where X had string column names.
    input_shape_ : tuple of int
        Shape of one sample as the module sees it.
    net_ : StructuredNet
        The private skorch net.
    module_ : torch.nn.Module
        The trained module.
    regularizers_ : mapping of str to Regularizer
        The fitted regularizers by name.
    history_ : skorch.history.History
        One row per epoch: losses, durations, and the regularizers' figures.
    n_iter_ : int
        Epochs trained.
    learning_rate_ : float
        The rate that the training began with.
    estimators_ : list of estimators
        Only with several `n_members`: each as an estimator that was fitted alone, with
        a `random_state` of its own. `net_`, `regularizers_`, `history_` and `n_iter_`
        are those of the first, and attributes or displays of a single network's
        structure are theirs alone.

    See Also
    --------
    StructuredRegressor : The same for numbers.

    Notes
    -----
    Sample weights are scaled to mean one. Weight zero means absent, in every
    configuration. Weight k equals k copies to the last bit where all rows fit in one
    batch, and in expectation over the order of the rows where they do not.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.preprocessing import minmax_scale
    >>> from sklearn_structreg.blockout import Blockout
    >>> from sklearn_structreg.cges import CGES
    >>> from sklearn_structreg.core import StructuredClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = minmax_scale(X)
    >>> net = StructuredClassifier(max_epochs=10, random_state=0)
    >>> net.fit(X, y).score(X, y) > 0.95
    True
    >>> net.set_params(regularizers=[Blockout(4), CGES(0.3)])
    StructuredClassifier(max_epochs=10, random_state=0,
                         regularizers=[Blockout(n_clusters=4), CGES(alpha=0.3)])
    >>> list(net.fit(X, y).regularizers_)
    ['blockout', 'cges']
    """

    class_weight: Mapping[Any, float] | str | None = parameter(
        None,
        [dict, StrOptions({"balanced"}), None],
        'dict, "balanced" or None',
        "Factors on the sample weights per class label.",
    )

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ArrayLike | Dataset[Any],
        y: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch on these samples, from the present weights.

        The optimizer keeps its state from call to call, but not that of a `fit` before;
        the learning rate is constant. Parameters set in between take effect, or are
        refused where the network's structure depends on them.

        Parameters
        ----------
        X, y : as in `fit`
            A single sample will do.
        classes : array-like of shape (n_classes,) or None, default=None
            All labels that will ever come. Required in the first call.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative; used as they are, so that they compare across calls.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            As in `fit`, and for labels that are none of the classes.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs all labels at once, which partial_fit "
                "never has; pass the weights as a dict {label: weight}."
            )
        fitted = self.classes_ if hasattr(self, "net_") else None
        if classes is None and fitted is None:
            raise ValueError(
                "classes must be passed on the first call to partial_fit: all labels "
                "that will ever come."
            )
        labels: Any = fitted
        if classes is not None:
            with explaining(f"classes={shown(classes)} cannot be used: {{}}."):
                labels = np.unique(check_labels(classes))
        if fitted is not None and not np.array_equal(labels, fitted):
            raise ValueError(
                f"classes={labels} is not the same as on the last call, {fitted}; they "
                "cannot change between calls to partial_fit."
            )
        self._partial_fit(X, y, sample_weight, classes_=labels)
        return self

    def _target_checks(self, y: Any) -> dict[str, bool]:
        several = y is not None and has_columns(y) and self._takes_labels()
        return {"multi_output": True} if several else {}

    def _takes_labels(self) -> bool:
        takes: bool = self.__sklearn_tags__().classifier_tags.multi_label
        return takes

    def _read_targets(self, rows: Any, y: Any, sample_weight: Any) -> TrainingData:
        if y is None:
            y = dataset_targets(rows)
        check_consistent_length(rows, y)
        seen = getattr(self, "classes_", None)
        multilabel = has_columns(y) and self._takes_labels()
        if multilabel != getattr(self, "multilabel_", multilabel):
            raise ValueError(
                "y must be labels, or an indicator of several, as in the first fit; "
                "fit anew."
            )
        weight = check_weight(sample_weight, len(rows))
        if multilabel:
            target = read_indicator(y, seen)
            encode = partial(read_indicator, classes=seen)
            classes = np.arange(target.shape[1])
            if self.class_weight is not None:
                raise ValueError(
                    "class_weight is for one label per sample, but y is an indicator; "
                    "pass sample_weight, or set class_weight=None."
                )
        else:
            y = check_labels(y)
            present = y if weight is None else y[weight > 0]
            classes = np.unique(present) if seen is None else seen
            target = encode_labels(y, classes, weight)
            encode = partial(encode_labels, classes=classes, weight=None)
            weight = weigh_classes(self.class_weight, classes, target, weight)
        self.classes_: NDArray[Any] = classes
        self.multilabel_: bool = multilabel
        return TrainingData.from_arrays(rows, target, weight, encode)

    @property
    def _task(self) -> Task:
        return Task.LABELS if self.multilabel_ else Task.CLASSES

    @property
    def _n_outputs(self) -> int:
        return len(self.classes_)

    def _as_plain(self) -> StructuredClassifier:
        """Return a classifier of no method with the targets of this one."""
        plain: StructuredClassifier = self._copy_as(
            StructuredClassifier, "classes_", "multilabel_"
        )
        return plain

    # ---- predicting ------------------------------------------------------------

    def predict(self, X: ArrayLike | Dataset[Any]) -> NDArray[Any]:
        """Return the most probable label of every sample.

        Parameters
        ----------
        X : as in `fit`
            Samples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels; for several per sample, an indicator of the probable ones.
        """
        return self._decide(self._logits(X))

    def predict_proba(
        self, X: ArrayLike | Dataset[Any], n_draws: int = 0
    ) -> NDArray[np.float64]:
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : as in `fit`
            Samples.
        n_draws : int, default=0
            0 is one pass in which nothing is dropped. Otherwise the mean over so many
            passes, each with a draw of the masks of all layers that drop or draw in
            training (Gal and Ghahramani, 2016): less certain where the draws disagree.
            The draws are the same in every call.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            Columns in the order of `classes_`; rows sum to one, unless a sample may
            have several labels: then each label has a probability of its own.
        """
        if not check_integer("n_draws", n_draws, 0):
            return self._probabilities(self._logits(X))
        total = sum(map(self._probabilities, self._drawn_logits(X, n_draws)))
        mean: NDArray[np.float64] = np.divide(total, n_draws)
        return mean

    def _probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        probabilities: NDArray[np.float64] = (
            expit(logits) if self.multilabel_ else softmax(logits, axis=1)
        )
        return probabilities

    def decision_function(self, X: ArrayLike | Dataset[Any]) -> NDArray[np.float64]:
        """Return the logits.

        Parameters
        ----------
        X : as in `fit`
            Samples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes), float64
            With two classes the log-odds of the second.
        """
        logits = self._logits(X)
        if logits.shape[1] == 2 and not self.multilabel_:
            return logits[:, 1] - logits[:, 0]
        return logits

    def _decide(self, logits: NDArray[np.float64]) -> NDArray[Any]:
        """Return the labels, or the indicator of them, that logits stand for."""
        if self.multilabel_:
            return (logits > 0).astype(np.int64)
        labels: NDArray[Any] = self.classes_[logits.argmax(axis=1)]
        return labels

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
