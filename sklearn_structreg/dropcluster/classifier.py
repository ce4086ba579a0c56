"""DropClusterClassifier: a network that drops the pixels that move together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sklearn_structreg.compaction import compact
from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.core.modules import ModuleLike
from sklearn_structreg.dropcluster.deploy import fold_masks
from sklearn_structreg.dropcluster.hopkins import spatial_hopkins
from sklearn_structreg.dropcluster.insertion import inserted_layers
from sklearn_structreg.dropcluster.layers import _DropCluster
from sklearn_structreg.dropcluster.places import feature_maps, run_until
from sklearn_structreg.dropcluster.regularizer import (
    MARK,
    REGULARIZERS,
    DropClusterRegularizer,
)
from sklearn_structreg.dropcluster.shapes import as_maps

__all__ = ["DropClusterClassifier"]

ANALYSIS_ROWS = 128  # per forward pass that keeps feature maps


class DropClusterClassifier(StructuredClassifier):
    """Neural network with DropCluster: data-driven structured dropout.

    Every few epochs the pixels of each channel of a layer's feature maps are clustered
    by how they vary over a mini-batch (`rena`). In training, random clusters are then
    dropped whole, so that their information cannot leak through neighbouring pixels;
    channels without structure are masked in training and in prediction.

    Parameters
    ----------
    module : "auto", torch.nn.Module class, instance or factory, default="auto"
        The network.
    regularizer : {"dropcluster", "dropblock", "spatial", "dropout", \
            "stochastic_depth"} or None, default="dropcluster"
        What is dropped at `layer`: clusters of pixels, square blocks, whole channels,
        single values, or (at the end of residual branches) whole branches. None is the
        plain network.
    n_clusters : int or "auto", default="auto"
        Clusters per channel. "auto" is the paper's 15, at most a quarter of the pixels;
        on fewer than four pixels nothing is dropped.
    drop_rate : float in [0, 1), default=0.1
        Share of the clusters to drop, or the rate of the other regularizers. With 0 and
        ``unstructured=None`` this is the plain network, bit for bit.
    start_epoch : int or "auto", default="auto"
        Epochs to train before the first clusters are computed; until then nothing is
        dropped. "auto" is a fifth of `max_epochs`, as in the paper.
    update_every : int or "auto", default="auto"
        Epochs between updates of the clusters. "auto" is a fifth of `max_epochs`.
    layer : str or sequence of str, default="auto"
        Name of the layer whose output is regularized, as ``module_.named_modules()``
        has it, or "input". "auto" is the first convolution; without one it is the
        input, flat features being a chain in their order. Several names are for
        the other regularizers; for "stochastic_depth" they are the last layers of
        the residual branches, and "auto" finds these.
    unstructured : {"auto", "hopkins"} or None, default="auto"
        Which channels are masked altogether: "auto" those with fewer different pixels
        than clusters (dead, or nearly), "hopkins" also those whose mean Spatial Hopkins
        statistic is below `hopkins_threshold`, None none.
    hopkins_threshold : float in [0, 1], default=0.55
        Noise has 0.5.
    draw : {"stochastic", "floor"}, default="stochastic"
        How many of the n clusters go: "stochastic" rounds ``drop_rate * n`` up or down
        at random, so that the share is `drop_rate` on average; "floor" takes the
        integer below, as the paper does.
    block_size : int or "auto", default="auto"
        Side of the blocks of "dropblock". "auto" is the paper's 5, at most half a side
        of the map.
    module_params, hidden_layer_sizes, image_shape
    max_epochs, batch_size, optimizer, learning_rate, momentum, weight_decay
    lr_schedule, class_weight, early_stopping, validation_fraction
    n_iter_no_change, callbacks, device, dtype, warm_start, random_state, verbose
        Common to all estimators: see
        :class:`~sklearn_structreg.core.StructuredClassifier`.

    Attributes
    ----------
    cluster_labels_ : ndarray of int64, shape (C, H, W), (C, L) or (C, D, H, W)
        Cluster of each pixel of each channel; only once they have been computed.
    structured_channels_ : ndarray of bool, shape (C,)
        Channels that are not masked; only once there are clusters.
    n_clusters_ : int
        Clusters per channel; 0 as long as there are none.
    classes_, n_features_in_, feature_names_in_, input_shape_, net_, module_, \
            history_, n_iter_
        Common to all estimators.

    See Also
    --------
    sklearn_structreg.dropcluster.DropClusterUpdate : The clusters' schedule as a
        callback of a skorch net of your own, with layers such as
        `sklearn_structreg.dropcluster.DropCluster2d`.

    Notes
    -----
    Clusters of an epoch come from its first mini-batch. A mini-batch of one sample is
    too small: with ``n_clusters="auto"`` the next epoch is tried instead, as after a
    `partial_fit` on a single row. ``batch_size=1`` is refused.

    References
    ----------
    L. Chen, P. Gautier, S. Aydore, "DropCluster: A structured dropout for convolutional
    networks", 2020: section 5, Algorithms 1 and 2.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg import DropClusterClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = DropClusterClassifier(image_shape=(1, 8, 8), max_epochs=5, random_state=0)
    >>> net = net.fit(X / 16, y)
    >>> net.cluster_labels_.shape, net.n_clusters_
    ((32, 8, 8), 15)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **StructuredClassifier._parameter_constraints,
        "regularizer": [StrOptions(set(REGULARIZERS)), None],
        "n_clusters": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "drop_rate": [Interval(Real, 0, 1, closed="left")],
        "start_epoch": [
            Interval(Integral, 0, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "update_every": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "layer": [str, "array-like"],
        "unstructured": [StrOptions({"auto", "hopkins"}), None],
        "hopkins_threshold": [Interval(Real, 0, 1, closed="both")],
        "draw": [StrOptions({"stochastic", "floor"})],
        "block_size": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
    }

    def __init__(
        self,
        module: ModuleLike = "auto",
        *,
        regularizer: str | None = "dropcluster",
        n_clusters: int | str = "auto",
        drop_rate: float = 0.1,
        start_epoch: int | str = "auto",
        update_every: int | str = "auto",
        layer: str | Sequence[str] = "auto",
        unstructured: str | None = "auto",
        hopkins_threshold: float = 0.55,
        draw: str = "stochastic",
        block_size: int | str = "auto",
        module_params: Mapping[str, Any] | None = None,
        hidden_layer_sizes: Sequence[int] = (100,),
        image_shape: Sequence[int] | None = None,
        max_epochs: int = 100,
        batch_size: int | None = 128,
        optimizer: str | type[torch.optim.Optimizer] = "sgd",
        learning_rate: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        lr_schedule: str | Callable[..., Any] | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        callbacks: list[Any] | None = None,
        device: str | torch.device = "auto",
        dtype: str = "float32",
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            module,
            module_params=module_params,
            hidden_layer_sizes=hidden_layer_sizes,
            image_shape=image_shape,
            max_epochs=max_epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            lr_schedule=lr_schedule,
            class_weight=class_weight,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            callbacks=callbacks,
            device=device,
            dtype=dtype,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
        )
        self.regularizer = regularizer
        self.n_clusters = n_clusters
        self.drop_rate = drop_rate
        self.start_epoch = start_epoch
        self.update_every = update_every
        self.layer = layer
        self.unstructured = unstructured
        self.hopkins_threshold = hopkins_threshold
        self.draw = draw
        self.block_size = block_size

    def _make_regularizer(self) -> DropClusterRegularizer:
        fifth = self.max_epochs // 5
        start, every = self.start_epoch, self.update_every
        if self.regularizer == "dropcluster" and self.batch_size == 1:
            raise ValueError(
                "batch_size=1 is too small to cluster: which pixels vary together "
                "takes at least two samples; raise batch_size."
            )
        return DropClusterRegularizer(
            self.regularizer,
            n_clusters=self.n_clusters,
            drop_rate=self.drop_rate,
            start_epoch=fifth if isinstance(start, str) else start,
            update_every=max(1, fifth) if isinstance(every, str) else every,
            layer=self.layer,
            unstructured=self.unstructured,
            hopkins_threshold=self.hopkins_threshold,
            draw=self.draw,
            block_size=self.block_size,
        )

    # ---- the clusters ----------------------------------------------------------

    @property
    def n_clusters_(self) -> int:
        """Clusters per channel; 0 as long as there are none."""
        layer = self._layer()
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
        """Return the feature maps that clusters are computed of, unmasked.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Samples.

        Returns
        -------
        inputs : ndarray of shape (n_samples, ...)
            The samples as the network gets them.
        maps : ndarray of shape (n_samples, n_channels, ...)
            The feature maps.
        """
        check_is_fitted(self, "net_")
        layer, inputs, maps = self._clustered(), [], []
        see = {layer: lambda x: maps.append(as_maps(x, layer.n_dims).cpu())}
        for batch, _, _ in self._batches_to_predict(X, ANALYSIS_ROWS).epoch(None):
            inputs.append(batch.cpu())
            run_until(self.module_, batch, see, before=True)
        return torch.cat(inputs).numpy(), torch.cat(maps).numpy()

    def layer_hopkins(
        self, X: ArrayLike, layers: str | Collection[str] | None = None
    ) -> dict[str, NDArray[np.floating[Any]]]:
        """Compute the Spatial Hopkins statistic of every channel of every layer.

        It says at which layer there is structure to cluster: near 0.5 there is none,
        towards 1 there is more (section 4.2 and Fig. 8 of the paper).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W)
            Samples; a mini-batch says enough.
        layers : str or collection of str, default=None
            Names of layers, or "input", flat features being a chain; None is every
            layer with a spatial output. The answer is in forward order.

        Returns
        -------
        dict of str to ndarray of shape (n_samples, n_channels)
            NaN where a channel is constant.

        See Also
        --------
        sklearn_structreg.dropcluster.LayerHopkinsDisplay : Its histograms.
        """
        check_is_fitted(self, "net_")
        found: dict[str, list[Tensor]] = {}
        for batch, _, _ in self._batches_to_predict(X, ANALYSIS_ROWS).epoch(None):
            for name, maps in feature_maps(self.module_, batch, layers).items():
                statistic = spatial_hopkins(maps, random_state=self.net_.seed)
                found.setdefault(name, []).append(statistic.cpu())
        return {name: torch.cat(parts).numpy() for name, parts in found.items()}

    def compact(self, *, unsupported: str = "raise") -> torch.nn.Module:
        """Return a network for deployment: smaller, without the dropping layer.

        Masked channels are removed physically, with the weights that make and read
        them: see :func:`~sklearn_structreg.dropcluster.fold_masks` and
        :func:`~sklearn_structreg.compaction.compact`.

        Parameters
        ----------
        unsupported : {"raise", "keep"}, default="raise"
            What to do about layers that compaction has no rule for.

        Returns
        -------
        torch.nn.Module
            On the device of `module_`, in evaluation mode, with the same outputs.

        Raises
        ------
        ValueError
            If the network cannot be compacted; names the layer.
        """
        check_is_fitted(self, "net_")
        network = fold_masks(self.module_).eval()
        parameter = next(network.parameters())
        rng = np.random.default_rng(0)
        sample = torch.from_numpy(rng.normal(size=(4, *self.input_shape_)))
        return compact(network, sample.to(parameter), unsupported=unsupported).eval()

    def _layer(self) -> _DropCluster | None:
        """Return the DropCluster layer, if it has clusters."""
        for layer in inserted_layers(self.module_).values():
            if (
                isinstance(layer, _DropCluster)
                and layer.is_active
                and hasattr(layer, MARK)
            ):
                return layer
        return None

    def _clustered(self) -> _DropCluster:
        layer = self._layer()
        if layer is None:
            raise AttributeError(
                "There are no clusters: they are computed from start_epoch on, for "
                "regularizer='dropcluster', on maps that are large enough."
            )
        return layer
