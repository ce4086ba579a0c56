"""Strengths, norms and thresholds: the torch path of the operators on groups.

Every quantity here has one value per group, kept with size 1 along the dimensions
that a group runs over, so that it broadcasts against the weights.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sklearn_structreg.core.checks import is_integer, is_number

# More passes than this cost more than Newton's method with its convergence check.
MAX_CHORD_PASSES = 3


class Strength(NamedTuple):
    """A checked strength, aligned with the weights' dimensions, and its range."""

    value: float | Tensor
    smallest: float
    largest: float


def check_strength(
    strength: float | Tensor,
    w: Tensor,
    dim: int | tuple[int, ...] | None = None,
    name: str = "strength",
    *,
    grouped: bool = True,
) -> Strength:
    """Validate a strength and align it with weights, which `grouped` are by `dim`."""
    if not (isinstance(w, Tensor) and w.is_floating_point()):
        kind = w.dtype if isinstance(w, Tensor) else type(w).__name__
        raise TypeError(f"w must be a floating-point tensor; got {kind}.")
    if w.is_meta or w.layout is not torch.strided:
        raise TypeError("w must be a dense tensor, not a sparse or meta one.")
    if grouped:
        _check_dim(dim, w)
    if not isinstance(strength, Tensor):
        if not is_number(strength):
            raise TypeError(f"{name}={strength!r} must be a number or a tensor.")
        strength = float(strength)
        checked = Strength(strength, strength, strength)
    elif strength.numel() == 0:
        raise ValueError(f"{name} must not be an empty tensor.")
    else:
        limits = torch.aminmax(strength.detach())
        aligned = _align(strength.detach(), w, dim, name).to(w)
        checked = Strength(aligned, float(limits.min), float(limits.max))
    if not 0.0 <= checked.smallest <= checked.largest < float("inf"):
        several = checked.smallest != checked.largest
        raise ValueError(
            f"{name} must be finite and at least 0; got {checked.smallest:g}"
            + (" as its smallest value." if several else ".")
        )
    return checked


def _check_dim(dim: Any, w: Tensor) -> None:
    """Check for dimensions of `w`, each named once."""
    dims = dim if isinstance(dim, tuple) else (dim,)
    if not dims:  # torch would take this for a single group of all weights
        raise ValueError("dim must name at least one dimension.")
    known = all(is_integer(d, -w.ndim) and d < w.ndim for d in dims)
    if not known or len({d % w.ndim for d in dims}) < len(dims):
        raise ValueError(
            f"dim={dim!r} must name dimensions of w, which has {w.ndim}, each once."
        )


def check_out(out: Any, w: Tensor) -> None:
    """Check that a result fits its destination."""
    if out is None or out is w:
        return
    if not isinstance(out, Tensor) or out.dtype != w.dtype:
        kind = out.dtype if isinstance(out, Tensor) else type(out).__name__
        raise TypeError(f"out must be a tensor of {w.dtype}, as w is; got {kind}.")
    if out.shape != w.shape:
        raise ValueError(
            f"out has shape {tuple(out.shape)}, but w {tuple(w.shape)}; they must be "
            "the same."
        )


def _align(
    strength: Tensor, w: Tensor, dim: int | tuple[int, ...] | None, name: str
) -> Tensor:
    """Append dimensions until `strength` broadcasts against `w` group by group."""
    dims = (dim,) if isinstance(dim, int) else dim or ()
    grouped = {axis % w.ndim for axis in dims}
    missing = w.ndim - strength.ndim
    shape = (*strength.shape, *(1,) * missing)
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


def group_coefficient(
    w: Tensor, threshold: Strength, dim: int | tuple[int, ...]
) -> Tensor:
    """Factor by which the group lasso shrinks each group: (1 - threshold / norm)_+."""
    value, smallest, largest = threshold
    reach = _reach(w.dtype)
    if 1.0 / reach <= smallest and largest <= reach:
        # A square that overflows or vanishes makes the factor 1 or 0 here. Rounded,
        # that is its value: such a norm is too far from a threshold within reach.
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
    """Largest threshold, and inverse of the smallest, that plain squares allow."""
    limits = torch.finfo(dtype)
    return float(limits.max**0.5 * limits.eps / 4.0)


def exclusive_threshold(
    w: Tensor, strength: Strength, dim: int | tuple[int, ...], exact: bool
) -> Tensor:
    """Amount tau that the exclusive lasso takes off each magnitude of a group."""
    # The exact tau solves tau = s * sum_i (|w_i| - tau)_+. In a group of n this reads
    # tau = (sum_i |w_i| + sum_i (tau - |w_i|)_+) / (1/s + n), and the right-hand side
    # is a contraction with a factor below q = s * n. The first tau, without the second
    # sum, is wrong by at most q**2 times the mean magnitude, and each pass takes a
    # factor q off the error. For small q the number of passes is therefore known
    # beforehand, and no pass has to wait for a comparison.
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
    # The equation is concave and piecewise linear, so that the steps increase tau and
    # end at the root once the number of active members stays the same.
    n_before = torch.full_like(tau, magnitude.numel() // max(1, tau.numel()))
    while True:
        excess = (magnitude - tau).relu_()
        total = excess.sum(dim, keepdim=True)
        n_active = excess.sign_().sum(dim, keepdim=True)
        if torch.equal(n_active, n_before):
            return tau
        step = total.addcmul_(n_active, tau).div_(n_active + inverse)
        # The larger of the two, because rounding alone could lower tau, and the loop
        # might not end. Without an active member the step can be 0 / 0; fmax takes the
        # other one, tau, in place of a NaN.
        tau, n_before = torch.fmax(tau, step), n_active


def shrink_by_torch(
    w: Tensor,
    group: Strength | None,
    exclusive: Strength | None,
    dim: int | tuple[int, ...],
    exact: bool,
    out: Tensor | None,
) -> Tensor:
    """Apply the group operator and then the exclusive one; None leaves one out."""
    # Adding a product to 0.0 turns the zero of a negative weight, -0.0, into 0.0.
    zero = w.new_zeros(())
    if exclusive is None:
        assert group is not None
        return torch.addcmul(zero, w, group_coefficient(w, group, dim), out=out)
    tau = exclusive_threshold(w, exclusive, dim, exact)
    clipped = torch.clamp(w, -tau, tau)
    if group is None:
        return torch.sub(w, clipped, out=out)
    # The exclusive operator commutes with a scaling of the group, so the factor of the
    # group operator comes last.
    coefficient = group_coefficient(w, group, dim)
    return torch.addcmul(zero, clipped.sub_(w), coefficient, value=-1.0, out=out)
