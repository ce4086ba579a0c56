"""How much capacity each group's head gets."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np

from sklearn_structreg.selfinformed.partition import ClassPartition

__all__ = ["check_layer_sizes", "head_layer_sizes_by_group"]


def check_layer_sizes(sizes: Sequence[int]) -> None:
    """Check the hidden layers of a head; none at all is a linear head.

    Raises
    ------
    ValueError
        If a size is no positive integer.
    """
    if not all(isinstance(size, Integral) and size >= 1 for size in sizes):
        raise ValueError(
            f"head_layer_sizes={tuple(sizes)} must hold positive integers, the units "
            "of each hidden layer of a head."
        )


def head_layer_sizes_by_group(
    sizes: Sequence[int], allocation: str, partition: ClassPartition
) -> list[tuple[int, ...]]:
    """Share the units of all heads out among the groups.

    Parameters
    ----------
    sizes : sequence of int
        Units per hidden layer of the average head.
    allocation : {"equal", "size", "difficulty"}
        "size": in proportion to the classes of a group; "difficulty": to the mean
        share of its classes' samples that the network missed.
    partition : ClassPartition
        The groups.

    Returns
    -------
    list of tuple of int
        The hidden layers of each head, at least one unit each.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> from sklearn_structreg.selfinformed.partition import ClassPartition
    >>> partition = ClassPartition(np.array([0, 0, 0, 1]), np.arange(4),
    ...     sparse.eye_array(4, format="csr"), np.array([0.1, 0.2, 0.3, 0.8]), 2)
    >>> head_layer_sizes_by_group((100, 50), "size", partition)
    [(150, 75), (50, 25)]
    >>> head_layer_sizes_by_group((100, 50), "difficulty", partition)
    [(40, 20), (160, 80)]
    """
    if allocation == "size":
        merits = np.array([float(group.size) for group in partition.groups_])
    elif allocation == "difficulty":
        merits = np.array([partition.miss_rate_[g].mean() for g in partition.groups_])
    else:
        merits = np.ones(partition.n_clusters_)
    if not merits.any():
        merits = np.ones_like(merits)
    shares = merits / merits.mean()
    return [tuple(max(1, round(s * size)) for size in sizes) for s in shares.tolist()]
