"""DropCluster as a torch layer, for signals, images and volumes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sklearn_structreg.dropcluster.clusters import find_clusters, resolve_n_clusters
from sklearn_structreg.dropcluster.masks import cluster_mask, draw_clusters
from sklearn_structreg.dropcluster.shapes import as_maps, check_drop_rate

__all__ = ["DropCluster1d", "DropCluster2d", "DropCluster3d"]

DRAWS = ("stochastic", "floor")
UNSTRUCTURED = ("auto", "hopkins", None)


class _DropCluster(nn.Module):
    """What the layers for one, two and three dimensions share; see `DropCluster2d`."""

    n_dims: ClassVar[int]
    cluster_labels: Tensor
    cluster_sizes: Tensor
    structured_channels: Tensor

    def __init__(
        self,
        n_clusters: int | str = "auto",
        drop_rate: float = 0.1,
        *,
        draw: str = "stochastic",
        unstructured: str | None = "auto",
        hopkins_threshold: float = 0.55,
    ) -> None:
        super().__init__()
        if n_clusters != "auto" and (isinstance(n_clusters, str) or n_clusters < 1):
            raise ValueError(
                f"n_clusters={n_clusters!r} must be a positive integer or 'auto'."
            )
        if draw not in DRAWS:
            raise ValueError(f"draw={draw!r} must be 'stochastic' or 'floor'.")
        if unstructured not in UNSTRUCTURED:
            raise ValueError(
                f"unstructured={unstructured!r} must be 'auto', 'hopkins' or None."
            )
        if not 0 <= hopkins_threshold <= 1:
            raise ValueError(
                f"hopkins_threshold={hopkins_threshold} must be from 0 to 1."
            )
        self.n_clusters = n_clusters
        self.drop_rate = check_drop_rate(drop_rate)
        self.draw = draw
        self.unstructured = unstructured
        self.hopkins_threshold = hopkins_threshold
        none = torch.empty(0, dtype=torch.int64)
        self.register_buffer("cluster_labels", none)
        self.register_buffer("cluster_sizes", none.clone())
        self.register_buffer("structured_channels", none.bool())
        self._n_unstructured = 0  # so that inference need not ask the device

    @property
    def is_active(self) -> bool:
        """Whether there are clusters."""
        return self.cluster_labels.numel() > 0

    def set_clusters(self, labels: Tensor, structured: Tensor | None = None) -> None:
        """Take clusters as they are.

        Parameters
        ----------
        labels : Tensor of int64, shape (n_channels, ...)
            Cluster of each pixel, from 0; as many in every channel.
        structured : Tensor of bool, shape (n_channels,), default=None
            Channels that are not masked; None is all of them.

        Raises
        ------
        ValueError
            If the shapes do not fit, or if a channel lacks a cluster.
        """
        device = self.cluster_labels.device
        if structured is None:
            structured = torch.ones(len(labels), dtype=torch.bool)
        if structured.shape != labels.shape[:1]:
            raise ValueError(
                f"structured of shape {tuple(structured.shape)} must have one value "
                f"for each of the {len(labels)} channels."
            )
        if labels.ndim != self.n_dims + 1 or labels.numel() == 0 or labels.min() < 0:
            raise ValueError(
                f"labels of shape {tuple(labels.shape)} must be (n_channels, ...) with "
                f"{self.n_dims} spatial dimension(s), and count clusters from 0."
            )
        flat = labels.flatten(1).long()
        sizes = flat.new_zeros(len(flat), int(flat.max()) + 1)
        sizes.scatter_add_(1, flat, torch.ones_like(flat))
        if bool((sizes == 0).any()):
            raise ValueError(
                "labels leave a cluster out: every channel must have all clusters from "
                f"0 to {sizes.shape[1] - 1}."
            )
        self.cluster_labels = labels.long().to(device)
        self.cluster_sizes = sizes.to(device)
        self.structured_channels = structured.bool().to(device)
        self._n_unstructured = int((~self.structured_channels).sum())

    def update_clusters(
        self,
        maps: Tensor,
        sample_weight: Tensor | None = None,
        random_state: Any = None,
    ) -> None:
        """Compute the clusters of feature maps (Algorithm 1), and keep them.

        Parameters
        ----------
        maps : Tensor of shape (n_samples, n_channels, ...)
            What the layer gets to see; at least two samples.
        sample_weight : Tensor of shape (n_samples,), default=None
            0 is an absent sample, 2 is two copies of it.
        random_state : int, RandomState instance or None, default=None
            For ``unstructured="hopkins"``, which draws pixels.

        Raises
        ------
        ValueError
            If there are fewer than two samples of positive weight, if values are not
            finite, or if more clusters are asked for than there are pixels. With
            ``n_clusters="auto"`` too few samples leave everything as it is.
        """
        maps = as_maps(maps, self.n_dims)
        n_clusters = resolve_n_clusters(self.n_clusters, maps[0, 0].numel())
        n_samples = (
            len(maps) if sample_weight is None else int((sample_weight > 0).sum())
        )
        self.check_n_samples(n_samples)
        if n_samples < 2 or n_clusters == 0:
            return
        if not bool(maps.isfinite().all()):
            raise ValueError(
                "The feature maps to cluster contain NaN or infinity, so the training "
                "must have diverged; lower the learning rate."
            )
        labels, structured = find_clusters(
            maps,
            n_clusters,
            unstructured=self.unstructured,
            hopkins_threshold=self.hopkins_threshold,
            sample_weight=sample_weight,
            random_state=random_state,
        )
        self.set_clusters(labels, structured)

    def check_n_samples(self, n_samples: int) -> None:
        """Raise if an explicit `n_clusters` meets a mini-batch too small to cluster.

        Parameters
        ----------
        n_samples : int
            Samples of positive weight.
        """
        if n_samples < 2 and self.n_clusters != "auto":
            raise ValueError(
                f"A mini-batch of n_samples={n_samples} is too small to cluster: which "
                "pixels vary together takes at least two; raise batch_size."
            )

    def resume(self, other: _DropCluster) -> None:
        """Take the clusters of another layer, if they are as many as this one wants.

        Parameters
        ----------
        other : DropCluster layer
            For the same maps.
        """
        labels = other.cluster_labels
        if not other.is_active or labels.ndim != self.n_dims + 1:
            return
        n_clusters = resolve_n_clusters(self.n_clusters, labels[0].numel())
        if other.cluster_sizes.shape[1] == n_clusters:
            self.load_state_dict(other.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Mask a mini-batch.

        Parameters
        ----------
        x : Tensor of shape (n_samples, n_channels, ...)
            Of the size that the clusters were computed on.

        Returns
        -------
        Tensor of the same shape
        """
        shape = as_maps(x, self.n_dims).shape[1:]
        if not self.is_active:
            return x
        if shape != self.cluster_labels.shape:
            raise ValueError(
                f"{type(self).__name__} has clusters for maps of shape "
                f"{tuple(self.cluster_labels.shape)}, but got {tuple(shape)}; give "
                "inputs of the size that it was trained on."
            )
        if self.training and self.drop_rate > 0:
            mask = self.draw_mask().to(x.dtype)
        elif self.unstructured is not None or self._n_unstructured:
            # Not by the count alone: averaged models copy buffers in place.
            ones = [1] * self.n_dims
            mask = self.structured_channels.view(-1, *ones).to(x.dtype)
        else:
            return x
        return x * (mask if x.ndim == self.n_dims + 2 else mask[0])

    def draw_mask(self) -> Tensor:
        """Draw the mask of a training step, by torch's global generator.

        Returns
        -------
        Tensor of float32, shape (n_channels, ...)
            Zero for what is dropped; what is kept has one number, which makes the mean
            over all structured channels one.
        """
        sizes = self.cluster_sizes
        n_channels, n_clusters = sizes.shape
        kept = draw_clusters(
            n_channels, n_clusters, self.drop_rate, self.draw, sizes.device
        )
        return cluster_mask(kept, self.cluster_labels, sizes, self.structured_channels)

    def extra_repr(self) -> str:
        """Show the parameters that matter and the state."""
        state = f"{self._n_unstructured} unstructured" if self.is_active else "inactive"
        return f"n_clusters={self.n_clusters}, drop_rate={self.drop_rate}, {state}"

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Take buffers of any size: that of the clusters is found in training."""
        for name, buffer in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if saved is not None and buffer is not None:
                setattr(self, name, buffer.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._n_unstructured = int((~self.structured_channels).sum())


class DropCluster1d(_DropCluster):
    """DropCluster on signals: drop clusters that vary together.

    Takes and returns ``(n, n_channels, length)``, or ``(n, length)`` as one channel.

    Parameters
    ----------
    n_clusters, drop_rate, draw, unstructured, hopkins_threshold
        As in `DropCluster2d`.

    Attributes
    ----------
    cluster_labels, cluster_sizes, structured_channels
        As in `DropCluster2d`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.dropcluster import DropCluster1d
    >>> layer = DropCluster1d(n_clusters=4)
    >>> layer.update_clusters(torch.randn(8, 2, 20))
    >>> layer.cluster_sizes.shape
    torch.Size([2, 4])
    """

    n_dims = 1


class DropCluster2d(_DropCluster):
    """DropCluster on images: drop clusters of pixels that vary together.

    Takes and returns ``(n, n_channels, height, width)``.

    In training each mini-batch loses a random share of the clusters of each channel,
    the same for all its samples, and what is left is scaled up to a mean gain of one;
    all is zero if every cluster of every channel goes, which takes few channels and
    a rate above ``1 - 1 / n_clusters`` (section 5 and Algorithm 2 of the DropCluster
    paper, Chen, Gautier, Aydore, 2020).
    Channels without structure are zero in training and in inference. Until clusters
    have been computed the layer passes everything on.

    Clusters come from `update_clusters` with feature maps, from
    :func:`~sklearn_structreg.dropcluster.update_clusters` with a network's inputs, or
    on a schedule from the callback
    :class:`~sklearn_structreg.dropcluster.DropClusterUpdate`.

    Parameters
    ----------
    n_clusters : int or "auto", default="auto"
        Clusters per channel. "auto" is the paper's 15, at most a quarter of the pixels;
        on fewer than four pixels the layer stays inactive.
    drop_rate : float in [0, 1), default=0.1
        Share of the clusters to drop.
    draw : {"stochastic", "floor"}, default="stochastic"
        How many of the n clusters go: "stochastic" rounds ``drop_rate * n`` up or down
        at random, so that the share is `drop_rate` on average; "floor" takes the
        integer below, as the paper does.
    unstructured : {"auto", "hopkins"} or None, default="auto"
        Which channels are masked altogether: "auto" those with fewer different pixels
        than clusters, "hopkins" also those whose mean Spatial Hopkins statistic is
        below `hopkins_threshold`, None none.
    hopkins_threshold : float in [0, 1], default=0.55
        Noise has 0.5.

    Attributes
    ----------
    cluster_labels : Tensor of int64, shape (n_channels, ...)
        Cluster of each pixel; empty until there are clusters. This and the next two are
        buffers: saved, loaded and moved with the module.
    cluster_sizes : Tensor of int64, shape (n_channels, n_clusters)
        Pixels of each cluster.
    structured_channels : Tensor of bool, shape (n_channels,)
        Channels that are not masked.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.dropcluster import DropCluster2d
    >>> maps = torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    >>> layer = DropCluster2d(n_clusters=4, drop_rate=0.25)
    >>> layer.update_clusters(maps)
    >>> dropped = layer(maps)[0, 0] == 0
    >>> layer.cluster_labels[0][dropped].unique().numel()  # one of four clusters
    1
    >>> bool((layer.eval()(maps) == maps).all())
    True
    """

    n_dims = 2


class DropCluster3d(_DropCluster):
    """DropCluster on volumes: drop clusters that vary together.

    Takes and returns ``(n, n_channels, depth, height, width)``.

    Parameters
    ----------
    n_clusters, drop_rate, draw, unstructured, hopkins_threshold
        As in `DropCluster2d`.

    Attributes
    ----------
    cluster_labels, cluster_sizes, structured_channels
        As in `DropCluster2d`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.dropcluster import DropCluster3d
    >>> layer = DropCluster3d(n_clusters=4)
    >>> layer.update_clusters(torch.randn(8, 2, 4, 5, 6))
    >>> layer.cluster_sizes.shape
    torch.Size([2, 4])
    """

    n_dims = 3
