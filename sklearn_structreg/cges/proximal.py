"""Proximal operators of the CGES penalties, as pure functions on tensors.

The operator of a penalty P sends w to the x with the smallest P(x) + ||x - w||^2 / 2.
Common to all of them:

- A *group* runs over the dimensions `dim`; each index of the other dimensions is a
  group of its own. ``dim=0`` of a Linear or convolution weight is the CGES grouping
  (one input feature), ``dim=(1, 2, 3)`` of a convolution weight is one filter.
- A strength is a number, or a tensor whose dimensions follow the *leading* ones of `w`:
  shape (B,) fits a stack of B models' weights (B, out, in) grouped by ``dim=-2``. With
  as many dimensions as `w` it broadcasts as usual: shape (1, in) is one per group.
  A strength on an accelerator is read once a call, which waits for the device; keep it
  on the CPU to avoid that.
- Strength 0 changes nothing, to the last bit. A zero comes out as exactly 0.0.
- For one step of proximal gradient descent, a strength is the penalty's weight times
  the step size that the gradient step used. With a step size for each weight, as Adam
  has them, it is the penalty's weight alone, and `metric` holds one over the step
  sizes: the operator then has sum_i metric_i (x_i - w_i)^2 / 2 for its distance [2]_.
- `w` is not modified unless it is also `out`, which saves a copy after an optimizer
  step. Derivatives are not supported: call them under `torch.no_grad` when `w`
  requires a gradient.
- `torch.func.vmap` over `w` works for all of them, except for the exact exclusive
  operator where strength times group size exceeds 0.035 in float32, 6e-4 in float64.
- The 1-norm of a group must be representable; its Euclidean norm need not be.
- The operators on groups run as loops that numba compiles if `w` is contiguous, on the
  CPU, in single or double precision, with numbers as strengths. Loading them takes half
  a second in each process; the first call after an installation compiles them.

References
----------
.. [1] J. Yoon, "Combined Group and Exclusive Sparsity for Deep Neural Networks",
   Master's thesis, UNIST, 2018.
.. [2] J. Yun, A. C. Lozano, E. Yang, "Adaptive proximal gradient methods for
   structured neural networks", NeurIPS 2021.
"""

import torch
from torch import Tensor

from sklearn_structreg.cges._compiled import shrink_compiled
from sklearn_structreg.cges._metric import check_metric, shrink_in_metric
from sklearn_structreg.cges._thresholds import (
    Strength,
    check_out,
    check_strength,
    shrink_by_torch,
)

__all__ = [
    "prox_cges",
    "prox_exclusive_lasso",
    "prox_group_lasso",
    "prox_l1",
    "prox_l2",
]


def prox_l1(
    w: Tensor,
    threshold: float | Tensor,
    *,
    metric: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Soft thresholding: the operator of threshold * ||w||_1."""
    value, _, largest = check_strength(threshold, w, name="threshold", grouped=False)
    if largest == 0.0:
        return _copy(w, out)
    if metric is not None:
        value = (value / check_metric(metric, w)).to(w.dtype)
    if isinstance(value, Tensor):
        clipped = torch.clamp(w, -value, value)
    else:
        # clamp refuses a number beyond the range of the dtype.
        value = min(value, torch.finfo(w.dtype).max)
        clipped = torch.clamp(w, -value, value)
    return torch.sub(w, clipped, out=out)


def prox_l2(
    w: Tensor,
    strength: float | Tensor,
    *,
    metric: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Division by 1 + strength: the operator of strength / 2 * ||w||_2^2."""
    value, _, largest = check_strength(strength, w, grouped=False)
    if largest == 0.0:
        return _copy(w, out)
    if metric is not None:
        value = (value / check_metric(metric, w)).to(w.dtype)
    return torch.div(w, 1.0 + value, out=out)


def prox_group_lasso(
    w: Tensor,
    threshold: float | Tensor,
    dim: int | tuple[int, ...],
    *,
    metric: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Shrink each group towards zero: the operator of threshold * sum_g ||w_g||_2.

    Parameters
    ----------
    w : Tensor of any shape, floating point
        The weights.
    threshold : float or Tensor, at least 0
        Reduction of each group's Euclidean norm, in the units of `w`.
    dim : int or tuple of int
        The dimensions that a group runs over.
    metric : Tensor, shape of `w`, optional
        Positive factors of the squared distances; None is all ones.
    out : Tensor, optional
        Destination of the result; may be `w`.

    Returns
    -------
    Tensor, shape of `w`
        The shrunk weights; a group whose norm is at most `threshold` is zero.

    Raises
    ------
    TypeError
        If `w` is not a floating-point tensor.
    ValueError
        If `threshold` is negative, not finite, or does not fit `w`; if `dim` is empty.

    Notes
    -----
    Eq. 7 in section 3.3 of the thesis.

    Examples
    --------
    Groups are columns, of norms 5 and 0.5:

    >>> import torch
    >>> from sklearn_structreg.cges import prox_group_lasso
    >>> prox_group_lasso(torch.tensor([[3.0, 0.3], [-4.0, 0.4]]), 1.0, dim=0)
    tensor([[ 2.4000,  0.0000],
            [-3.2000,  0.0000]])
    """
    group = check_strength(threshold, w, dim, "threshold")
    return _shrink(w, group, None, dim, True, metric, out)


def prox_exclusive_lasso(
    w: Tensor,
    strength: float | Tensor,
    dim: int | tuple[int, ...],
    exact: bool = True,
    *,
    metric: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Let the members of a group compete: the operator of s / 2 * sum_g ||w_g||_1^2.

    Parameters
    ----------
    w : Tensor of any shape, floating point
        The weights.
    strength : float or Tensor, at least 0
        The strength s, a pure number.
    dim : int or tuple of int
        The dimensions that a group runs over.
    exact : bool, default=True
        Whether to apply the operator itself, or the formula printed in the thesis.
    metric : Tensor, shape of `w`, optional
        Positive factors of the squared distances; None is all ones.
    out : Tensor, optional
        Destination of the result; may be `w`.

    Returns
    -------
    Tensor, shape of `w`
        ``sign(w) (|w| - tau)_+`` with one tau per group.

    Raises
    ------
    TypeError
        If `w` is not a floating-point tensor.
    ValueError
        If `strength` is negative, not finite, or does not fit `w`; if `dim` is empty.

    Notes
    -----
    The exact tau is s times the 1-norm of the *result*, which is max_k s * S_k / (1 +
    s * k) with S_k the sum of the k largest magnitudes; the largest member of a group
    always survives (in exact arithmetic: beyond s = 1 / eps rounding takes it too).
    Eq. 8 in section 3.3 of the thesis uses the 1-norm of `w` instead: an explicit step,
    wrong by O(s * n) in a group of n, that zeroes everything from s = 1 on.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.cges import prox_exclusive_lasso
    >>> w = torch.tensor([[4.0], [-3.0], [0.5]])
    >>> prox_exclusive_lasso(w, 0.5, dim=0).ravel()
    tensor([ 2.2500, -1.2500,  0.0000])
    >>> prox_exclusive_lasso(w, 0.5, dim=0, exact=False).ravel()
    tensor([0.2500, 0.0000, 0.0000])
    """
    return _shrink(w, None, check_strength(strength, w, dim), dim, exact, metric, out)


def prox_cges(
    w: Tensor,
    group_threshold: float | Tensor,
    exclusive_strength: float | Tensor,
    dim: int | tuple[int, ...],
    exact: bool = True,
    *,
    metric: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Apply the group lasso's operator and then the exclusive lasso's.

    Parameters
    ----------
    w : Tensor of any shape, floating point
        The weights.
    group_threshold : float or Tensor, at least 0
        Reduction of each group's Euclidean norm by the first operator, in the units
        of `w`.
    exclusive_strength : float or Tensor, at least 0
        The strength of the exclusive lasso, a pure number.
    dim : int or tuple of int
        The dimensions that a group runs over.
    exact : bool, default=True
        Whether the second operator is exact, or Eq. 8 of the thesis.
    metric : Tensor, shape of `w`, optional
        Positive factors of the squared distances; None is all ones.
    out : Tensor, optional
        Destination of the result; may be `w`.

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
    Algorithm 1 in section 3.3 of the thesis. The exclusive operator commutes with a
    scaling of the group, so both are computed from `w` without an intermediate result.
    In a `metric` they do not commute, and the exclusive operator comes first.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.cges import prox_cges
    >>> prox_cges(torch.tensor([[3.0, 0.3], [-4.0, 0.4]]), 1.0, 0.5, dim=0)
    tensor([[ 1.0000,  0.0000],
            [-1.8000,  0.0000]])
    """
    group = check_strength(group_threshold, w, dim, "group_threshold")
    exclusive = check_strength(exclusive_strength, w, dim, "exclusive_strength")
    return _shrink(w, group, exclusive, dim, exact, metric, out)


def _shrink(
    w: Tensor,
    group: Strength | None,
    exclusive: Strength | None,
    dim: int | tuple[int, ...],
    exact: bool,
    metric: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    """Apply the operators whose strength is not zero, by the fastest path."""
    check_out(out, w)
    group = None if group is None or group.largest == 0.0 else group
    exclusive = None if exclusive is None or exclusive.largest == 0.0 else exclusive
    if group is None and exclusive is None:
        return _copy(w, out)
    if metric is not None:
        metric = check_metric(metric, w)
        moved = shrink_in_metric(w, metric, group, exclusive, dim, exact)
        return moved if out is None else out.copy_(moved)
    shrunk = shrink_compiled(w, group, exclusive, dim, exact, out)
    if shrunk is None:
        shrunk = shrink_by_torch(w, group, exclusive, dim, exact, out)
    return shrunk


def _copy(w: Tensor, out: Tensor | None) -> Tensor:
    return w.clone() if out is None else out.copy_(w)
