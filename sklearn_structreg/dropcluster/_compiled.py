"""Which data the compiled loops cluster, where numba is installed."""

from collections.abc import Callable
from functools import lru_cache
from math import log2
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_structreg.core.compiled import compile_loop
from sklearn_structreg.dropcluster._loops import PARTS, cluster_channels

# Set to False to do without.
ENABLED = True


def cluster_compiled(
    maps: Tensor,
    n_clusters: int,
    edges: Tensor | None,
    weight: Tensor | None,
    max_iter: int,
) -> tuple[Tensor, Tensor, int] | None:
    """Cluster as `rena` does, or return None: leave it to torch.

    What it takes are data on the CPU, of fewer edges than a 32-bit integer counts.

    Parameters
    ----------
    maps : Tensor of shape (n_samples, n_channels, ...)
        Data in single or double precision.
    n_clusters, max_iter : int
        As in `rena`.
    edges : Tensor of shape (2, n_edges) or None
        Sorted edges of each channel; None is the lattice of the last axes.
    weight : Tensor of shape (n_samples,) or None
        Positive weights.

    Returns
    -------
    tuple of labels, n_clusters and n_iter, or None
        Labels of shape (n_channels, n_features); with None, nothing has been done.
    """
    n_samples, n_channels, *shape = maps.shape
    axes = [length for length in shape if length > 1] if edges is None else []
    n_features = maps.shape[2:].numel()
    n_edges = len(axes) * n_features if edges is None else edges.shape[1]
    if (
        not ENABLED
        or type(maps) is not Tensor
        or not maps.is_cpu
        or max(n_features, n_edges) > np.iinfo(np.int32).max // 2
        or torch.compiler.is_compiling()
    ):
        return None
    cluster = _compile(maps.dtype)
    if cluster is None:
        return None
    info = torch.finfo(maps.dtype)
    reach = round(-log2(info.tiny))
    ends = np.empty((2, 0)) if edges is None else edges.cpu().numpy()
    weights = maps.new_ones(n_samples) if weight is None else weight
    labels = np.empty((n_channels, n_features), np.int64)
    count = np.empty(n_channels, np.int64)
    n_iter = cluster(
        maps.detach().reshape(n_samples, n_channels, -1).contiguous().numpy(),
        np.array(axes, np.int64),
        *ends.astype(np.int32),
        weights.detach().contiguous().numpy(),
        n_clusters,
        max_iter,
        (info.tiny / info.eps**2, info.max * info.eps**2, reach),
        labels,
        count,
    )
    if n_iter < 0:
        raise ValueError("X contains NaN or infinity: impute or drop them first.")
    return torch.from_numpy(labels), torch.from_numpy(count), n_iter


@lru_cache
def _compile(dtype: torch.dtype) -> Callable[..., Any] | None:
    """Compile the loops for single or double precision; None without numba."""
    real = {torch.float32: "float32", torch.float64: "float64"}[dtype]
    signature = (
        f"int64({real}[:, :, ::1], int64[::1], int32[::1], int32[::1], {real}[::1], "
        "int64, int64, Tuple((float64, float64, int64)), int64[:, ::1], int64[::1])"
    )
    return compile_loop(cluster_channels, signature, *PARTS)
