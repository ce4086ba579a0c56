"""The estimator: a fitted model's scores in, groups of confused classes out."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_structreg.core.parameters import component, parameter
from sklearn_structreg.core.site import OnSite
from sklearn_structreg.core.targets import check_weight
from sklearn_structreg.core.versions import VersionedPickle
from sklearn_structreg.selfinformed.confusion import (
    SparseSum,
    check_counts,
    confusion_counts,
    top_k_indicator,
)
from sklearn_structreg.selfinformed.defaults import resolve_top_k
from sklearn_structreg.selfinformed.grouping import CountedGroups
from sklearn_structreg.selfinformed.labels import (
    check_classes,
    check_truth,
    infer_classes,
    read_truth,
)
from sklearn_structreg.selfinformed.spectral import (
    one_hot,
)

SOURCES = ("confusion", "codetection", "precomputed")
NUMBER = [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})]


@component
class ConfusionSpectralPartitioner(
    CountedGroups,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    VersionedPickle,
    OnSite,
    BaseEstimator,
):
    """Group the classes that a fitted model confuses with each other.

    Counts, over held-out samples, which classes are among the top K scores where a
    class is true (the paper's Eqs. 1-3), or which classes are among the top K together
    (Eq. 4), and applies Ng-Jordan-Weiss spectral clustering to the similarity
    ``B = A^T A`` of the classes' prediction profiles [1]_, [2]_. B is not formed: the
    cost follows the number of distinct confusions, not the square of the classes.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    labels_ : ndarray of shape (n_classes,)
        The group of each class, from 0, numbered by first appearance.
    clusters_ : list of ndarray
        The classes of each group, out of `classes_`.
    n_clusters_ : int
        The number of groups.
    confusion_ : csr_array of shape (n_classes, n_classes)
        The transpose of Eq. 3's A: the fraction of samples in which the column's class
        is detected and the row's is true; symmetric for co-detections. For a
        precomputed source the given counts, added up over all batches.
    embedding_ : ndarray of shape (n_classes, n_clusters)
        The unit rows that k-means grouped; zero for isolated classes.
    isolated_ : ndarray of shape (n_classes,)
        Marks the classes that share no detection with another. One that is detected
        joins the group for whose classes it is detected most; the others join the
        largest group.
    top_k_ : int or None
        The number of detections per sample; None for a precomputed source.
    hierarchy_ : ndarray of shape (n_clusters - 1, 4)
        How the groups join to larger ones, computed on request: a linkage matrix as
        :func:`scipy.cluster.hierarchy.dendrogram` takes it, by the mean cosine distance
        of the groups' confusions.
    source_ : {"confusion", "codetection", "precomputed"}
        The source in use.
    classes_ : ndarray of shape (n_classes,)
        The label of each column of X.
    n_samples_seen_ : float
        The total weight of the rows of X.
    n_features_in_ : int
        The number of classes.
    feature_names_in_ : ndarray of shape (n_classes,)
        The column names, if X is a DataFrame with names that are strings.

    See Also
    --------
    sklearn.cluster.SpectralClustering : Spectral clustering of a given similarity.

    Notes
    -----
    The groups after `partial_fit` or `merge` are computed when one of the attributes
    that depend on them is first used, so that counting many batches costs no clustering
    in between; groups that the counts cannot support are reported then.

    References
    ----------
    .. [1] D. Warde-Farley, A. Rabinovich, D. Anguelov, "Self-informed neural network
       structure learning", ICLR workshop, 2015, section 4.
    .. [2] A. Ng, M. Jordan, Y. Weiss, "On spectral clustering: analysis and an
       algorithm", NIPS, 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_structreg.selfinformed import ConfusionSpectralPartitioner
    >>> confusion = np.array(
    ...     [[40, 9, 1, 0], [8, 42, 0, 0], [0, 1, 45, 4], [0, 0, 6, 44]]
    ... )
    >>> partitioner = ConfusionSpectralPartitioner(
    ...     2,
    ...     source="precomputed",
    ...     classes=["cat", "dog", "bus", "car"],
    ...     random_state=0,
    ... ).fit(confusion)
    >>> [group.tolist() for group in partitioner.clusters_]
    [['cat', 'dog'], ['bus', 'car']]
    """

    n_clusters: int | str = parameter(
        "auto",
        NUMBER,
        'int or "auto"',
        """The number of groups. "auto" is the number of eigenvalues of the similarity
        above the largest gap between them, if that is clear, and else the paper's 6;
        at least 2, and at most half the classes that are confused at all.""",
        kw_only=False,
    )
    source: str = parameter(
        "auto",
        [StrOptions({"auto", *SOURCES})],
        '{"auto", "confusion", "codetection", "precomputed"}',
        """The quantity to count. "confusion" needs y; "codetection" ignores it; "auto"
        is the first where there is a y and the second where there is none. With
        "precomputed", X is a confusion matrix C as
        :func:`sklearn.metrics.confusion_matrix` gives it, dense or sparse, truth in
        rows; the similarity is ``C C^T``.""",
    )
    top_k: int | str = parameter(
        "auto",
        NUMBER,
        'int or "auto"',
        """The number of best scores that are detections; less than the number of
        classes. "auto" is the paper's share of the classes, 100 of 17,000, at least 2
        and at most 100. A class tied with others across the boundary is no
        detection.""",
    )
    classes: ArrayLike | None = parameter(
        None,
        ["array-like", None],
        "array-like of shape (n_classes,)",
        """The label of each column of X; pass a classifier's `classes_`. None stands
        for the column names of a DataFrame, if the labels are among them; in `fit`, for
        the sorted labels, if there are as many as columns; else for column numbers.
        Labels 0, 1, ... beyond the columns are then classes that the scores do not
        cover.""",
    )
    random_state: int | np.random.RandomState | None = parameter(
        None,
        ["random_state"],
        "int, RandomState instance or None",
        """Start vectors of the eigensolver and k-means. An int gives the same groups at
        every call.""",
    )

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Count the confusions of held-out samples and group the classes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_classes)
            Scores, one column per class, the higher the likelier; a confusion matrix
            for a precomputed source, which alone may be sparse.
        y : array-like of shape (n_samples,) or (n_samples, n_classes), default=None
            Labels, or a label indicator (dense or sparse) for multilabel truth.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative; a weight of k counts a sample k times. The rows of a
            precomputed confusion matrix are weighted alike: they are the true classes.

        Returns
        -------
        self : ConfusionSpectralPartitioner

        Raises
        ------
        ValueError
            If X and y do not fit each other, or the parameters ask for more groups or
            detections than there are classes.
        """
        self._count(X, y, sample_weight, reset=True, whole=True)
        self._partitioned()
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Add the confusions of a batch of held-out samples to the counts.

        The first batch decides `source_`, `top_k_` and `classes_`. Batches in any order
        and of any size give what `fit` gives on all of them, provided that `classes`
        is given or the labels are column numbers: a batch need not hold every label.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        self : ConfusionSpectralPartitioner
        """
        reset = not hasattr(self, "_counts")
        self._count(X, y, sample_weight, reset=reset, whole=False)
        return self

    def merge(self, other: ConfusionSpectralPartitioner) -> Self:
        """Add the counts of another partitioner, as if its samples had been seen here.

        Workers can each count a part of the held-out data with `partial_fit`;
        ``functools.reduce(ConfusionSpectralPartitioner.merge, partitioners)`` then
        gives the partition of the whole, in the first of them.

        Parameters
        ----------
        other : ConfusionSpectralPartitioner
            A partitioner that has counted the same source with the same K over the same
            classes. It is not changed.

        Returns
        -------
        self : ConfusionSpectralPartitioner

        Raises
        ------
        ValueError
            If the two counted another source, K or other classes.
        """
        check_is_fitted(self)
        check_is_fitted(other)
        for name in ("source_", "top_k_", "classes_"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if not np.array_equal(mine, theirs):
                raise ValueError(
                    f"Counts add up only over the same source, top_k and classes, but "
                    f"{name} is {mine!r} here and {theirs!r} in the other partitioner."
                )
        self._add(other._counts.value(), other.n_samples_seen_)
        return self

    def transform(self, X: Any) -> NDArray[np.floating]:
        """Sum the scores of each group.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_classes)
            Scores; for probabilities, the result is the probability of each group.

        Returns
        -------
        mass : ndarray of shape (n_samples, n_clusters)
            The sum of each sample's scores over the classes of a group.
        """
        check_is_fitted(self)
        X = self._validate_scores(X, reset=False)
        return np.asarray(X @ one_hot(self.labels_, self.n_clusters_).astype(X.dtype))

    @property
    def _n_features_out(self) -> int:
        """The number of columns that `transform` returns."""
        return self.n_clusters_

    def _count(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool, whole: bool
    ) -> None:
        """Validate one batch and add its counts, with `reset` to no others."""
        self._validate_params()
        X = self._validate_scores(X, reset=reset)
        source = self.source if reset else self.source_
        if source == "auto":
            source = "codetection" if y is None else "confusion"
        y = self._check_y(X, y, source)
        if reset:
            names = getattr(self, "feature_names_in_", None)
            classes = (
                infer_classes(y, X.shape[1], names, whole=whole)
                if self.classes is None
                else check_classes(self.classes, X.shape[1])
            )
            top_k = resolve_top_k(self.top_k, X.shape[1], source)
        else:
            classes, top_k = self.classes_, self.top_k_
        weight = check_weight(sample_weight, X.shape[0])
        if top_k is None:
            counts = check_counts(X)
            if weight is not None:
                counts = sparse.diags_array(weight, format="csr") @ counts
                counts.eliminate_zeros()
        else:
            detected = top_k_indicator(X, top_k)
            strict = self.classes is not None
            truth = detected if y is None else read_truth(y, classes, strict=strict)
            counts = confusion_counts(detected, truth, weight)
        with np.errstate(over="ignore"):
            weight_sum = float(X.shape[0] if weight is None else weight.sum())
        if not np.isfinite(weight_sum):
            raise ValueError(
                "sample_weight has an infinite sum; scale the weights down."
            )
        if reset:
            self._counts = SparseSum()
            self.source_: str = source
            self.top_k_: int | None = top_k
            self.classes_: NDArray[Any] = classes
            self.n_samples_seen_ = 0.0
        self._add(counts, weight_sum)

    def _validate_scores(self, X: Any, *, reset: bool) -> Any:
        """Check scores, or a confusion matrix, for type, finiteness and width."""
        precomputed = self.source == "precomputed"
        return validate_data(
            self,
            X,
            reset=reset,
            accept_sparse="csr" if precomputed else False,
            dtype=np.float64 if precomputed else (np.float64, np.float32),
        )

    def _check_y(self, X: Any, y: Any, source: str) -> Any:
        """Check the truth of confusions; all other sources have none."""
        if source != "confusion":
            return None
        if y is None:
            raise ValueError(
                f"{type(self).__name__} counting confusions requires y to be passed, "
                "but the target y is None; pass it, or set source='codetection'."
            )
        return check_truth(y, X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        precomputed = self.source == "precomputed"
        tags.target_tags.required = self.source == "confusion"
        tags.input_tags.pairwise = precomputed
        tags.input_tags.positive_only = precomputed
        tags.input_tags.sparse = precomputed
        tags.transformer_tags.preserves_dtype = (
            ["float64"] if precomputed else ["float64", "float32"]
        )
        return tags
