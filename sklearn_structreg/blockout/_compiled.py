"""A masked linear layer on compiled loops; `masked_linear` is the same in torch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sklearn_structreg.blockout import _loops
from sklearn_structreg.blockout.masks import block_mask
from sklearn_structreg.core.compiled import compile_loop

__all__ = ["fused_linear"]

ENABLED = True  # benchmarks and tests compare with torch

MIN_WEIGHTS = 2**16  # below, the calls around the loops take longer than torch's
MIN_PER_THREAD = 2**18
MAX_BITS = 62  # clusters that fit into one integer key

Result = TypeVar("Result")
REALS = {torch.float32: "float32", torch.float64: "float64"}


class Kernels(NamedTuple):
    """The two loops, compiled for one dtype."""

    mask: Callable[..., Any]
    gradient: Callable[..., Any]


def fused_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    c_out: Tensor,
    c_in: Tensor,
    scale: float,
) -> Tensor | None:
    """Apply `masked_linear` with one mask for all rows; None is left to torch.

    The masked weight is kept for the backward pass, which writes the gradient of the
    weight over that of the masked one: a single matrix more than a plain layer needs.
    """
    tensors = [t for t in (x, weight, bias, c_out, c_in) if t is not None]
    if (
        not ENABLED
        or weight.numel() < MIN_WEIGHTS
        or not c_out.ndim == c_in.ndim == 2
        or weight.dtype not in REALS
        or not weight.is_contiguous()
        or not all(t.dtype == weight.dtype and _is_plain(t) for t in tensors)
        or torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu")
    ):
        return None
    arguments = x, weight, bias, c_out, c_in, scale
    y: Tensor = _FusedLinear.apply(*arguments)  # type: ignore[no-untyped-call]
    return y


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has memory that the loops can use."""
    if not tensor.is_cpu or type(tensor) not in (Tensor, torch.nn.Parameter):
        return False
    try:
        tensor.detach().numpy()
    except RuntimeError:  # inside vmap
        return False
    return True


class _FusedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        c_out: Tensor,
        c_in: Tensor,
        scale: float,
    ) -> Tensor:
        plan = _plan(c_out, c_in, scale)
        masked = torch.empty_like(weight)
        _mask(weight, plan, masked)
        ctx.save_for_backward(x, weight, masked, c_out, c_in)
        ctx.plan = plan
        return functional.linear(x, masked, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, masked, c_out, c_in = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled():  # the gradient is to be differentiated itself
            found = _differentiable(dy, x, weight, c_out, c_in, ctx.plan.scale)
            pairs = zip((*found, None), needs, strict=True)
            return tuple(gradient if need else None for gradient, need in pairs)
        rows = dy.reshape(-1, dy.shape[-1])
        dx = dy @ masked if needs[0] else None
        db = rows.sum(0) if needs[2] else None
        if not (needs[1] or needs[3] or needs[4]):
            return dx, None, db, None, None, None
        dw = (rows.mT @ x.reshape(-1, x.shape[-1])).contiguous()
        if not (needs[3] or needs[4]):
            _mask(dw, ctx.plan, dw)
            return dx, dw, db, None, None, None
        d_out, d_in = _mask_gradient(dw, weight, ctx.plan)
        return dx, dw, db, d_out, d_in, None


def _differentiable(
    dy: Tensor, x: Tensor, weight: Tensor, c_out: Tensor, c_in: Tensor, scale: float
) -> tuple[Tensor, ...]:
    """Return the gradients as torch operations, which have gradients themselves."""
    rows = dy.reshape(-1, dy.shape[-1])
    mask = block_mask(c_out, c_in, scale)
    dw = rows.mT @ x.reshape(-1, x.shape[-1])
    shared = dw * weight * (scale / c_out.shape[-1])
    d_out, d_in = shared @ c_in, shared.mT @ c_out
    return dy @ (weight * mask), dw * mask, rows.sum(0), d_out, d_in


class Plan(NamedTuple):
    """A mask for the loops: its factors, and the order to go through the outputs."""

    c_out: NDArray[Any]  # (d_out, k)
    c_in: NDArray[Any]  # (k, d_in)
    order: NDArray[np.int64]  # (d_out,): those in the same clusters side by side
    fresh: NDArray[np.bool_]  # (d_out,): where in `order` other clusters begin
    scale: float

    def parts(self, n_parts: int) -> list[Plan]:
        """Cut the outputs into parts, for as many threads."""
        orders = np.array_split(self.order, n_parts)
        parts = [part.copy() for part in np.array_split(self.fresh, n_parts)]
        for fresh in parts:
            fresh[0] = True
        return [
            self._replace(order=order, fresh=fresh)
            for order, fresh in zip(orders, parts, strict=True)
        ]


def _mask(weight: Tensor, plan: Plan, out: Tensor) -> None:
    """Mask a weight."""
    kernel, source, target = _kernels(weight.dtype).mask, weight.numpy(), out.numpy()

    def run(part: Plan) -> None:
        kernel(source, *part, target)

    _in_threads(run, plan, weight.numel())


def _mask_gradient(
    gradient: Tensor, weight: Tensor, plan: Plan
) -> tuple[Tensor, Tensor]:
    """Mask a gradient in place; return those of the outputs' and inputs' clusters."""
    kernel = _kernels(weight.dtype).gradient
    dual, matrix = gradient.numpy(), weight.numpy()
    d_out = np.zeros_like(plan.c_out)

    def run(part: Plan) -> NDArray[Any]:
        d_in = np.zeros_like(part.c_in)
        kernel(dual, matrix, *part, d_out, d_in)
        return d_in

    d_in = sum(_in_threads(run, plan, weight.numel()))
    return torch.from_numpy(d_out), torch.from_numpy(d_in).mT


def _in_threads(run: Callable[[Plan], Result], plan: Plan, size: int) -> list[Result]:
    """Run a loop on parts of the outputs, in as many threads as torch uses."""
    n_threads = min(torch.get_num_threads(), len(plan.order), size // MIN_PER_THREAD)
    if n_threads < 2:
        return [run(plan)]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(run, plan.parts(n_threads)))


def _plan(c_out: Tensor, c_in: Tensor, scale: float) -> Plan:
    outputs = np.ascontiguousarray(c_out.detach().numpy())
    inputs = np.ascontiguousarray(c_in.detach().numpy().T)
    n_outputs, n_clusters = outputs.shape
    order, fresh = np.arange(n_outputs), np.ones(n_outputs, np.bool_)
    if n_clusters <= MAX_BITS and (outputs == outputs.astype(np.bool_)).all():
        keys = outputs.astype(np.int64) @ (1 << np.arange(n_clusters))
        order = np.argsort(keys, kind="stable")
        fresh[1:] = np.diff(keys[order]) != 0
    return Plan(outputs, inputs, order, fresh, float(scale))


@lru_cache
def _kernels(dtype: torch.dtype) -> Kernels:
    """Compile the loops for a dtype."""
    real = REALS[dtype]
    matrix = f"{real}[:, ::1]"
    plan = f"{matrix}, {matrix}, int64[::1], boolean[::1], float64"
    mask = f"{matrix}, {plan}, {matrix}"
    parts = _loops.mask_row, _loops.add_rows
    return Kernels(
        compile_loop(_loops.mask_weight, f"void({mask})", parts[0]),
        compile_loop(_loops.mask_gradient, f"void({matrix}, {mask}, {matrix})", *parts),
    )
