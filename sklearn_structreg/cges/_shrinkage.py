"""The shrinkage of CGES: both operators in one go, in blocks that fit the cache."""

import torch
from torch import Tensor

from sklearn_structreg.cges._compiled import shrink_compiled
from sklearn_structreg.cges._thresholds import (
    Strength,
    exclusive_threshold,
    group_coefficient,
    grouped_axes,
)

# Weights in a block: on a layer of 3136 x 1024, temporaries that stay in the cache
# make the operator several times faster.
_BLOCK_SIZE = 2**18


def shrink_groups(
    w: Tensor,
    group: Strength | None,
    exclusive: Strength,
    dim: int | tuple[int, ...],
    exact: bool,
    out: Tensor | None,
) -> Tensor:
    """Apply the group operator, if any, and then the exclusive one.

    Parameters
    ----------
    w : Tensor
        The weights.
    group : Strength or None
        The checked threshold of the group operator; None leaves it out.
    exclusive : Strength
        The checked strength of the exclusive operator, not 0 throughout.
    dim : int or tuple of int
        The dimensions that a group runs over.
    exact : bool
        Whether the exclusive operator is exact.
    out : Tensor or None
        Where to write the result; may be `w`.

    Returns
    -------
    Tensor, shape of `w`
        The shrunk weights.
    """
    compiled = shrink_compiled(w, group, exclusive, dim, exact, out)
    if compiled is not None:
        return compiled
    axis, n_blocks = _plan_blocks(w, dim)
    if n_blocks == 1:
        return _shrink_block(w, group, exclusive, dim, exact, out)
    blocks = zip(
        w.tensor_split(n_blocks, axis),
        (None,) * n_blocks if group is None else group.split(n_blocks, axis),
        exclusive.split(n_blocks, axis),
        (None,) * n_blocks if out is None else out.tensor_split(n_blocks, axis),
        strict=True,
    )
    shrunk = [
        _shrink_block(w_block, a, s, dim, exact, out_block)
        for w_block, a, s, out_block in blocks
    ]
    return torch.cat(shrunk, axis) if out is None else out


def _plan_blocks(w: Tensor, dim: int | tuple[int, ...]) -> tuple[int, int]:
    """Choose the axis to cut the weights along, between groups, and into how many."""
    if w.numel() <= _BLOCK_SIZE or w.device.type != "cpu":
        return 0, 1
    kept = set(range(w.ndim)) - grouped_axes(w, dim)
    if not kept:
        return 0, 1
    axis = max(kept, key=lambda axis: w.shape[axis])
    return axis, min(w.shape[axis], -(-w.numel() // _BLOCK_SIZE))


def _shrink_block(
    w: Tensor,
    group: Strength | None,
    exclusive: Strength,
    dim: int | tuple[int, ...],
    exact: bool,
    out: Tensor | None,
) -> Tensor:
    """Apply the operators to weights that are not cut any further."""
    tau = exclusive_threshold(w, exclusive, dim, exact)
    clipped = torch.clamp(w, -tau, tau)
    if group is None:
        return torch.sub(w, clipped, out=out)
    # The exclusive operator commutes with a scaling of the group, so the group's
    # factor comes last. Adding to 0.0 turns a negative weight's zero into 0.0.
    coefficient = group_coefficient(w, group, dim)
    surplus = clipped.sub_(w)
    return torch.addcmul(w.new_zeros(()), surplus, coefficient, value=-1.0, out=out)
