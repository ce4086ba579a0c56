"""New clusters for DropCluster layers: once, or on a schedule in a skorch net."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from skorch.utils import to_tensor
from torch import Tensor, nn

from sklearn_structreg.core.inspection import run_until
from sklearn_structreg.core.randomness import derive_seed, seeded
from sklearn_structreg.dropcluster.layers import _DropCluster

__all__ = ["ClusterUpdate", "cluster_layers", "update_clusters"]


def cluster_layers(module: nn.Module) -> dict[str, _DropCluster]:
    """Return the DropCluster layers of a network by name."""
    return {n: x for n, x in module.named_modules() if isinstance(x, _DropCluster)}


def update_clusters(
    module: nn.Module,
    batch: Any,
    sample_weight: Tensor | None = None,
    random_state: int | None = None,
    layers: Collection[_DropCluster] | None = None,
) -> None:
    """Compute new clusters for DropCluster layers (None is all) from a mini-batch.

    Algorithm 1 of the DropCluster paper, on the unmasked inputs of the layers. The
    network runs once in evaluation mode, as far as the last of them.
    """

    def update(layer: _DropCluster) -> Callable[[Tensor], None]:
        return lambda maps: layer.update_clusters(maps, sample_weight, random_state)

    layers = cluster_layers(module).values() if layers is None else layers
    run_until(module, batch, {x: update(x) for x in layers}, before=True)


class ClusterUpdate(Callback):
    """Compute the clusters of the named layers before the epochs in which they are due.

    They come from a training mini-batch: for the estimators the first of the epoch. The
    training's own random numbers stay as they are.
    """

    def __init__(
        self,
        start_epoch: int | str,
        update_every: int | str,
        layers: Collection[str],
        seed: int,
    ) -> None:
        self.start_epoch = start_epoch
        self.update_every = update_every
        self.layers = layers
        self.seed = seed

    def on_train_begin(self, net: NeuralNet, X: Any = None, **kwargs: Any) -> None:
        """Refuse mini-batches too small to cluster before any work is done."""
        batch_size = getattr(getattr(net, "recipe", net), "batch_size", None)
        if batch_size == 1:
            raise ValueError(
                "batch_size=1 is too small to cluster: at least two samples show which "
                "pixels vary together; raise batch_size."
            )
        if getattr(X, "sizes", [2])[0] < 2 and self._is_due(net, len(net.history)):
            for layer in self._layers(net):
                layer.check_n_samples(1)

    def on_epoch_begin(
        self, net: NeuralNet, dataset_train: Any = None, **kwargs: Any
    ) -> None:
        """Compute the clusters if they are due."""
        epoch = len(net.history)  # the one that begins, from 1
        if not self._is_due(net, epoch - 1):
            return
        # A net of this package has a seed, which orders the rows of the epoch.
        seed = derive_seed(getattr(net, "seed", self.seed), epoch)
        with seeded(seed, torch.device(net.device)):
            batch, weight = _first_batch(net, dataset_train, seed)
        layers = self._layers(net)
        update_clusters(net.module_, batch, weight, seed % 2**32, layers)

    def _layers(self, net: NeuralNet) -> list[_DropCluster]:
        return [net.module_.get_submodule(name) for name in self.layers]

    def _is_due(self, net: NeuralNet, n_trained: int) -> bool:
        fifth = net.max_epochs // 5
        start, every = self.start_epoch, self.update_every
        since = n_trained - (fifth if isinstance(start, str) else start)
        period = max(1, fifth) if isinstance(every, str) else every
        # Where a mini-batch was too small, the next one is tried.
        late = not any(layer.is_active for layer in self._layers(net))
        return since >= 0 and (since % period == 0 or late)


def _first_batch(net: NeuralNet, dataset: Any, seed: int) -> tuple[Any, Tensor | None]:
    """Return a mini-batch of the training data and its weights."""
    if hasattr(dataset, "epoch"):
        X, _, weight = next(dataset.epoch(seed))
        return X, weight
    X, _ = unpack_data(next(iter(net.get_iterator(dataset, training=True))))
    return to_tensor(X, device=net.device), None
