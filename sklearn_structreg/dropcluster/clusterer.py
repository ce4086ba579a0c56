"""ReNA as a scikit-learn transformer of features."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from math import prod
from numbers import Integral
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from sklearn_structreg.core.checks import check_table
from sklearn_structreg.core.device import resolve_device
from sklearn_structreg.core.parameters import Number
from sklearn_structreg.core.site import OnSite
from sklearn_structreg.core.versions import VersionedPickle
from sklearn_structreg.dropcluster.blocks import cluster_blocks
from sklearn_structreg.dropcluster.images import flatten_images, split_shape
from sklearn_structreg.dropcluster.lattice import graph_edges, lattice_edges
from sklearn_structreg.dropcluster.rena import ReNAResult, rena
from sklearn_structreg.dropcluster.tensors import as_tensor


class ReNAClusterer(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    VersionedPickle,
    OnSite,
    BaseEstimator,
):
    """Group neighbouring features that vary together, and keep one number per group.

    Recursive nearest agglomeration (ReNA): every feature links to its nearest
    neighbour on a graph, linked features become one cluster, and so on until
    `n_clusters` are left. That takes a few passes over `X`, whatever the number of
    clusters, while Ward clustering makes one merge at a time.

    Parameters
    ----------
    n_clusters : int, default=2
        Clusters to find, at most the number of features.
    connectivity : sparse matrix or array-like of shape (n_features, n_features), \
            default=None
        Symmetric graph of the features that may be joined; values other than zero and
        the diagonal do not matter.
        `sklearn.feature_extraction.image.grid_to_graph` (with its `mask` where only
        some pixels are features) and k-nearest-neighbour graphs (made
        symmetric) can be passed as they are.
    image_shape : tuple of 1 to 4 ints, default=None
        Lattice whose neighbours are joined: (length,), (height, width), (channels,
        height, width) or (channels, depth, height, width). A row of `X` is such an
        array, flattened in C order; pixels of different channels are not joined. For
        regions shared by the channels pass ``X.reshape(n * C, H * W)``, so that
        channels are samples. None takes the shape from an `X` of more than two
        dimensions, (n_samples, height, width) or (n_samples, channels, height, width)
        and so on; with neither `connectivity` nor such images the features are a chain,
        each joined to the next.
    scaling : {"mean", "orthonormal"}, default="mean"
        `transform` gives each cluster's mean, or that times the square root of its
        size: the product with the matrix of Eq. 1, whose rows are orthonormal. Then
        `inverse_transform` is the product with its transpose, and distances between
        samples that are constant on the clusters stay as they are.
    max_iter : int, default=1000
        Most rounds of agglomeration. Each at least halves the number of clusters, so
        the default never cuts a fit short.
    device : str or torch.device, default="cpu"
        Where to fit: "cpu", "cuda", or "auto" for a GPU if there is one.

    Attributes
    ----------
    labels_ : ndarray of int64, shape (n_features,)
        Cluster of each feature, numbered in the order of their first features.
    n_clusters_ : int
        Clusters found: `n_clusters`, or more where `converged_` is False.
    n_iter_ : int
        Rounds of agglomeration made.
    converged_ : bool
        Whether `n_clusters` was reached. It cannot be on a graph of more components.
    n_features_in_ : int
        Number of features seen during `fit`.
    feature_names_in_ : ndarray of str, shape (n_features,)
        Names of the features, where `X` had them.

    See Also
    --------
    sklearn_structreg.dropcluster.rena : The same on tensors, for many channels at once.
    sklearn.cluster.FeatureAgglomeration : Exact Ward clustering of features.

    Notes
    -----
    Distances are squared and Euclidean, over samples, weighted by `sample_weight`. A
    round represents a new cluster by the mean of the clusters that it joins, whatever
    their sizes, as published, and whatever the `scaling`. Equal distances are broken
    by feature number, so the result does not depend on chance, and multiplying `X` by a
    power of two changes nothing at all.

    References
    ----------
    Section 3 of L. Chen, P. Gautier, S. Aydore, "DropCluster: A structured dropout for
    convolutional networks", 2020, after A. Hoyos-Idrobo, G. Varoquaux, J. Kahn and
    B. Thirion, "Recursive nearest agglomeration (ReNA): fast clustering for
    approximation of structured signals", IEEE TPAMI 41(3), 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.dropcluster import ReNAClusterer
    >>> X = load_digits().data
    >>> clusterer = ReNAClusterer(n_clusters=16, image_shape=(8, 8)).fit(X)
    >>> clusterer.transform(X).shape
    (1797, 16)
    >>> clusterer.labels_.reshape(8, 8)[:3]
    array([[0, 0, 0, 1, 1, 2, 3, 4],
           [0, 5, 6, 1, 1, 2, 3, 4],
           [0, 5, 6, 7, 7, 2, 3, 4]])
    """

    _parameter_constraints = {  # noqa: RUF012 (scikit-learn's way to declare them)
        "n_clusters": [Number(Integral, 1, None, closed="left")],
        "connectivity": ["array-like", "sparse matrix", None],
        "image_shape": [Sequence, np.ndarray, None],
        "scaling": [StrOptions({"mean", "orthonormal"})],
        "max_iter": [Number(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
    }

    def __init__(
        self,
        n_clusters: int = 2,
        *,
        connectivity: Any = None,
        image_shape: Sequence[int] | None = None,
        scaling: str = "mean",
        max_iter: int = 1000,
        device: str | torch.device = "cpu",
    ) -> None:
        self.n_clusters = n_clusters
        self.connectivity = connectivity
        self.image_shape = image_shape
        self.scaling = scaling
        self.max_iter = max_iter
        self.device = device

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the clusters of features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Data. float32 and float64 are computed in their own precision.
        y : None
            Not used.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the distances: 0 leaves a sample out, 2 counts it
            twice.

        Returns
        -------
        ReNAClusterer
            The fitted object.

        Raises
        ------
        ValueError
            If `n_clusters` is more than the features, if `connectivity` or
            `image_shape` does not fit them, or if no sample has positive weight.

        Warns
        -----
        ConvergenceWarning
            If the graph falls into more components than `n_clusters`, or `max_iter`
            was too low.
        """
        self._validate_params()
        check_table(X, "X")
        images, dtypes = X, [np.float64, np.float32]
        X = validate_data(self, flatten_images(X), dtype=dtypes, order="C")
        n_features = X.shape[1]
        self._check_n_clusters(n_features)
        weight = None
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=X.dtype)
            weight = torch.tensor(sample_weight)
        shape, edges = self._graph(images, n_features)
        own = getattr(images, "shape", ())[1:]
        self._shape = own if len(own) > 1 else self.image_shape
        data = as_tensor(X).to(resolve_device(self.device))
        result = rena(
            data.view(len(X), 1, *shape),
            self.n_clusters,
            edges=edges,
            sample_weight=weight,
            max_iter=self.max_iter,
        )
        return self._conclude(result)

    def fit_blocks(
        self,
        blocks: Iterable[Any],
        *,
        mapper: Callable[..., Iterable[Tensor]] = map,
    ) -> Self:
        """Find the clusters of features of data in blocks of rows, wherever they are.

        The clusters are those of all rows together in double precision, up to the order
        of sums. Every round reads all blocks once, and a block sends back a number for
        each edge of the graph; some log2(n_features / n_clusters) rounds do.

        Parameters
        ----------
        blocks : iterable of array-likes, or of references to them
            Rows, (n_samples, n_features) or images as for `fit`, such as slices of a
            memory map. It is iterated in every round, so not a generator.
        mapper : callable, default=map
            ``mapper(function, blocks)`` returns the function's value of each block:
            another `map`, such as that of a `concurrent.futures` executor, or one that
            runs where the blocks are, on a cluster.

        Returns
        -------
        ReNAClusterer
            The fitted object.

        Raises
        ------
        ValueError
            If neither `image_shape` nor `connectivity` tells the number of features, or
            blocks do not have it; if there is no block.

        Warns
        -----
        ConvergenceWarning
            As in `fit`.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_digits
        >>> from sklearn_structreg.dropcluster import ReNAClusterer
        >>> X = load_digits().data
        >>> clusterer = ReNAClusterer(n_clusters=16, image_shape=(8, 8))
        >>> in_blocks = clusterer.fit_blocks(np.array_split(X, 5)).labels_
        >>> bool((in_blocks == clusterer.fit(X).labels_).all())
        True
        """
        self._validate_params()
        if self.connectivity is not None:
            n_features = np.shape(self.connectivity)[0]
        elif self.image_shape is not None:
            n_features = prod(self.image_shape)
        else:
            raise ValueError(
                "the number of features is not known before the blocks are read: set "
                "image_shape, (n_features,) for a chain, or connectivity."
            )
        self._check_n_clusters(n_features)
        shape, edges = self._graph(None, n_features)
        edges = lattice_edges(shape) if edges is None else edges
        result = cluster_blocks(
            blocks, n_features, self.n_clusters, edges, self.max_iter, mapper
        )
        self.n_features_in_ = n_features
        self._shape = self.image_shape
        return self._conclude(result)

    def _check_n_clusters(self, n_features: int) -> None:
        if self.n_clusters > n_features:
            raise ValueError(
                f"n_clusters={self.n_clusters} is more than n_features={n_features}: "
                "ask for at most one cluster per feature."
            )

    def _conclude(self, result: ReNAResult) -> Self:
        """Keep the clusters, and warn if they are too many."""
        self.labels_: npt.NDArray[np.int64] = result.labels.flatten().cpu().numpy()
        self.n_clusters_ = int(result.n_clusters)
        self.n_iter_ = result.n_iter
        self.converged_ = self.n_clusters_ == self.n_clusters
        if not self.converged_:
            warnings.warn(
                f"ReNA stopped at {self.n_clusters_} clusters instead of "
                f"{self.n_clusters}: either the graph has that many unconnected parts "
                f"(join them, or ask for more clusters), or max_iter={self.max_iter} "
                "is too low.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def transform(self, X: Any) -> npt.NDArray[np.floating[Any]]:
        """Average the features of each cluster, or project on the matrix of Eq. 1.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Data.

        Returns
        -------
        ndarray of shape (n_samples, n_clusters)
            One value per cluster, by `scaling`, in the dtype of `X` if it is float32 or
            float64.
        """
        check_is_fitted(self)
        if getattr(X, "ndim", 2) > 2 and self._shape is not None:
            split_shape(self._shape, X, self.n_features_in_)
        dtypes = [np.float64, np.float32]
        X = validate_data(self, flatten_images(X), dtype=dtypes, reset=False)
        labels, values = torch.from_numpy(self.labels_), as_tensor(X)
        sums = values.new_zeros(len(X), self.n_clusters_).index_add_(1, labels, values)
        sizes = torch.bincount(labels, minlength=self.n_clusters_).to(sums)
        return (sums / (sizes.sqrt() if self._is_orthonormal else sizes)).numpy()

    def inverse_transform(self, X: Any) -> npt.NDArray[np.floating[Any]]:
        """Give every feature the mean of its cluster.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_clusters)
            One value per cluster.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            One value per feature, constant in each cluster.
        """
        check_is_fitted(self)
        X = check_array(X, dtype=[np.float64, np.float32])
        if X.shape[1] != self.n_clusters_:
            raise ValueError(
                f"X has {X.shape[1]} columns, but there are {self.n_clusters_} "
                "clusters: pass the result of transform."
            )
        if self._is_orthonormal:
            X = X / np.sqrt(np.bincount(self.labels_)).astype(X.dtype)
        values: npt.NDArray[np.floating[Any]] = X[:, self.labels_]
        return values

    @property
    def _is_orthonormal(self) -> bool:
        return self.scaling == "orthonormal"

    def _graph(self, X: Any, n_features: int) -> tuple[tuple[int, ...], Tensor | None]:
        """Return the lattice of the features, or any shape and its edges."""
        if self.connectivity is not None:
            if self.image_shape is not None:
                raise ValueError(
                    "connectivity and image_shape both define the neighbours of a "
                    "feature: pass one of them."
                )
            return (n_features,), graph_edges(self.connectivity, n_features)
        n_channels, shape = split_shape(self.image_shape, X, n_features)
        if n_channels == 1:
            return shape, None
        first = prod(shape) * torch.arange(n_channels)[:, None]
        return (n_features,), (lattice_edges(shape)[:, None] + first).flatten(1)

    @property
    def _n_features_out(self) -> int:
        """Number of clusters, for get_feature_names_out."""
        return self.n_clusters_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.three_d_array = True
        return tags
