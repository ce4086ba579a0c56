"""What the proximal operators are made of: checked strengths, norms, thresholds.

Every quantity here has one value per group, kept with size 1 along the dimensions
that a group runs over, so that it broadcasts against the weights.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

# More passes than this cost more than Newton's method with its convergence check.
MAX_CHORD_PASSES = 3


class Strength(NamedTuple):
    """A checked strength and its range.

    Parameters
    ----------
    value : float or Tensor
        The strength; a tensor has as many dimensions as the weights.
    smallest, largest : float
        Its range.
    """

    value: float | Tensor
    smallest: float
    largest: float

    def split(self, n_blocks: int, axis: int) -> tuple["Strength", ...]:
        """Cut into the strengths of `n_blocks` blocks of the weights along `axis`."""
        if not isinstance(self.value, Tensor) or self.value.shape[axis] == 1:
            return (self,) * n_blocks
        pieces = self.value.tensor_split(n_blocks, axis)
        return tuple(self._replace(value=piece) for piece in pieces)


def check_strength(
    strength: float | Tensor,
    w: Tensor,
    dim: int | tuple[int, ...] | None = None,
    name: str = "strength",
) -> Strength:
    """Validate a strength and align it with the weights.

    Parameters
    ----------
    strength : float or Tensor
        Finite, at least 0. A tensor with fewer dimensions than `w` is aligned with the
        leading dimensions of `w`.
    w : Tensor
        The weights.
    dim : int or tuple of int, optional
        The dimensions that a group runs over, along which the strength is constant;
        none for an operator on single weights.
    name : str, default="strength"
        What error messages call the strength.

    Returns
    -------
    Strength
        The value, a tensor in the dtype and on the device of `w`, and its range.

    Raises
    ------
    TypeError
        If `w` is not a floating-point tensor.
    ValueError
        If the strength is negative or not finite, or does not fit `w`, or if `dim` is
        an empty tuple.
    """
    if not (isinstance(w, Tensor) and w.is_floating_point()):
        kind = w.dtype if isinstance(w, Tensor) else type(w).__name__
        raise TypeError(f"w must be a floating-point tensor; got {kind}.")
    if dim == ():
        # torch would take this for a single group of all weights.
        raise ValueError("dim must name at least one dimension.")
    if not isinstance(strength, Tensor):
        strength = float(strength)
        checked = Strength(strength, strength, strength)
    elif strength.numel() == 0:
        raise ValueError(f"{name} must not be an empty tensor.")
    else:
        limits = torch.aminmax(strength.detach())
        aligned = _align(strength.detach(), w, dim, name).to(w)
        checked = Strength(aligned, float(limits.min), float(limits.max))
    if not 0.0 <= checked.smallest <= checked.largest < float("inf"):
        raise ValueError(
            f"{name} must be finite and at least 0; got {checked.smallest:g}"
            + (
                "."
                if checked.smallest == checked.largest
                else " as its smallest value."
            )
        )
    return checked


def _align(
    strength: Tensor, w: Tensor, dim: int | tuple[int, ...] | None, name: str
) -> Tensor:
    """Append dimensions until `strength` broadcasts against `w` group by group."""
    missing = w.ndim - strength.ndim
    shape = (*strength.shape, *(1,) * missing)
    grouped = set() if dim is None else grouped_axes(w, dim)
    fits = missing >= 0 and all(
        size == 1 or (size == w.shape[axis] and axis not in grouped)
        for axis, size in enumerate(shape)
    )
    if not fits:
        raise ValueError(
            f"{name} of shape {tuple(strength.shape)} does not fit weights of shape "
            f"{tuple(w.shape)} with dim={dim}: it follows the leading dimensions and "
            "has one value per group."
        )
    return strength.reshape(shape)


def grouped_axes(w: Tensor, dim: int | tuple[int, ...]) -> set[int]:
    """Return the dimensions that a group runs over, counted from the front."""
    return {axis % w.ndim for axis in ((dim,) if isinstance(dim, int) else dim)}


def group_coefficient(
    w: Tensor, threshold: Strength, dim: int | tuple[int, ...]
) -> Tensor:
    """Factor by which the group lasso shrinks each group: (1 - threshold / norm)_+.

    Parameters
    ----------
    w : Tensor
        The weights.
    threshold : Strength
        The checked threshold on the groups' Euclidean norms.
    dim : int or tuple of int
        The dimensions that a group runs over.

    Returns
    -------
    Tensor
        Values in [0, 1], one per group; 0 for a group of zeros, and exactly 1 where
        the threshold is 0.
    """
    value, smallest, largest = threshold
    reach = _reach(w.dtype)
    if 1.0 / reach <= smallest and largest <= reach:
        # Squares that overflow or vanish give 1 or 0 here, which is also the factor
        # rounded: they are that far from a threshold within reach.
        inverse_norm = (w * w).sum(dim, keepdim=True).rsqrt_()
        if isinstance(value, Tensor):
            return (1.0 - inverse_norm.mul_(value)).relu_()
        return torch.rsub(inverse_norm, 1.0, alpha=value).relu_()
    # In units of the threshold the same holds for every threshold.
    value = torch.as_tensor(value, dtype=w.dtype, device=w.device)
    positive = value > 0
    scaled = w / torch.where(positive, value, 1.0)
    inverse_norm = (scaled * scaled).sum(dim, keepdim=True).rsqrt_()
    return torch.where(positive, (1.0 - inverse_norm).relu_(), 1.0)


@lru_cache
def _reach(dtype: torch.dtype) -> float:
    """Largest threshold, and inverse of the smallest, for which plain squares do."""
    limits = torch.finfo(dtype)
    return float(limits.max**0.5 * limits.eps / 4.0)


def exclusive_threshold(
    w: Tensor, strength: Strength, dim: int | tuple[int, ...], exact: bool
) -> Tensor:
    """Amount tau by which the exclusive lasso shrinks each magnitude of a group.

    Parameters
    ----------
    w : Tensor
        The weights.
    strength : Strength
        The checked strength s.
    dim : int or tuple of int
        The dimensions that a group runs over.
    exact : bool
        Whether tau is s times the 1-norm of the shrunk group, or of the given one.

    Returns
    -------
    Tensor
        One tau per group; exactly 0 where the strength is 0.

    Notes
    -----
    The exact tau solves tau = s * sum_i (|w_i| - tau)_+. With n members to the group
    this reads tau = (sum_i |w_i| + sum_i (tau - |w_i|)_+) / (1/s + n), a contraction by
    a factor below q = s * n. Started where no member is dropped it is wrong by at most
    q * tau <= q**2 times the mean magnitude, and by a further q after each pass, so for
    small q the number of passes is known beforehand and nothing has to be compared.
    Otherwise Newton's method on the same concave, piecewise linear equation increases
    from the left and ends after finitely many steps.
    """
    magnitude = w.abs()
    total = magnitude.sum(dim, keepdim=True)
    if not exact:
        return total.mul_(strength.value)
    n_members = magnitude.numel() // max(1, total.numel())
    inverse = 1.0 / strength.value
    scale = 1.0 / (inverse + n_members)
    tau = first = total.mul_(scale)
    n_passes = n_chord_passes(strength.largest * n_members, torch.finfo(w.dtype).eps)
    if n_passes > MAX_CHORD_PASSES:
        return _newton(magnitude, inverse, tau, dim)
    for _ in range(n_passes):
        shortfall = (tau - magnitude).relu_().sum(dim, keepdim=True)
        tau = first + shortfall.mul_(scale)
    return tau


def n_chord_passes(contraction: float, precision: float) -> int:
    """Count the passes until the error, in mean magnitudes, is below the precision."""
    n_passes, error = 0, contraction * contraction
    while error > precision and n_passes <= MAX_CHORD_PASSES:
        n_passes, error = n_passes + 1, error * contraction
    return n_passes


def _newton(
    magnitude: Tensor, inverse: float | Tensor, tau: Tensor, dim: int | tuple[int, ...]
) -> Tensor:
    """Raise `tau` to the root of its equation by Newton's method."""
    n_before = torch.full_like(tau, magnitude.numel() // max(1, tau.numel()))
    while True:
        excess = (magnitude - tau).relu_()
        total = excess.sum(dim, keepdim=True)
        n_active = excess.sign_().sum(dim, keepdim=True)
        if torch.equal(n_active, n_before):
            return tau
        step = total.addcmul_(n_active, tau).div_(n_active + inverse)
        # Rounding alone could lower tau, and then the loop might not end. Where it has
        # dropped every member, the step may be 0 / 0, which fmax passes over.
        tau, n_before = torch.fmax(tau, step), n_active
