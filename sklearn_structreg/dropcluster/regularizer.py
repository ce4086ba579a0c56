"""DropCluster and its rivals as a `Regularizer`: one layer put into the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field

from skorch.callbacks import Callback
from torch import Tensor, nn

from sklearn_structreg.core import Regularizer
from sklearn_structreg.dropcluster.clusters import resolve_n_clusters
from sklearn_structreg.dropcluster.depth import StochasticDepth, residual_branches
from sklearn_structreg.dropcluster.dropblock import (
    DropBlock1d,
    DropBlock2d,
    DropBlock3d,
)
from sklearn_structreg.dropcluster.insertion import (
    insert_layer,
    inserted_layers,
    remove_layers,
)
from sklearn_structreg.dropcluster.layers import (
    DropCluster1d,
    DropCluster2d,
    DropCluster3d,
    _DropCluster,
)
from sklearn_structreg.dropcluster.places import Place, find_place
from sklearn_structreg.dropcluster.update import DropClusterUpdate

__all__ = ["REGULARIZERS", "DropClusterRegularizer"]

REGULARIZERS = ("dropcluster", "dropblock", "spatial", "dropout", "stochastic_depth")
PAPER_BLOCK = 5
MARK = "_of_estimator"  # tells the estimator's layers from those a user has inserted

_CLUSTERS = (DropCluster1d, DropCluster2d, DropCluster3d)
_BLOCKS = (DropBlock1d, DropBlock2d, DropBlock3d)
_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@dataclass(eq=False)
class DropClusterRegularizer(Regularizer):
    """Insert a dropping layer, and keep its clusters up to date.

    Parameters
    ----------
    regularizer, n_clusters, drop_rate, layer, unstructured, hopkins_threshold, draw, \
            block_size
        As in `DropClusterClassifier`.
    start_epoch, update_every : int
        The schedule, in epochs.

    Attributes
    ----------
    places_ : list of Place
        Where layers have been inserted, once attached.
    """

    regularizer: str | None = "dropcluster"
    _: KW_ONLY
    n_clusters: int | str = "auto"
    drop_rate: float = 0.1
    start_epoch: int = 50
    update_every: int = 50
    layer: str | Sequence[str] = "auto"
    unstructured: str | None = "auto"
    hopkins_threshold: float = 0.55
    draw: str = "stochastic"
    block_size: int | str = "auto"
    places_: list[Place] = field(default_factory=list, init=False)

    def attach(self, module: nn.Module, sample_batch: Tensor) -> nn.Module:
        """Insert the layers; those that a warm start brings along keep their state."""
        own = [n for n, x in inserted_layers(module).items() if hasattr(x, MARK)]
        old = remove_layers(module, own)  # a user's own stay
        self.places_ = self._find_places(module, sample_batch)
        for place in self.places_:
            layer = self._make_layer(place).to(sample_batch.device)
            insert_layer(module, place.layer, layer, before=place.before)
            setattr(layer, MARK, True)
        for name, layer in inserted_layers(module).items():
            before = old.get(name)
            if isinstance(layer, _DropCluster) and isinstance(before, _DropCluster):
                layer.resume(before)
        return module

    def callbacks(self) -> list[tuple[str, Callback]]:
        """Update the clusters, where there are any."""
        if self.regularizer != "dropcluster" or not self.places_:
            return []
        return [("clusters", DropClusterUpdate(self.start_epoch, self.update_every))]

    def _find_places(self, module: nn.Module, sample: Tensor) -> list[Place]:
        match self.regularizer:
            case None:
                return []
            case "dropcluster":
                if not isinstance(self.layer, str):
                    raise ValueError(
                        "regularizer='dropcluster' takes one layer, but layer="
                        f"{list(self.layer)}; give one name."
                    )
                place = find_place(module, self.layer, sample)
                n_pixels = math.prod(place.shape[1:])
                return [place] if resolve_n_clusters(self.n_clusters, n_pixels) else []
            case "stochastic_depth":
                return self._find_branches(module, sample)
        least = 0 if self.regularizer == "dropout" else 1
        return [
            find_place(module, name, sample, min_pixels=least) for name in self._names()
        ]

    def _names(self) -> list[str]:
        names = [self.layer] if isinstance(self.layer, str) else list(self.layer)
        if not names:
            raise ValueError(
                "layer is empty; name at least one layer, or set regularizer=None."
            )
        return names

    def _find_branches(self, module: nn.Module, sample: Tensor) -> list[Place]:
        names = self._names()
        if names == ["auto"]:
            names = residual_branches(module)
            if not names:
                raise ValueError(
                    "No residual branch was found for regularizer='stochastic_depth'; "
                    "name the last layer of every branch as layer=[...]."
                )
        places = [find_place(module, name, sample, min_pixels=0) for name in names]
        if any(place.before for place in places):
            raise ValueError(
                "regularizer='stochastic_depth' drops residual branches, but the input "
                "is none; name the last layer of every branch as layer=[...]."
            )
        return places

    def _make_layer(self, place: Place) -> nn.Module:
        kind = max(len(place.shape) - 2, 0)  # of a layer for 1, 2 or 3 dimensions
        match self.regularizer:
            case "dropcluster":
                return _CLUSTERS[kind](
                    self.n_clusters,
                    self.drop_rate,
                    draw=self.draw,
                    unstructured=self.unstructured,
                    hopkins_threshold=self.hopkins_threshold,
                )
            case "dropblock":
                return _BLOCKS[kind](self._block(place.shape[1:]), self.drop_rate)
            case "spatial":
                if place.before and place.shape[0] == 1:
                    raise ValueError(
                        "regularizer='spatial' drops whole channels, but the input is "
                        "a single one; name a layer with several."
                    )
                return _CHANNELS[kind](self.drop_rate)
            case "dropout":
                return nn.Dropout(self.drop_rate)
        return StochasticDepth(self.drop_rate)

    def _block(self, shape: Sequence[int]) -> list[int]:
        """Return the sides of a block: "auto" is at most half the map's."""
        if isinstance(self.block_size, str):
            return [min(PAPER_BLOCK, max(1, side // 2)) for side in shape]
        if self.block_size > min(shape):
            raise ValueError(
                f"block_size={self.block_size} does not fit into maps of shape "
                f"{tuple(shape)}; give a smaller one, or block_size='auto'."
            )
        return [self.block_size] * len(shape)
