"""ReNA by compiled loops, for data on the CPU."""

from collections.abc import Callable
from functools import lru_cache
from math import log2
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_structreg.core.compiled import compile_loop
from sklearn_structreg.dropcluster._loops import PARTS, cluster_channels

# Tests and benchmarks set it to False, to cluster on the CPU by torch operations.
ENABLED = True


def can_compile(maps: Tensor, edges: Tensor | None) -> bool:
    """Check for data on the CPU, of fewer edges than a 32-bit integer counts."""
    n_features = maps.shape[2:].numel()
    n_edges = (maps.ndim - 2) * n_features if edges is None else edges.shape[1]
    return (
        ENABLED
        and type(maps) is Tensor
        and maps.is_cpu
        and max(n_features, n_edges) <= np.iinfo(np.int32).max // 2
        and not torch.compiler.is_compiling()
    )


def cluster_compiled(
    maps: Tensor,
    n_clusters: int,
    edges: Tensor | None,
    weight: Tensor | None,
    max_iter: int,
) -> tuple[Tensor, Tensor, int]:
    """Return labels (n_channels, n_features), cluster counts, and the rounds made."""
    n_samples, n_channels, *shape = maps.shape
    axes = [length for length in shape if length > 1] if edges is None else []
    n_features = maps.shape[2:].numel()
    info = torch.finfo(maps.dtype)
    reach = round(-log2(info.tiny))
    ends = np.empty((2, 0)) if edges is None else edges.cpu().numpy()
    weights = maps.new_ones(n_samples) if weight is None else weight
    labels = np.empty((n_channels, n_features), np.int64)
    count = np.empty(n_channels, np.int64)
    n_iter = _compile(maps.dtype)(
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
def _compile(dtype: torch.dtype) -> Callable[..., Any]:
    """Compile the loops for single or double precision."""
    real = {torch.float32: "float32", torch.float64: "float64"}[dtype]
    signature = (
        f"int64({real}[:, :, ::1], int64[::1], int32[::1], int32[::1], {real}[::1], "
        "int64, int64, Tuple((float64, float64, int64)), int64[:, ::1], int64[::1])"
    )
    return compile_loop(cluster_channels, signature, *PARTS)
