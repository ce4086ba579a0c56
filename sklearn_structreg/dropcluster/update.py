"""Compute clusters anew: once, or on a schedule in a skorch net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from torch import Tensor, nn

from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.randomness import derive_seed, seeded
from sklearn_structreg.dropcluster.layers import _DropCluster
from sklearn_structreg.dropcluster.places import run_until

__all__ = ["DropClusterUpdate", "update_clusters"]


def update_clusters(
    module: nn.Module,
    batch: Any,
    sample_weight: Tensor | None = None,
    random_state: int | None = None,
) -> None:
    """Compute the clusters of all DropCluster layers of a network.

    Algorithm 1 of the DropCluster paper, on what reaches the layers unmasked. The
    network runs once in evaluation mode, as far as the last of the layers: no
    gradients, no running statistics, no random numbers.

    Parameters
    ----------
    module : torch.nn.Module
        The network. Its DropCluster layers take new clusters; nothing else changes.
    batch : torch.Tensor of shape (n, ...)
        A training mini-batch, as the network takes it, on its device.
    sample_weight : Tensor of shape (n,), default=None
        0 is an absent sample, 2 is two copies of it.
    random_state : int or None, default=None
        For layers with ``unstructured="hopkins"``.

    Raises
    ------
    ValueError
        As from the layers' own ``update_clusters``.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sklearn_structreg.dropcluster import DropCluster2d, update_clusters
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), DropCluster2d(6), nn.ReLU())
    >>> update_clusters(net, torch.rand(8, 1, 10, 10))
    >>> net[1].cluster_labels.shape
    torch.Size([4, 8, 8])
    """

    def update(layer: _DropCluster) -> Callable[[Tensor], None]:
        return lambda maps: layer.update_clusters(maps, sample_weight, random_state)

    hooks = {layer: update(layer) for layer in _layers(module)}
    run_until(module, batch, hooks, before=True)


class DropClusterUpdate(Callback):
    """Compute the clusters of a skorch net's DropCluster layers on a schedule.

    Before the epoch in which they are due, from the first mini-batch that the net's
    iterator gives for the training data: its activations are not masked, all channels
    are clustered in one call, and the net's own random numbers stay as they are.

    Parameters
    ----------
    start_epoch : int, default=50
        Epochs to train before there are clusters; until then nothing is dropped.
    update_every : int, default=50
        Epochs between updates.
    random_state : int, default=0
        With the number of the epoch it seeds the choice of the mini-batch, so that
        training goes on after a pickle round trip as if nothing had happened. The nets
        of this package's estimators have seeds of their own, which come first.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_digits
    >>> from torch import nn
    >>> from sklearn_structreg.dropcluster import DropCluster2d, DropClusterUpdate
    >>> X, y = load_digits(return_X_y=True)
    >>> images = (X / 16).astype("float32").reshape(-1, 1, 8, 8)
    >>> module = nn.Sequential(nn.Conv2d(1, 8, 3), DropCluster2d(6), nn.ReLU(),
    ...                        nn.Flatten(), nn.Linear(288, 10))
    >>> update = DropClusterUpdate(start_epoch=2, update_every=2)
    >>> net = NeuralNetClassifier(
    ...     module, criterion=nn.CrossEntropyLoss, lr=0.1, max_epochs=5, verbose=0,
    ...     iterator_train__shuffle=True, callbacks=[("clusters", update)])
    >>> net.fit(images, y).module_[1].is_active
    True
    """

    def __init__(
        self, start_epoch: int = 50, update_every: int = 50, random_state: int = 0
    ) -> None:
        self.start_epoch = start_epoch
        self.update_every = update_every
        self.random_state = random_state

    def on_train_begin(self, net: NeuralNet, X: Any = None, **kwargs: Any) -> None:
        """Check, before any work is done, that there is something to do."""
        layers = _layers(net.module_)
        if not layers:
            raise ValueError(
                "The module has no DropCluster layer to update; put one in, or insert "
                "one with sklearn_structreg.dropcluster.insert_layer."
            )
        if self.start_epoch < 0 or self.update_every < 1:
            raise ValueError(
                f"start_epoch={self.start_epoch} must be at least 0 and "
                f"update_every={self.update_every} at least 1."
            )
        if getattr(X, "sizes", [2])[0] < 2 and self._is_due(net, len(net.history)):
            for layer in layers:
                layer.check_n_samples(1)

    def on_epoch_begin(
        self, net: NeuralNet, dataset_train: Any = None, **kwargs: Any
    ) -> None:
        """Update the clusters if it is time."""
        epoch = len(net.history)  # the one that begins, from 1
        if not self._is_due(net, epoch - 1):
            return
        own = net.seed if isinstance(net, StructuredNet) else self.random_state
        seed = derive_seed(own, epoch)
        batch, weight = _first_batch(net, dataset_train, seed)
        update_clusters(_AsCalled(net), batch, weight, seed % 2**32)

    def _is_due(self, net: NeuralNet, n_trained: int) -> bool:
        since = n_trained - self.start_epoch
        # Where a mini-batch was too small, the next one is tried.
        late = not any(layer.is_active for layer in _layers(net.module_))
        return since >= 0 and (since % self.update_every == 0 or late)


class _AsCalled(nn.Module):
    """A net's module that takes batches as the net does: also dicts of inputs."""

    def __init__(self, net: NeuralNet) -> None:
        super().__init__()
        self.module = net.module_
        self._infer = net.infer

    def forward(self, batch: Any) -> Any:
        return self._infer(batch)


def _layers(module: nn.Module) -> list[_DropCluster]:
    return [part for part in module.modules() if isinstance(part, _DropCluster)]


def _first_batch(net: NeuralNet, dataset: Any, seed: int) -> tuple[Any, Tensor | None]:
    """Return a mini-batch of the training data and its weights.

    From the core's batches it is the first one that the epoch will train on.
    """
    if hasattr(dataset, "epoch"):
        X, _, weight = next(dataset.epoch(seed))
        return X, weight
    with seeded(seed, torch.device(net.device)):
        X, _ = unpack_data(next(iter(net.get_iterator(dataset, training=True))))
    return X, None
