"""The exact proximal operator of both CGES penalties together: a reference."""

import torch
from torch import Tensor

from sklearn_structreg.cges._metric import check_metric, group_factor
from sklearn_structreg.cges._thresholds import check_strength, group_coefficient

__all__ = ["prox_cges_joint"]

# Halving an interval this often leaves less of it than float64 resolves.
_N_BISECTIONS = 80


def prox_cges_joint(
    w: Tensor,
    group_threshold: float | Tensor,
    exclusive_strength: float | Tensor,
    dim: int | tuple[int, ...],
    *,
    metric: Tensor | None = None,
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
    metric : Tensor, shape of `w`, optional
        Positive factors of the squared distances; None is all ones.

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
    d = torch.ones_like(w) if metric is None else check_metric(metric, w).to(w.dtype)

    def factor(magnitude: Tensor) -> Tensor:
        if metric is None:
            return group_coefficient(magnitude, group, dim)
        threshold = torch.as_tensor(group.value, dtype=w.dtype, device=w.device)
        return group_factor(magnitude, threshold, dim, d)

    magnitude = w.abs()
    high = (magnitude * d).amax(dim, keepdim=True)
    low = torch.zeros_like(high)
    for _ in range(_N_BISECTIONS):
        tau = (low + high) / 2.0
        remaining = (magnitude - tau / d).relu_()
        norm = (remaining * factor(remaining)).sum(dim, keepdim=True)
        too_small = norm * exclusive.value > tau
        low, high = torch.where(too_small, tau, low), torch.where(too_small, high, tau)
    remaining = w - torch.clamp(w, -low / d, low / d)
    return torch.addcmul(w.new_zeros(()), remaining, factor(remaining.abs()))
