"""New clusters for DropCluster layers: once, or on a schedule in a skorch net."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import islice
from numbers import Integral
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping
from skorch.dataset import unpack_data
from skorch.utils import to_tensor
from torch import Tensor, nn

from sklearn_structreg.core.inspection import run_until
from sklearn_structreg.core.randomness import derive_seed, seeded
from sklearn_structreg.core.schedules import forget_best
from sklearn_structreg.dropcluster.layers import _DropCluster

__all__ = ["ClusterUpdate", "cluster_layers", "update_clusters"]

FIFTH = 0.2  # "auto"; the paper's 50 of some 250 epochs
Weighted = tuple[Any, Tensor | None]
"""A mini-batch and the weights of its samples."""


def cluster_layers(module: nn.Module) -> dict[str, _DropCluster]:
    """Return the DropCluster layers of a network by name."""
    return {n: x for n, x in module.named_modules() if isinstance(x, _DropCluster)}


def update_clusters(
    module: nn.Module,
    batch: Any,
    sample_weight: Tensor | None = None,
    random_state: int | None = None,
    layers: Collection[_DropCluster] | None = None,
    earlier: Sequence[Weighted] = (),
) -> None:
    """Compute new clusters for DropCluster layers (None is all) from a mini-batch.

    Algorithm 1 of the DropCluster paper, on the unmasked inputs of the layers. The
    network runs once in evaluation mode, as far as the last of them; as often for each
    of the `earlier` mini-batches, whose maps count as well.
    """
    layers = cluster_layers(module).values() if layers is None else layers
    known: dict[_DropCluster, list[Tensor]] = {layer: [] for layer in layers}

    def keep(layer: _DropCluster) -> Callable[[Tensor], None]:
        return lambda maps: known[layer].append(maps.clone())

    def update(layer: _DropCluster) -> Callable[[Tensor], None]:
        def with_earlier(maps: Tensor) -> None:
            every = [*known[layer], maps]
            weight = _weights([*(w for _, w in earlier), sample_weight], every)
            layer.update_clusters(torch.cat(every), weight, random_state)

        return with_earlier

    for X, _ in earlier:
        run_until(module, X, {x: keep(x) for x in layers}, before=True)
    run_until(module, batch, {x: update(x) for x in layers}, before=True)


def _weights(parts: Sequence[Tensor | None], maps: Sequence[Tensor]) -> Tensor | None:
    """Join the weights of mini-batches, ones where there are none."""
    if all(part is None for part in parts):
        return None
    pairs = zip(parts, maps, strict=True)
    return torch.cat([x.new_ones(len(x)) if w is None else w for w, x in pairs])


class ClusterUpdate(Callback):
    """Compute the clusters of the named layers before the epochs in which they are due.

    They come from training mini-batches: for the estimators the first of the epoch. The
    training's own random numbers stay as they are.
    """

    def __init__(
        self,
        start_epoch: float | str,
        update_every: float | str,
        n_batches: int,
        layers: Collection[str],
        seed: int,
    ) -> None:
        self.start_epoch = FIFTH if isinstance(start_epoch, str) else start_epoch
        self.update_every = FIFTH if isinstance(update_every, str) else update_every
        self.n_batches = n_batches
        self.layers = layers
        self.seed = seed

    def on_train_begin(self, net: NeuralNet, X: Any = None, **kwargs: Any) -> None:
        """Refuse mini-batches too small to cluster before any work is done."""
        batch_size = getattr(getattr(net, "recipe", net), "batch_size", None)
        if batch_size == 1 and self.n_batches == 1:
            raise ValueError(
                "batch_size=1 is too small to cluster: at least two samples show which "
                "pixels vary together; raise batch_size, or n_batches."
            )
        if getattr(X, "sizes", [2])[0] < 2 and self._is_due(net, len(net.history)):
            for layer in self._layers(net):
                layer.check_n_samples(sum(X.sizes[: self.n_batches]))

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
            *earlier, last = _first_batches(net, dataset_train, seed, self.n_batches)
        layers, idle = self._layers(net), self._is_idle(net)
        update_clusters(net.module_, *last, seed % 2**32, layers, earlier)
        if idle:  # the losses of a net without dropping do not compare
            forget_best(net)

    def _layers(self, net: NeuralNet) -> list[_DropCluster]:
        return [net.module_.get_submodule(name) for name in self.layers]

    def _is_idle(self, net: NeuralNet) -> bool:
        return not any(layer.is_active for layer in self._layers(net))

    def _is_due(self, net: NeuralNet, n_trained: int) -> bool:
        """Whether clusters are due after so many epochs or calls."""
        at = self._first(net)
        if n_trained > at and self._is_idle(net):
            return True  # where a mini-batch was too small, the next one is tried
        while at < n_trained:
            at += self._period(net, at)
        return at == n_trained

    def _first(self, net: NeuralNet) -> int:
        """Return the epochs or calls before the first clusters."""
        if isinstance(self.start_epoch, Integral):
            return int(self.start_epoch)
        if getattr(net, "is_open_ended", False):
            return 1
        stops = [x for _, x in net.callbacks_ if isinstance(x, EarlyStopping)]
        latest = [net.max_epochs - 1, *(stop.patience for stop in stops)]
        share: int = min(_share(self.start_epoch, net.max_epochs), *latest)
        return share

    def _period(self, net: NeuralNet, n_before: int) -> int:
        """Return the epochs or calls to the next clusters."""
        if isinstance(self.update_every, Integral):
            return int(self.update_every)
        is_open_ended = getattr(net, "is_open_ended", False)
        whole = n_before if is_open_ended else net.max_epochs
        return max(1, _share(self.update_every, whole))


def _share(share: float, whole: int) -> int:
    return int(round(share * whole, 9))  # 0.29 * 100 is 28.999999999999996


def _first_batches(
    net: NeuralNet, dataset: Any, seed: int, n_batches: int
) -> list[Weighted]:
    """Return mini-batches of the training data and their weights."""
    if hasattr(dataset, "epoch"):
        return [(X, w) for X, _, w in islice(dataset.epoch(seed), n_batches)]
    found = islice(net.get_iterator(dataset, training=True), n_batches)
    return [(to_tensor(unpack_data(b)[0], device=net.device), None) for b in found]
