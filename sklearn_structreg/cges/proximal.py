"""Proximal operators of the CGES penalties, as pure functions on tensors.

The operator of a penalty P sends w to the x with the smallest P(x) + ||x - w||^2 / 2.
What all of them have in common:

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
  the step size that the gradient step used.
- `w` is not modified unless it is also `out`, which saves a copy after an optimizer
  step. Derivatives are not supported: call them under `torch.no_grad` when `w`
  requires a gradient.
- `torch.func.vmap` over `w` works for all of them, except for the exact exclusive
  operator where strength times group size exceeds 0.035 in float32, 6e-4 in float64.
- The 1-norm of a group must be representable; its Euclidean norm need not be.
- Where numba is installed, the operators on groups run as compiled loops if `w` is
  contiguous, on the CPU, in single or double precision, with numbers as strengths. The
  first call of a process then takes half a second, the first ever one or two.

References
----------
.. [1] J. Yoon, "Combined Group and Exclusive Sparsity for Deep Neural Networks",
   Master's thesis, UNIST, 2018.
"""

import torch
from torch import Tensor

from sklearn_structreg.cges._compiled import shrink_compiled
from sklearn_structreg.cges._shrinkage import shrink_groups
from sklearn_structreg.cges._thresholds import (
    check_strength,
    group_coefficient,
)

__all__ = [
    "prox_cges",
    "prox_exclusive_lasso",
    "prox_group_lasso",
    "prox_l1",
    "prox_l2",
]


def prox_l1(
    w: Tensor, threshold: float | Tensor, *, out: Tensor | None = None
) -> Tensor:
    """Soft thresholding: the proximal operator of threshold * ||w||_1.

    Parameters
    ----------
    w : Tensor of any shape, floating point
        The weights.
    threshold : float or Tensor, at least 0
        What each magnitude loses, in the units of `w`.
    out : Tensor, optional
        Where to write the result; may be `w`.

    Returns
    -------
    Tensor, shape of `w`
        The shrunk weights.

    Raises
    ------
    TypeError
        If `w` is not a floating-point tensor.
    ValueError
        If `threshold` is negative, not finite, or does not fit `w`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.cges import prox_l1
    >>> prox_l1(torch.tensor([3.0, -0.5, -2.0]), 1.0)
    tensor([ 2.,  0., -1.])
    """
    value, _, largest = check_strength(threshold, w, name="threshold")
    if largest == 0.0:
        return _copy(w, out)
    if isinstance(value, Tensor):
        clipped = torch.clamp(w, -value, value)
    else:
        # A number beyond the range of the dtype is refused by clamp.
        value = min(value, torch.finfo(w.dtype).max)
        clipped = torch.clamp(w, -value, value)
    return torch.sub(w, clipped, out=out)


def prox_l2(
    w: Tensor, strength: float | Tensor, *, out: Tensor | None = None
) -> Tensor:
    """Weight decay: the proximal operator of strength / 2 * ||w||_2^2.

    Parameters
    ----------
    w : Tensor of any shape, floating point
        The weights.
    strength : float or Tensor, at least 0
        The weights are divided by one plus this; a pure number.
    out : Tensor, optional
        Where to write the result; may be `w`.

    Returns
    -------
    Tensor, shape of `w`
        The shrunk weights.

    Raises
    ------
    TypeError
        If `w` is not a floating-point tensor.
    ValueError
        If `strength` is negative, not finite, or does not fit `w`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.cges import prox_l2
    >>> prox_l2(torch.tensor([3.0, -0.5]), 1.0)
    tensor([ 1.5000, -0.2500])
    """
    value, _, largest = check_strength(strength, w)
    if largest == 0.0:
        return _copy(w, out)
    return torch.div(w, 1.0 + value, out=out)


def prox_group_lasso(
    w: Tensor,
    threshold: float | Tensor,
    dim: int | tuple[int, ...],
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Shrink each group towards zero: the operator of threshold * sum_g ||w_g||_2.

    Parameters
    ----------
    w : Tensor of any shape, floating point
        The weights.
    threshold : float or Tensor, at least 0
        What the Euclidean norm of each group loses, in the units of `w`.
    dim : int or tuple of int
        The dimensions that a group runs over.
    out : Tensor, optional
        Where to write the result; may be `w`.

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
    Eq. 7 in section 3.3 of the thesis cited at the head of this module.

    Examples
    --------
    Groups are columns, of norms 5 and 0.5:

    >>> import torch
    >>> from sklearn_structreg.cges import prox_group_lasso
    >>> prox_group_lasso(torch.tensor([[3.0, 0.3], [-4.0, 0.4]]), 1.0, dim=0)
    tensor([[ 2.4000,  0.0000],
            [-3.2000,  0.0000]])
    """
    checked = check_strength(threshold, w, dim, "threshold")
    if checked.largest == 0.0:
        return _copy(w, out)
    compiled = shrink_compiled(w, checked, None, dim, True, out)
    if compiled is not None:
        return compiled
    coefficient = group_coefficient(w, checked, dim)
    # Adding to 0.0 makes the zeros of negative weights positive in the same pass.
    return torch.addcmul(w.new_zeros(()), w, coefficient, out=out)


def prox_exclusive_lasso(
    w: Tensor,
    strength: float | Tensor,
    dim: int | tuple[int, ...],
    exact: bool = True,
    *,
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
    out : Tensor, optional
        Where to write the result; may be `w`.

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
    checked = check_strength(strength, w, dim)
    if checked.largest == 0.0:
        return _copy(w, out)
    return shrink_groups(w, None, checked, dim, exact, out)


def prox_cges(
    w: Tensor,
    group_threshold: float | Tensor,
    exclusive_strength: float | Tensor,
    dim: int | tuple[int, ...],
    exact: bool = True,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Apply the group lasso's operator and then the exclusive lasso's.

    Parameters
    ----------
    w : Tensor of any shape, floating point
        The weights.
    group_threshold : float or Tensor, at least 0
        What the Euclidean norm of each group loses first, in the units of `w`.
    exclusive_strength : float or Tensor, at least 0
        The strength of the exclusive lasso, a pure number.
    dim : int or tuple of int
        The dimensions that a group runs over.
    exact : bool, default=True
        Whether the second operator is exact, or Eq. 8 of the thesis.
    out : Tensor, optional
        Where to write the result; may be `w`.

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
    scaling of the group, so both are computed from `w` and no intermediate is formed.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.cges import prox_cges
    >>> prox_cges(torch.tensor([[3.0, 0.3], [-4.0, 0.4]]), 1.0, 0.5, dim=0)
    tensor([[ 1.0000,  0.0000],
            [-1.8000,  0.0000]])
    """
    group = check_strength(group_threshold, w, dim, "group_threshold")
    if group.largest == 0.0:
        return prox_exclusive_lasso(w, exclusive_strength, dim, exact, out=out)
    exclusive = check_strength(exclusive_strength, w, dim, "exclusive_strength")
    if exclusive.largest == 0.0:
        return prox_group_lasso(w, group_threshold, dim, out=out)
    return shrink_groups(w, group, exclusive, dim, exact, out)


def _copy(w: Tensor, out: Tensor | None) -> Tensor:
    """Return `w` unchanged, in `out` or in memory of its own."""
    return w.clone() if out is None else out.copy_(w)
