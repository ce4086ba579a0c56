"""DropCluster as a regularizer: a layer inserted into the network, and its clusters."""

from __future__ import annotations

import math
from typing import Any

import torch
from skorch.callbacks import Callback
from torch import nn

from sklearn_structreg.core.insertion import (
    find_insertion_point,
    first_tensor,
    insert_layer,
)
from sklearn_structreg.core.parameters import component
from sklearn_structreg.core.regularizer import (
    Regularizer,
    check_unchanged,
    same_value,
)
from sklearn_structreg.dropcluster.clusters import (
    MIN_CLUSTERS,
    pixel_graph,
    resolve_clusters,
)
from sklearn_structreg.dropcluster.folding import fold_masks
from sklearn_structreg.dropcluster.layers import (
    DropCluster1d,
    DropCluster2d,
    DropCluster3d,
    _DropCluster,
)
from sklearn_structreg.dropcluster.parameters import DropClusterParameters
from sklearn_structreg.dropcluster.update import ClusterUpdate, cluster_layers

__all__ = ["DropCluster"]

LAYERS = {1: DropCluster1d, 2: DropCluster2d, 3: DropCluster3d}
CLUSTERED_BY = ("n_clusters", "connectivity", "clusterer")
OF_LAYERS = (
    *CLUSTERED_BY,
    *("drop_rate", "mask_per", "rounding", "unstructured", "hopkins_threshold"),
)


@component
class DropCluster(DropClusterParameters, Regularizer):
    """Drop clusters of pixels that vary together.

    Every few epochs the pixels of each channel of a layer's feature maps are clustered
    by their variation over a mini-batch (`rena`). In training, random clusters are then
    dropped whole, so that their information cannot leak through neighbouring pixels. On
    request channels without structure are masked in training and in prediction.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    inserted_ : list of str
        Names of the inserted layers, each a `DropCluster2d` or the like.
    updated_ : list of str
        Names of all layers whose clusters are computed.

    See Also
    --------
    DropClusterClassifier : A classifier with this regularizer.

    Notes
    -----
    Clusters of an epoch come from its first mini-batches. A mini-batch of one sample is
    too small: with ``n_clusters="auto"`` the next epoch is tried instead, as after a
    `partial_fit` on a single row. ``batch_size=1`` takes more
    than one of them.

    References
    ----------
    L. Chen, P. Gautier, S. Aydore, "DropCluster: A structured dropout for convolutional
    networks", 2020: section 5, Algorithms 1 and 2.

    Examples
    --------
    In a skorch net of your own:

    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_digits
    >>> from torch import nn
    >>> from sklearn_structreg.core import RegularizerCallback
    >>> from sklearn_structreg.dropcluster import DropCluster
    >>> X, y = load_digits(return_X_y=True)
    >>> images = (X / 16).astype("float32").reshape(-1, 1, 8, 8)
    >>> module = nn.Sequential(
    ...     nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    >>> dropcluster = DropCluster(0.1, start_epoch=2, update_every=2)
    >>> net = NeuralNetClassifier(
    ...     module, criterion=nn.CrossEntropyLoss, lr=0.1, max_epochs=5, verbose=0,
    ...     callbacks=[("dropcluster", RegularizerCallback(dropcluster))])
    >>> net.fit(images, y).module_.get_submodule("0.inserted_layer")
    DropCluster2d(n_clusters=auto, drop_rate=0.1, 0 unstructured)
    """

    def attach(self, module: nn.Module, sample: Any) -> nn.Module:
        """Insert the layers, and list those to compute clusters for."""
        self.inserted_ = []
        self.seed_ = torch.initial_seed()
        names = [self.layer] if isinstance(self.layer, str) else list(self.layer or ())
        # All are found before the first one changes what a later one sees.
        points = [
            find_insertion_point(module, str(name), sample, MIN_CLUSTERS)
            for name in names
        ]
        for point in points:
            n_pixels = math.prod(point.shape[1:])
            resolve_clusters(self.n_clusters, n_pixels)
            pixel_graph(self.connectivity, n_pixels)
            layer = LAYERS[point.n_dims](**self._of_layers()).to(first_tensor(sample))
            self.inserted_.append(
                insert_layer(module, point.layer, layer, before=point.before)
            )
        # Layers of an earlier DropCluster of the same network have their own schedule.
        found = cluster_layers(module)
        self.updated_ = [n for n, x in found.items() if not x.is_scheduled]
        for name in self.updated_:
            found[name].is_scheduled = True
        if not found:
            raise ValueError(
                f"The module has no DropCluster layer, and layer={self.layer!r} adds "
                "none; name a layer, or set layer='auto'."
            )
        return module

    def _of_layers(self) -> dict[str, Any]:
        """Return the parameters that are the layers' own."""
        return {name: getattr(self, name) for name in OF_LAYERS}

    def resume(self, previous: Any, module: nn.Module) -> nn.Module:
        """Keep the layers and their clusters, unless others are wanted."""
        check_unchanged(previous, self, ["layer"])
        module = super().resume(previous, module)
        for name in self.inserted_:
            layer = module.get_submodule(name)
            assert isinstance(layer, _DropCluster)
            vars(layer).update(self._of_layers())
            if not all(
                same_value(getattr(previous, n), getattr(self, n)) for n in CLUSTERED_BY
            ):
                layer.clear_clusters()
        return module

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a file's state; the first files name a single layer, or none."""
        super().restore(state)
        if not isinstance(self.inserted_, list):
            self.inserted_ = [self.inserted_] if self.inserted_ else []

    def callbacks(self) -> list[tuple[str, Callback]]:
        """Update the clusters, if there is anything to drop."""
        if self.drop_rate == 0:
            return []
        schedule = self.start_epoch, self.update_every, self.n_batches
        return [("clusters", ClusterUpdate(*schedule, self.updated_, self.seed_))]

    def remedy_if_idle(self, module: nn.Module) -> str | None:
        """Begin earlier, if no layer has got clusters, though it has enough pixels."""
        found = cluster_layers(module)
        layers = [found[name] for name in self.updated_ if name in found]
        done = any(layer.is_active or layer.is_too_small for layer in layers)
        if done or self.drop_rate == 0:
            return None
        return f"lower start_epoch={self.start_epoch!r}"

    def simplify(self, module: nn.Module) -> nn.Module:
        """Fold the masks into the weights."""
        return fold_masks(module)
