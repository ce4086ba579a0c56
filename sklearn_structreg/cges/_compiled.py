"""Which weights the compiled loops shrink, where numba is installed, and how."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import increment_version

from sklearn_structreg.cges._loops import shrink_columns, shrink_rows
from sklearn_structreg.cges._thresholds import (
    MAX_CHORD_PASSES,
    Strength,
    n_chord_passes,
)
from sklearn_structreg.core.compiled import compile_loop

# Set to False to do without.
ENABLED = True

# Between its inverse and this, plain squares do for every threshold: a norm whose
# square overflows or vanishes is too far from it to matter.
_REACH = 1e130

Kernel = Callable[[NDArray[Any], float, float, float, int], None]


class Plan(NamedTuple):
    """How weights of one shape and dtype are shrunk: the compiled loop, its matrix."""

    kernel: Kernel
    shape: tuple[int, int]
    n_members: int
    precision: float


def shrink_compiled(
    w: Tensor,
    group: Strength | None,
    exclusive: Strength | None,
    dim: int | tuple[int, ...],
    exact: bool,
    out: Tensor | None,
) -> Tensor | None:
    """Apply the operators as `shrink_groups` does, or return None: leave it to torch.

    What it takes are contiguous weights on the CPU in single or double precision, with
    numbers as strengths and groups over the leading or over the trailing dimensions.

    Parameters
    ----------
    w, group, exclusive, dim, exact, out
        As in `shrink_groups`; an operator that is None is left out.

    Returns
    -------
    Tensor, shape of `w`, or None
        The shrunk weights; with None, nothing has been done.
    """
    threshold = 0.0 if group is None else group.value
    strength = 0.0 if exclusive is None else exclusive.value
    if (
        not ENABLED
        or not isinstance(dim, (int, tuple))
        or isinstance(threshold, Tensor)
        or isinstance(strength, Tensor)
        or not (group is None or 1.0 / _REACH <= threshold <= _REACH)
        or type(w) not in (Tensor, torch.nn.Parameter)
        or not (w.is_cpu and w.is_contiguous())
        or (w.requires_grad and torch.is_grad_enabled())
        or (out is not None and out.shape != w.shape)
        or torch.compiler.is_compiling()
    ):
        return None
    plan = _plan(w.shape, w.dtype, dim)
    if plan is None:
        return None
    target = w.detach() if out is w else w.detach().clone()
    try:
        matrix = target.numpy().reshape(plan.shape)
    except RuntimeError:  # a tensor inside of vmap has no memory of its own
        return None
    inverse = 1.0 / strength if strength > 0.0 else math.inf
    divisor, n_passes = inverse, 0
    if exact and exclusive is not None:
        divisor += plan.n_members
        n_passes = n_chord_passes(strength * plan.n_members, plan.precision)
        if n_passes > MAX_CHORD_PASSES:
            n_passes = plan.n_members + 1
    plan.kernel(matrix, threshold, inverse, divisor, n_passes)
    if out is None:
        return target
    if out is not w:
        return out.copy_(target)
    increment_version(w)  # so that autograd sees the change, as after torch's own
    return w


@lru_cache
def _plan(
    shape: tuple[int, ...], dtype: torch.dtype, dim: int | tuple[int, ...]
) -> Plan | None:
    """Look at the weights as a matrix with a group to each column, or to each row."""
    dims = (dim,) if isinstance(dim, int) else dim
    n_dims, n_grouped = len(shape), len(dims)
    if 0 in shape or not all(-n_dims <= d < n_dims for d in dims):
        return None
    axes = sorted(d % n_dims for d in dims)
    if axes == list(range(n_dims - n_grouped, n_dims)):
        loop, cut = shrink_rows, n_dims - n_grouped
    elif axes == list(range(n_grouped)):
        loop, cut = shrink_columns, n_grouped
    else:
        return None
    kernel = _compile(loop, dtype)
    if kernel is None:
        return None
    matrix = math.prod(shape[:cut]), math.prod(shape[cut:])
    n_members = matrix[loop is shrink_rows]
    return Plan(kernel, matrix, n_members, torch.finfo(dtype).eps)


@lru_cache
def _compile(loop: Kernel, dtype: torch.dtype) -> Kernel | None:
    """Compile a loop for a dtype; None without numba, and in half precision."""
    real = {torch.float32: "float32", torch.float64: "float64"}.get(dtype)
    if real is None:
        return None
    signature = f"void({real}[:, ::1], float64, float64, float64, int64)"
    return compile_loop(loop, signature)
