"""DropCluster as a torch layer, for signals, images and volumes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sklearn_structreg.core.checks import check_integer, check_share
from sklearn_structreg.core.insertion import CONVOLUTIONS, as_maps, check_drop_rate
from sklearn_structreg.core.processes import draw_for_rows
from sklearn_structreg.dropcluster.clusters import find_clusters, resolve_clusters
from sklearn_structreg.dropcluster.masks import cluster_mask, draw_clusters
from sklearn_structreg.dropcluster.tensors import as_numbers

__all__ = ["DropCluster1d", "DropCluster2d", "DropCluster3d"]

ROUNDINGS = ("stochastic", "down")
UNSTRUCTURED = ("auto", "hopkins", None)


class _DropCluster(nn.Module):
    """Base of the layers for one, two and three dimensions; see `DropCluster2d`."""

    n_dims: ClassVar[int]
    is_too_small = False  # whether maps had too few pixels for any clusters
    unit: Tensor
    cluster_labels: Tensor
    cluster_sizes: Tensor
    structured_channels: Tensor

    def __init__(
        self,
        n_clusters: int | str = "auto",
        drop_rate: float = 0.1,
        *,
        connectivity: Any = None,
        clusterer: Any = None,
        mask_per: str = "batch",
        rounding: str = "stochastic",
        unstructured: str | None = None,
        hopkins_threshold: float = 0.55,
    ) -> None:
        super().__init__()
        if n_clusters != "auto":
            check_integer("n_clusters", n_clusters, more=", or 'auto'")
        if mask_per not in ("batch", "sample"):
            raise ValueError(f"mask_per={mask_per!r} must be 'batch' or 'sample'.")
        if rounding not in ROUNDINGS:
            raise ValueError(f"rounding={rounding!r} must be 'stochastic' or 'down'.")
        if unstructured not in UNSTRUCTURED:
            raise ValueError(
                f"unstructured={unstructured!r} must be 'auto', 'hopkins' or None."
            )
        check_share("hopkins_threshold", hopkins_threshold)
        self.n_clusters = n_clusters
        self.drop_rate = check_drop_rate(drop_rate)
        self.connectivity, self.clusterer = connectivity, clusterer
        self.mask_per = mask_per
        self.rounding = rounding
        self.unstructured = unstructured
        self.hopkins_threshold = hopkins_threshold
        self.is_scheduled = False  # whether a regularizer computes the clusters
        self.register_buffer("unit", torch.ones(()), persistent=False)  # has the dtype
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
        """Set the clusters.

        Parameters
        ----------
        labels : Tensor of int64, shape (n_channels, ...)
            Cluster of each pixel, counted from 0 in every channel.
        structured : Tensor of bool, shape (n_channels,), default=None
            Channels that are not masked; None is all of them.

        Raises
        ------
        ValueError
            If the shapes do not fit, or if a channel's numbers leave one out.
        """
        device, labels = self.cluster_labels.device, as_numbers(labels, "labels")
        if labels.is_floating_point():
            raise ValueError("labels must be integers, numbers of clusters from 0 on.")
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
        if bool(((sizes[:, :-1] == 0) & (sizes[:, 1:] > 0)).any()):
            raise ValueError(
                "labels leave a cluster out: every channel must count its clusters "
                "from 0 on, without a gap."
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
            The layer's inputs; at least two samples.
        sample_weight : Tensor of shape (n_samples,), default=None
            0 is an absent sample, 2 is two copies of it.
        random_state : int, RandomState instance or None, default=None
            Seed of the pixels drawn for ``unstructured="hopkins"``.

        Raises
        ------
        ValueError
            If there are fewer than two samples of positive weight, if values are not
            finite, or if more clusters are asked for than there are pixels. With
            ``n_clusters="auto"`` too few samples leave everything as it is.
        """
        maps = as_maps(as_numbers(maps, "maps"), self.n_dims)
        wanted = "auto" if self.clusterer is not None else self.n_clusters
        n_clusters = resolve_clusters(wanted, maps[0, 0].numel())
        weight = torch.ones(len(maps)) if sample_weight is None else sample_weight
        if weight.shape != maps.shape[:1]:
            raise ValueError(
                f"sample_weight has shape {tuple(weight.shape)} for {len(maps)} maps."
            )
        n_samples = int((weight > 0).sum())
        self.check_n_samples(n_samples)
        self.is_too_small = n_clusters == 0
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
            connectivity=self.connectivity,
            clusterer=self.clusterer,
            unstructured=self.unstructured,
            hopkins_threshold=self.hopkins_threshold,
            sample_weight=sample_weight,
            random_state=random_state,
        )
        self.set_clusters(labels, structured)

    def check_n_samples(self, n_samples: int) -> None:
        """Raise if an explicit `n_clusters` meets a mini-batch too small to cluster."""
        if n_samples < 2 and self.n_clusters != "auto":
            raise ValueError(
                f"A mini-batch of n_samples={n_samples} is too small to cluster: at "
                "least two show which pixels vary together; raise batch_size."
            )

    def clear_clusters(self) -> None:
        """Become inactive, as before the first clusters."""
        for name in ("cluster_labels", "cluster_sizes", "structured_channels"):
            setattr(self, name, getattr(self, name).new_empty(0))
        self._n_unstructured = 0

    def simplified(self) -> nn.Module:
        """Return a plain layer: a convolution that masks channels, or the identity."""
        if bool(self.structured_channels.all()):
            return nn.Identity().train(self.training)
        n_channels = len(self.structured_channels)
        mask = CONVOLUTIONS[self.n_dims - 1](
            n_channels, n_channels, 1, groups=n_channels, bias=False
        )
        weight = self.structured_channels.view(-1, *[1] * (self.n_dims + 1))
        mask.weight = nn.Parameter(weight.to(self.unit), requires_grad=False)
        return mask.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Mask a mini-batch of maps of the size that the clusters were computed on."""
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
            n_draws = (len(x),) if self.mask_per == "sample" else ()
            mask = draw_for_rows(self.draw_mask, n_draws).to(x.dtype)
        elif self.unstructured is not None or self._n_unstructured:
            # Not by the count alone: averaged models copy buffers in place.
            ones = [1] * self.n_dims
            mask = self.structured_channels.view(-1, *ones).to(x.dtype)
        else:
            return x
        return (as_maps(x, self.n_dims) * mask).view_as(x)

    def draw_mask(self, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw masks of a training step.

        Parameters
        ----------
        shape : tuple of int, default=()
            Of the masks: none for one mask, (n_samples,) for one each.

        Returns
        -------
        Tensor
            Float32, of ``(*shape, n_channels, ...)``.
        """
        sizes = self.cluster_sizes
        kept = draw_clusters(sizes > 0, self.drop_rate, self.rounding, shape)
        return cluster_mask(kept, self.cluster_labels, sizes, self.structured_channels)

    def extra_repr(self) -> str:
        """Show the parameters that matter and the state."""
        state = f"{self._n_unstructured} unstructured" if self.is_active else "inactive"
        return f"n_clusters={self.n_clusters}, drop_rate={self.drop_rate}, {state}"

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Load buffers of any size: the number of clusters is found in training."""
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
    n_clusters, drop_rate, connectivity, clusterer, mask_per, rounding, unstructured, \
            hopkins_threshold
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
    the same for all its samples unless ``mask_per="sample"``, and the rest is scaled up
    to a mean gain of one: section 5 and Algorithm 2 of the DropCluster paper, Chen,
    Gautier, Aydore, 2020. Two clusters of every channel always stay. Channels without
    structure are zero in training and in inference. Until clusters have been computed
    the layer returns its input.

    Clusters come from `update_clusters` with feature maps, or in a training on a
    schedule from :class:`~sklearn_structreg.dropcluster.DropCluster`.

    Parameters
    ----------
    n_clusters : int or "auto", default="auto"
        Clusters per channel. Of fewer than three none is dropped. "auto" is the paper's
        15, at most a quarter of the pixels and at least 3; on fewer than three pixels
        the layer stays inactive.
    drop_rate : float in [0, 1), default=0.1
        Share of the clusters to drop.
    connectivity : sparse matrix or array-like of shape (n_pixels, n_pixels), \
            default=None
        Symmetric graph of the pixels that may come together; those without any
        neighbour form a cluster of their own. None joins neighbours on the map.
    clusterer : scikit-learn clusterer, default=None
        Clusters the pixels of each channel in place of ReNA: ``fit`` gets a row for
        each pixel and a column for each sample, and leaves ``labels_``.
    mask_per : {"batch", "sample"}, default="batch"
        One draw for each mini-batch, or one for each of its samples.
    rounding : {"stochastic", "down"}, default="stochastic"
        Rounding of ``drop_rate * n_clusters``, the number of clusters to drop:
        "stochastic" is up or down at random, so that the share is `drop_rate` on
        average; "down" is the integer below, as in the paper.
    unstructured : {"auto", "hopkins"} or None, default=None
        Channels to mask altogether: "auto" is those with fewer different pixels than
        clusters, "hopkins" also those whose mean Spatial Hopkins statistic is below
        `hopkins_threshold`, None is none.
    hopkins_threshold : float in [0, 1], default=0.55
        Noise has a statistic of 0.5.

    Attributes
    ----------
    cluster_labels : Tensor of int64, shape (n_channels, ...)
        Cluster of each pixel; empty until there are clusters. This and the next two are
        buffers: saved, loaded and moved with the module.
    cluster_sizes : Tensor of int64, shape (n_channels, n_clusters)
        Pixels of each cluster; 0 at the end where a channel has fewer than others.
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
    n_clusters, drop_rate, connectivity, clusterer, mask_per, rounding, unstructured, \
            hopkins_threshold
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
