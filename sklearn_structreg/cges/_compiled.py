"""The operators on groups as compiled loops, for plain weights on the CPU."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import increment_version

from sklearn_structreg.cges._loops import (
    shrink_columns,
    shrink_in_metric,
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
    """How weights of one shape and dtype are shrunk: the compiled loop, its matrix."""

    kernel: Kernel
    shape: tuple[int, int]
    n_members: int
    by_row: bool
    precision: float

    def run(
        self, matrix: NDArray[Any], threshold: float, strength: float, exact: bool
    ) -> None:
        """Shrink the matrix in place; 0 leaves an operator out."""
        inverse = 1.0 / strength if strength > 0.0 else math.inf
        divisor, n_passes = inverse, 0
        if exact and strength > 0.0:
            divisor += self.n_members
            n_passes = n_chord_passes(strength * self.n_members, self.precision)
            if n_passes > MAX_CHORD_PASSES:
                n_passes = self.n_members + 1
        self.kernel(matrix, threshold, inverse, divisor, n_passes)

    def run_in_metric(
        self,
        matrix: NDArray[Any],
        metric: NDArray[Any],
        threshold: float,
        strength: float,
        exact: bool,
    ) -> None:
        """Shrink the matrix in place, by a metric of its shape."""
        if self.by_row:
            matrix, metric = matrix.T, metric.T
        loop = _compile_metric(matrix.dtype.name)
        loop(matrix, metric, threshold, strength, exact, self.precision)


class BoundWeight:
    """A weight in training, with its memory as the loops take it from step to step."""

    def __init__(self, w: torch.nn.Parameter, dim: tuple[int, ...]) -> None:
        self.w, self.dim = w, dim
        self.plan: Plan | None = None
        self.pointer = -1

    def shrink(
        self,
        threshold: float,
        strength: float,
        exact: bool,
        metric: Tensor | None = None,
    ) -> bool:
        """Shrink the weight in place, or return False: its memory is not for loops."""
        if self.pointer != self.w.data_ptr():  # new memory: another device or dtype
            self._look()
        if self.plan is None or not ENABLED or not _in_reach(threshold):
            return False
        if metric is None:
            self.plan.run(self.matrix, threshold, strength, exact)
        else:
            factors = metric.numpy().reshape(self.plan.shape)
            self.plan.run_in_metric(self.matrix, factors, threshold, strength, exact)
        increment_version(self.w)  # so that autograd sees the change
        return True

    def _look(self) -> None:
        w = self.w.detach()
        self.pointer, self.plan = w.data_ptr(), None
        if w.is_cpu and w.is_contiguous():
            self.plan = _plan(w.shape, w.dtype, self.dim)
        if self.plan is not None:
            self.matrix = w.numpy().reshape(self.plan.shape)


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
    as strengths and groups over the leading or over the trailing dimensions.
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
        matrix = target.numpy().reshape(plan.shape)
    except RuntimeError:  # a tensor inside of vmap has no memory of its own
        return None
    plan.run(matrix, threshold, strength, exact)
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
    """View the weights as a matrix with a group to each column, or to each row."""
    dims = (dim,) if isinstance(dim, int) else dim
    n_dims, n_grouped = len(shape), len(dims)
    if dtype not in DTYPES or 0 in shape:
        return None
    if not all(-n_dims <= d < n_dims for d in dims):
        return None
    axes = sorted(d % n_dims for d in dims)
    if axes == list(range(n_dims - n_grouped, n_dims)):
        loop, cut = shrink_rows, n_dims - n_grouped
    elif axes == list(range(n_grouped)):
        loop, cut = shrink_columns, n_grouped
    else:
        return None
    matrix = math.prod(shape[:cut]), math.prod(shape[cut:])
    by_row = loop is shrink_rows
    precision = torch.finfo(dtype).eps
    return Plan(_compile(loop, dtype), matrix, matrix[by_row], by_row, precision)


@lru_cache
def _compile(loop: Kernel, dtype: torch.dtype) -> Kernel:
    real = DTYPES[dtype]
    return compile_loop(loop, f"void({real}[:, ::1], float64, float64, float64, int64)")


@lru_cache
def _compile_metric(real: str) -> Callable[..., None]:
    arrays = f"{real}[:, :], {real}[:, :]"
    return compile_loop(
        shrink_in_metric, f"void({arrays}, float64, float64, boolean, float64)"
    )
