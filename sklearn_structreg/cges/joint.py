"""The exact proximal operator of both CGES penalties together: a reference."""

import torch
from torch import Tensor

from sklearn_structreg.cges._thresholds import check_strength, group_coefficient

__all__ = ["prox_cges_joint"]

# Halving an interval this often leaves less of it than float64 resolves.
_N_BISECTIONS = 80


def prox_cges_joint(
    w: Tensor,
    group_threshold: float | Tensor,
    exclusive_strength: float | Tensor,
    dim: int | tuple[int, ...],
) -> Tensor:
    """Exact proximal operator of a * ||w_g||_2 + b / 2 * ||w_g||_1^2 in each group.

    Parameters
    ----------
    w : Tensor of any shape, floating point
        The weights.
    group_threshold : float or Tensor, at least 0
        The weight a of the Euclidean norm, in the units of `w`.
    exclusive_strength : float or Tensor, at least 0
        The weight b of the squared 1-norm, a pure number.
    dim : int or tuple of int
        The dimensions that a group runs over.

    Returns
    -------
    Tensor, shape of `w`
        The shrunk weights.

    Raises
    ------
    TypeError
        If `w` is not a floating-point tensor.
    ValueError
        If a strength is negative, not finite, or does not fit `w`; if `dim` is empty.

    Notes
    -----
    The proximal step of Eq. 5 of the thesis, which `prox_cges` replaces by two in a
    row. Its solution is the group operator of ``sign(w) (|w| - tau)_+`` where tau is b
    times the 1-norm of the solution; that norm falls as tau rises, so bisection finds
    tau. Many times slower than `prox_cges`, and meant as a reference for it.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.cges import prox_cges_joint
    >>> prox_cges_joint(torch.tensor([[3.0, 0.3], [-4.0, 0.4]]), 1.0, 0.5, dim=0)
    tensor([[ 1.0703,  0.0000],
            [-1.7419,  0.0000]])
    """
    group = check_strength(group_threshold, w, dim, "group_threshold")
    exclusive = check_strength(exclusive_strength, w, dim, "exclusive_strength")
    magnitude = w.abs()
    high = magnitude.amax(dim, keepdim=True)
    low = torch.zeros_like(high)
    for _ in range(_N_BISECTIONS):
        tau = (low + high) / 2.0
        remaining = (magnitude - tau).relu_()
        norm = remaining.sum(dim, keepdim=True)
        norm = norm * group_coefficient(remaining, group, dim)
        too_small = norm * exclusive.value > tau
        low, high = torch.where(too_small, tau, low), torch.where(too_small, high, tau)
    remaining = w - torch.clamp(w, -low, low)
    coefficient = group_coefficient(remaining, group, dim)
    return torch.addcmul(w.new_zeros(()), remaining, coefficient)
