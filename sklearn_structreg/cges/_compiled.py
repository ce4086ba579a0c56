"""The operators on groups as compiled loops, for plain weights on the CPU."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import increment_version

from sklearn_structreg.cges._loops import (
    shrink_columns,
    shrink_in_metric,
    shrink_matrices_in_metric,
    shrink_rows,
)
from sklearn_structreg.cges._thresholds import (
    MAX_CHORD_PASSES,
    Strength,
    n_chord_passes,
)
from sklearn_structreg.core.compiled import compile_loop

ENABLED = True  # the tests switch it off, to compare both paths
DTYPES = {torch.float32: "float32", torch.float64: "float64"}

# The loops take plain squares of thresholds between its inverse and this: a norm whose
# square overflows or vanishes is too far from such a threshold to matter.
_REACH = 1e130

Kernel = Callable[[NDArray[Any], float, float, float, int], None]


class Plan(NamedTuple):
    """How weights of a shape and dtype are shrunk: the compiled loop, the matrices."""

    kernel: Kernel
    shape: tuple[int, int, int]
    n_members: int
    by_row: bool
    precision: float
    real: str

    def run_each(
        self,
        matrices: NDArray[Any],
        thresholds: NDArray[np.float64],
        strengths: NDArray[np.float64],
        exact: bool,
    ) -> None:
        """Shrink the matrices of several weights in place, by each one's strengths."""
        parts = np.split(matrices, len(thresholds))
        for part, threshold, strength in zip(parts, thresholds, strengths, strict=True):
            self.run(part, float(threshold), float(strength), exact)

    def run(
        self, matrices: NDArray[Any], threshold: float, strength: float, exact: bool
    ) -> None:
        """Shrink the matrices in place; 0 leaves an operator out."""
        inverse = 1.0 / strength if strength > 0.0 else math.inf
        divisor, n_passes = inverse, 0
        if exact and strength > 0.0:
            divisor += self.n_members
            n_passes = n_chord_passes(strength * self.n_members, self.precision)
            if n_passes > MAX_CHORD_PASSES:
                n_passes = self.n_members + 1
        for matrix in matrices:
            self.kernel(matrix, threshold, inverse, divisor, n_passes)

    def run_in_metric(
        self,
        matrices: NDArray[Any],
        metric: NDArray[Any],
        thresholds: NDArray[np.float64],
        strengths: NDArray[np.float64],
        exact: bool,
    ) -> None:
        """Shrink the matrices in place, by a metric of their shape."""
        if self.by_row:
            matrices, metric = matrices.swapaxes(1, 2), metric.swapaxes(1, 2)
        n_each = len(matrices) // len(thresholds)
        by_matrix = np.repeat(thresholds, n_each), np.repeat(strengths, n_each)
        loop = _compile_metric(self.real)
        loop(matrices, metric, *by_matrix, exact, self.precision)


class BoundWeight:
    """A weight in training, with its memory as the loops take it from step to step.

    With `n_stacked` it is several weights, along a first dimension of their own, and
    each has a threshold and a strength.
    """

    def __init__(
        self,
        w: torch.nn.Parameter,
        dim: tuple[int, ...],
        split: tuple[int, ...] = (),
        n_stacked: int = 0,
    ) -> None:
        self.w, self.dim, self.split, self.n_stacked = w, dim, split, n_stacked
        self.plan: Plan | None = None
        self.pointer = -1

    def shrink(
        self,
        threshold: float | NDArray[np.float64],
        strength: float | NDArray[np.float64],
        exact: bool,
        metric: Tensor | None = None,
    ) -> bool:
        """Shrink the weight in place, or return False: its memory is not for loops."""
        if self.pointer != self.w.data_ptr():  # new memory: another device or dtype
            self._look()
        thresholds, strengths = np.atleast_1d(threshold), np.atleast_1d(strength)
        if self.plan is None or not ENABLED or not all(map(_in_reach, thresholds)):
            return False
        each = thresholds.astype(np.float64), strengths.astype(np.float64)
        if metric is None:
            self.plan.run_each(self.matrices, *each, exact)
        else:
            factors = metric.numpy().reshape(self.matrices.shape)
            self.plan.run_in_metric(self.matrices, factors, *each, exact)
        increment_version(self.w)  # so that autograd sees the change
        return True

    def _look(self) -> None:
        w = self.w.detach()
        self.pointer, self.plan = w.data_ptr(), None
        if w.is_cpu and w.is_contiguous():
            shape = w.shape[1:] if self.n_stacked else w.shape
            shape = self.split + shape[1:] if self.split else shape
            self.plan = _plan(shape, w.dtype, self.dim)
        if self.plan is not None:
            self.matrices = w.numpy().reshape(-1, *self.plan.shape[1:])


def _in_reach(threshold: float) -> bool:
    return threshold == 0.0 or 1.0 / _REACH <= threshold <= _REACH


def shrink_compiled(
    w: Tensor,
    group: Strength | None,
    exclusive: Strength | None,
    dim: int | tuple[int, ...],
    exact: bool,
    out: Tensor | None,
) -> Tensor | None:
    """Do as `shrink_by_torch`, or return None and do nothing.

    It takes contiguous weights on the CPU in single or double precision, with numbers
    as strengths and groups over dimensions that follow each other.
    """
    threshold = 0.0 if group is None else group.value
    strength = 0.0 if exclusive is None else exclusive.value
    if (
        not ENABLED
        or not isinstance(dim, (int, tuple))
        or isinstance(threshold, Tensor)
        or isinstance(strength, Tensor)
        or not _in_reach(threshold)
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
        matrices = target.numpy().reshape(plan.shape)
    except RuntimeError:  # a tensor inside of vmap has no memory of its own
        return None
    plan.run(matrices, threshold, strength, exact)
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
    """View the weights as matrices with a group to each column, or to each row."""
    dims, n_dims = (dim,) if isinstance(dim, int) else dim, len(shape)
    if dtype not in DTYPES or 0 in shape:
        return None
    if not all(-n_dims <= d < n_dims for d in dims):
        return None
    axes = {d % n_dims for d in dims}
    first, end = min(axes), max(axes) + 1
    between = set(range(first, end)) - axes
    if len(axes) < len(dims) or any(shape[axis] > 1 for axis in between):
        return None
    n_before, n_after = math.prod(shape[:first]), math.prod(shape[end:])
    n_members, by_row = math.prod(shape[first:end]), n_after == 1
    matrices = (n_before, n_members, n_after)
    if by_row or n_members == 1:
        matrices = (1, n_before, n_members) if by_row else (1, 1, n_before * n_after)
    kernel = _compile(shrink_rows if by_row else shrink_columns, dtype)
    precision = torch.finfo(dtype).eps
    return Plan(kernel, matrices, n_members, by_row, precision, DTYPES[dtype])


@lru_cache
def _compile(loop: Kernel, dtype: torch.dtype) -> Kernel:
    real = DTYPES[dtype]
    return compile_loop(loop, f"void({real}[:, ::1], float64, float64, float64, int64)")


@lru_cache
def _compile_metric(real: str) -> Callable[..., None]:
    arrays = f"{real}[:, :, :], {real}[:, :, :], float64[:], float64[:]"
    return compile_loop(
        shrink_matrices_in_metric,
        f"void({arrays}, boolean, float64)",
        shrink_in_metric,
    )
