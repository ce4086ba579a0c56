"""DropClusterClassifier and DropClusterRegressor: networks with DropCluster."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sklearn_structreg.core.classifier import StructuredClassifier
from sklearn_structreg.core.insertion import as_maps
from sklearn_structreg.core.inspection import run_until
from sklearn_structreg.core.parameters import component
from sklearn_structreg.core.regressor import StructuredRegressor
from sklearn_structreg.dropcluster.feature_maps import feature_maps
from sklearn_structreg.dropcluster.hopkins import spatial_hopkins
from sklearn_structreg.dropcluster.layers import _DropCluster
from sklearn_structreg.dropcluster.parameters import DropClusterParameters
from sklearn_structreg.dropcluster.regularizer import DropCluster
from sklearn_structreg.dropcluster.update import cluster_layers

__all__ = ["DropClusterClassifier", "DropClusterRegressor"]

ANALYSIS_ROWS = 128  # per forward pass that keeps feature maps


class _ClusterAttributes:
    """The clusters of a fitted estimator."""

    _one_module: torch.nn.Module

    @property
    def n_clusters_(self) -> int:
        """Clusters per channel of the first layer; 0 as long as there are none."""
        layer = self._cluster_layer()
        return layer.cluster_sizes.shape[1] if layer is not None else 0

    @property
    def cluster_labels_(self) -> NDArray[np.int64]:
        """Cluster of each pixel of each channel."""
        labels: NDArray[np.int64] = self._clustered().cluster_labels.cpu().numpy()
        return labels

    @property
    def structured_channels_(self) -> NDArray[np.bool_]:
        """Channels that are not masked."""
        structured = self._clustered().structured_channels
        mask: NDArray[np.bool_] = structured.cpu().numpy()
        return mask

    def clustered_maps(
        self, X: ArrayLike
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
        """Return the feature maps whose pixels are clustered, unmasked.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Samples.

        Returns
        -------
        inputs : ndarray of shape (n_samples, ...)
            The samples as the network takes them.
        maps : ndarray of shape (n_samples, n_channels, ...)
            The feature maps.
        """
        layer, inputs, maps = self._clustered(), [], []
        see = {layer: lambda x: maps.append(as_maps(x, layer.n_dims).cpu())}
        for batch in self._analysis_batches(X):
            inputs.append(batch.cpu())
            run_until(self._one_module, batch, see, before=True)
        return torch.cat(inputs).numpy(), torch.cat(maps).numpy()

    def layer_hopkins(
        self, X: ArrayLike, layers: str | Collection[str] | None = None
    ) -> dict[str, NDArray[np.floating[Any]]]:
        """Compute the Spatial Hopkins statistic of every channel of every layer.

        It shows at which layer there is structure to cluster: near 0.5 there is none,
        towards 1 there is more (section 4.2 and Fig. 8 of the paper).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Samples; a mini-batch is enough.
        layers : str or collection of str, default=None
            Names of layers, or "input", flat features being a chain; None is every
            layer with a spatial output. The results are in forward order.

        Returns
        -------
        dict of str to ndarray of shape (n_samples, n_channels)
            NaN where a channel is constant.

        See Also
        --------
        sklearn_structreg.dropcluster.LayerHopkinsDisplay : Its histograms.
        """
        found: dict[str, list[Tensor]] = {}
        for batch in self._analysis_batches(X):
            for name, maps in feature_maps(self._one_module, batch, layers).items():
                seed = self.net_.seed  # type: ignore[attr-defined]
                statistic = spatial_hopkins(maps, random_state=seed)
                found.setdefault(name, []).append(statistic.cpu())
        return {name: torch.cat(parts).numpy() for name, parts in found.items()}

    def _analysis_batches(self, X: ArrayLike) -> list[Tensor]:
        check_is_fitted(self, "net_")
        batches = self._batches_to_predict(X, ANALYSIS_ROWS)  # type: ignore[attr-defined]
        return [batch for batch, _, _ in batches.epoch(None)]

    def _cluster_layer(self) -> _DropCluster | None:
        """Return the first inserted layer, or else the module's, if it is active."""
        check_is_fitted(self, "net_")
        layers = cluster_layers(self._one_module)
        own = self.regularizers_["dropcluster"].inserted_  # type: ignore[attr-defined]
        layer = layers[next(iter(own or layers))]
        return layer if layer.is_active else None

    def _clustered(self) -> _DropCluster:
        layer = self._cluster_layer()
        if layer is None:
            raise AttributeError(
                "There are no clusters: they are computed from start_epoch on, with a "
                "drop_rate above 0, on maps that are large enough."
            )
        return layer


@component
class DropClusterClassifier(
    _ClusterAttributes, DropClusterParameters, StructuredClassifier
):
    """Classifier with DropCluster: data-driven structured dropout.

    Every few epochs the pixels of each channel of a layer's feature maps are clustered
    by their variation over a mini-batch (`rena`). In training, random clusters are then
    dropped whole, so that their information cannot leak through neighbouring pixels. On
    request channels without structure are masked in training and in prediction.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    cluster_labels_ : ndarray of int64, shape (C, H, W), (C, L) or (C, D, H, W)
        Cluster of each pixel of each channel; only once they have been computed. Of
        several layers this and the next two are the first's.
    structured_channels_ : ndarray of bool, shape (C,)
        Channels that are not masked; only once there are clusters.
    n_clusters_ : int
        Clusters per channel; 0 as long as there are none.
    classes_, multilabel_, n_features_in_, feature_names_in_, input_shape_, net_, \
            module_, regularizers_, history_, n_iter_
        As in :class:`~sklearn_structreg.core.StructuredClassifier`.

    See Also
    --------
    sklearn_structreg.dropcluster.DropCluster : The regularizer, for any estimator of
        this package and for skorch nets of your own; with notes and references.
    DropClusterRegressor : The same for numbers.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg import DropClusterClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = DropClusterClassifier(image_shape=(1, 8, 8), max_epochs=5, random_state=0)
    >>> net = net.fit(X, y)
    >>> net.cluster_labels_.shape, net.n_clusters_
    ((32, 8, 8), 15)
    """

    _regularizers: ClassVar = (DropCluster,)


@component
class DropClusterRegressor(
    _ClusterAttributes, DropClusterParameters, StructuredRegressor
):
    """Regressor with DropCluster: data-driven structured dropout.

    It trains as `DropClusterClassifier` does, with the squared error of standardized
    targets as its loss.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    cluster_labels_, structured_channels_, n_clusters_
        As in `DropClusterClassifier`.
    target_mean_, target_scale_, n_features_in_, feature_names_in_, input_shape_, \
            net_, module_, regularizers_, history_, n_iter_
        As in :class:`~sklearn_structreg.core.StructuredRegressor`.

    See Also
    --------
    DropClusterClassifier : The same for classes.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg import DropClusterRegressor
    >>> X, y = load_digits(return_X_y=True)
    >>> net = DropClusterRegressor(image_shape=(1, 8, 8), max_epochs=5,
    ...                            learning_rate=0.01, random_state=0)
    >>> net.fit(X, y).score(X, y) > 0.5
    True
    """

    _regularizers: ClassVar = (DropCluster,)
