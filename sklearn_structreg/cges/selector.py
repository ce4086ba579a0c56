"""CGESSelector: the input features that a network holds on to the longest."""

from __future__ import annotations

import os
import warnings
from dataclasses import asdict
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, _fit_context, clone, is_classifier
from sklearn.feature_selection import SelectorMixin
from sklearn.model_selection import check_cv
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from sklearn_structreg.cges.feature_path import (
    FeaturePath,
    feature_paths,
    rank_features,
)
from sklearn_structreg.core import StructuredClassifier, StructuredRegressor
from sklearn_structreg.core.estimator import StructuredEstimator
from sklearn_structreg.core.parameters import component, parameter
from sklearn_structreg.core.plain_values import from_plain, to_plain
from sklearn_structreg.core.processes import draw_seed
from sklearn_structreg.core.saving import (
    PlainState,
    check_place_to_save,
    read_estimator,
)
from sklearn_structreg.core.site import OnSite
from sklearn_structreg.core.state_files import write_state
from sklearn_structreg.core.targets import check_weight
from sklearn_structreg.core.versions import VersionedPickle, warn_of_other_versions

__all__ = ["CGESSelector"]

MANY_CLASSES, ROWS_PER_CLASS = 20, 3  # beyond which labels may be meant as numbers


@component
class CGESSelector(SelectorMixin, VersionedPickle, PlainState, OnSite, BaseEstimator):
    """Select the features that a network holds on to while a group penalty rises.

    The weights that leave an input feature are a group, and a group penalty sets whole
    groups to zero. Its strength grows until no feature is left; the later a feature
    dies, the better it is. So there is no strength to choose. The half of the features
    that lives longest goes through this once more, with a fresh network, and so on: a
    network finds features that only work together more easily among few.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    support_ : ndarray of bool, shape (n_features,)
        Marks the selected features.
    n_features_to_select_ : int
        Their number.
    ranking_ : ndarray of int, shape (n_features,)
        1 is the best feature, n_features the worst.
    scores_ : ndarray of shape (n_features,)
        The rounds that each feature survived, plus the share of its last one for which
        it lived.
    paths_ : list of FeaturePath
        One per round: the ``features``, and in every epoch the ``strengths`` of the
        penalty and the ``norms`` of the features' weights.
    cv_results_ : dict of str to ndarray
        Only with "cv": ``n_features``, ``mean_test_score`` and ``std_test_score``.
    estimator_ : StructuredClassifier or StructuredRegressor
        The network's description, not fitted.
    n_features_in_ : int
        Features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Only where X had string column names.

    See Also
    --------
    FeaturePathDisplay : Draws the path.
    CGESClassifier.feature_importances_ : The features of a single strength.

    Notes
    -----
    Sample weights act as in the estimators: zero means absent, and with all rows in one
    batch k equals k copies, but not with "cv", whose folds would part the copies.

    References
    ----------
    I. Lemhadri, F. Ruan, L. Abraham, R. Tibshirani, "LassoNet: A neural network with
    feature sparsity", JMLR 22, 2021: features along a path of strengths.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_structreg import CGESSelector
    >>> X = np.random.default_rng(0).standard_normal((500, 30))
    >>> y = X[:, 3] * X[:, 7] > 0
    >>> selector = CGESSelector(n_features_to_select=2, random_state=0).fit(X, y)
    >>> selector.get_support(indices=True)
    array([3, 7])
    """

    n_features_to_select: int | float | str = parameter(
        0.05,
        [
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="neither"),
            StrOptions({"cv"}),
        ],
        'int, float in (0, 1) or "cv"',
        """The number of features, or their share. "cv" is the smallest number for which
        the cross-validated score of `estimator` is within a standard error of the
        best.""",
        kw_only=False,
    )
    estimator: Any = parameter(
        None,
        [StructuredClassifier, StructuredRegressor, None],
        "estimator or None",
        """A classifier or regressor of this package, such as `CGESRegressor`: the
        network of the path, and with "cv" the one to score. Its `max_epochs`, and the
        parameters of its method, have no part in the path. None is a perceptron trained
        by Adam: for classes, or for numbers where y has fractions.""",
    )
    cv: Any = parameter(
        5,
        ["cv_object"],
        "int, splitter or iterable",
        'The folds of "cv", as in scikit-learn.',
    )
    random_state: int | np.random.RandomState | None = parameter(
        None,
        ["random_state"],
        "int, RandomState instance or None",
        "Seeds the networks.",
    )

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Rank the features.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, an indicator of several labels per sample, or numbers.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative; zero means absent.

        Returns
        -------
        self : object
            The fitted selector.

        Raises
        ------
        ValueError
            If there are fewer features than asked for, or as in the `fit` of the
            networks.
        """
        checked: Any = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=[np.float64, np.float32],
            multi_output=True,
            ensure_min_samples=2,
        )
        rows, targets = checked
        weight = check_weight(sample_weight, rows.shape[0])
        if weight is not None:
            rows, targets, weight = (e[weight > 0] for e in (rows, targets, weight))
        self.estimator_ = self._resolve_estimator(targets)
        n_features = rows.shape[1]
        wanted = self.n_features_to_select
        if isinstance(wanted, Integral) and wanted > n_features:
            raise ValueError(
                f"n_features_to_select={wanted} is more than n_features={n_features}; "
                "select fewer."
            )
        seed = draw_seed(self.random_state)
        if wanted == "cv":
            n_selected = self._cross_validate(rows, targets, weight, seed)
        elif isinstance(wanted, Integral):
            n_selected = int(wanted)
        else:
            n_selected = max(1, int(wanted * n_features))
        self.paths_ = feature_paths(self.estimator_, rows, targets, weight, seed)
        order, self.scores_ = rank_features(self.paths_)
        self.ranking_: NDArray[np.intp] = np.empty(n_features, np.intp)
        self.ranking_[order] = np.arange(1, n_features + 1)
        self.n_features_to_select_ = n_selected
        self.support_: NDArray[np.bool_] = self.ranking_ <= n_selected
        return self

    def _resolve_estimator(self, y: NDArray[Any]) -> StructuredEstimator:
        """Return the network's estimator: the given one, or one that suits y."""
        if self.estimator is not None:
            if isinstance(self.estimator.module, nn.Module) or (
                self.estimator.image_shape is not None
            ):
                raise ValueError(
                    "The networks have fewer features from round to round, so the "
                    "estimator's module must be 'auto', a class or a factory, and its "
                    "image_shape None."
                )
            estimator: StructuredEstimator = clone(self.estimator)
            return estimator
        with warnings.catch_warnings():  # of many classes
            warnings.simplefilter("ignore", UserWarning)
            kind = type_of_target(y)
        n_values = len(np.unique(y)) if kind == "multiclass" else 0
        if n_values > MANY_CLASSES and ROWS_PER_CLASS * n_values > len(y):
            raise ValueError(
                f"y has {n_values} different values in {len(y)} samples, which may be "
                "classes or numbers; pass estimator=CGESClassifier() or "
                "estimator=CGESRegressor()."
            )
        numbers = kind.startswith("continuous")
        return (StructuredRegressor if numbers else StructuredClassifier)(
            optimizer="adam"
        )

    def _cross_validate(
        self, X: NDArray[Any], y: Any, weight: NDArray[Any] | None, seed: int
    ) -> int:
        """Return the smallest number of features about as good as the best one."""
        n_features = X.shape[1]
        sizes = np.unique([*2 ** np.arange(n_features.bit_length()), n_features])
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator_))
        scores = []
        for train, test in splitter.split(X, y):
            fit_weight, test_weight = (
                (None, None) if weight is None else (weight[train], weight[test])
            )
            paths = feature_paths(self.estimator_, X[train], y[train], fit_weight, seed)
            order, _ = rank_features(paths)
            net = clone(self.estimator_).set_params(random_state=seed)
            row = []
            for size in sizes:
                columns = order[:size]
                net.fit(X[train][:, columns], y[train], fit_weight)
                row.append(net.score(X[test][:, columns], y[test], test_weight))
            scores.append(row)
        mean, std = np.mean(scores, axis=0), np.std(scores, axis=0)
        self.cv_results_ = {
            "n_features": sizes,
            "mean_test_score": mean,
            "std_test_score": std,
        }
        best = mean.argmax()
        error = std[best] / np.sqrt(max(1, len(scores) - 1))
        return int(sizes[np.argmax(mean >= mean[best] - error)])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted selector to a file that holds numbers and names, no code.

        Parameters
        ----------
        path : path-like
            The file. One that is there stays whole until the new one is.

        Raises
        ------
        NotFittedError
            If the selector is not fitted.
        FileNotFoundError, IsADirectoryError
            If there is no such folder, or if the path is one.
        TypeError
            If a parameter is of a class that a file cannot name, such as a splitter.
        ValueError
            If the path ends in ".onnx" or ".pt2", formats of `export`.
        """
        check_is_fitted(self, "support_")
        check_place_to_save(path)
        parameters, fitted = self._plain_parameters(), self._plain_fitted()
        fitted["estimator_"] = to_plain(self.estimator_, "estimator")
        fitted["paths_"] = [asdict(each) for each in self.paths_]
        write_state(path, self._header() | {"parameters": parameters, "fitted": fitted})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a selector from a file that `save` has written; no code in it is run.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        self : object
            The fitted selector.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, holds another class, or has a newer format.
        """
        state = read_estimator(path, cls.__name__)
        warn_of_other_versions(cls.__name__, state["versions"])
        fitted, selector = state["fitted"], cls(**from_plain(state["parameters"]))
        fitted["estimator_"] = from_plain(fitted["estimator_"])
        fitted["paths_"] = [FeaturePath(**each) for each in fitted["paths_"]]
        selector._restore(fitted, None)
        return selector

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self, "support_")
        return self.support_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
