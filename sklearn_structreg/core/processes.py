"""One training on several processes, as `torchrun` starts them.

All of them read the same mini-batches. Each runs the network on a share of the rows and
gets the outputs for the others: losses, figures and all that follows from them are then
those of one process. The gradients of the shares are averaged. All that is sent goes
through `torch.distributed`.
"""

from __future__ import annotations

import atexit
import io
import multiprocessing
import os
import re
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor, distributed, nn
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sklearn_structreg.core.messages import LONGEST_REASON
from sklearn_structreg.core.recipe import Recipe

__all__ = [
    "Processes",
    "Share",
    "draw_for_rows",
    "draw_seed",
    "from_first",
    "here",
    "one_voice",
]

T = TypeVar("T")
STARTED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # set by torchrun
DRAWING = {
    *(functional.dropout, functional.alpha_dropout, functional.feature_alpha_dropout),
    *(functional.dropout1d, functional.dropout2d, functional.dropout3d),
    functional.rrelu,
}
"""Functions that draw for each row of their first argument."""


class _Thread(threading.local):
    share: Share | None = None


_thread = _Thread()


def here() -> Processes | None:
    """Return the processes that divide a training in this thread; None is this one.

    Those that `torchrun` has started are joined. Workers of joblib train alone.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    if not distributed.is_available():
        return None
    if not distributed.is_initialized():
        known = all(name in os.environ for name in STARTED)
        is_worker = multiprocessing.parent_process() is not None
        if not known or is_worker or int(os.environ["WORLD_SIZE"]) < 2:
            return None
        _join()
    processes = Processes(distributed.get_rank(), distributed.get_world_size())
    return processes if processes.size > 1 else None


def _join() -> None:
    """Join the other processes, each with a device of its own where there are any."""
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available() and number < torch.cuda.device_count():
        torch.cuda.set_device(number)
    with _explaining():
        found = distributed.rendezvous("env://")  # type: ignore[attr-defined]
        store, rank, size = next(found)
        # torchrun keeps the store where it starts all again: other keys each time.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = distributed.PrefixStore(  # type: ignore[attr-defined]
            f"attempt {attempt}", store
        )
        distributed.init_process_group(store=store, rank=rank, world_size=size)
    atexit.register(_leave)


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def _explaining() -> Iterator[None]:
    """Say in one sentence that others do not answer."""
    try:
        yield
    except RuntimeError as error:
        said = re.sub(r"\[\S*:\d+\] ", "", str(error))  # without gloo's line of code
        reason = textwrap.shorten(said, LONGEST_REASON, placeholder="...")
        raise ConnectionError(
            f"Another process of this training has ended or does not answer ({reason})"
            "; start all of them again, and let each call fit: with "
            "checkpoint='folder' it goes on from its last whole epoch."
        ) from error


def from_first(make: Callable[[], T]) -> T:
    """Return for all processes what the first one makes, or raise its error."""
    processes = here()
    if processes is None:
        return make()
    made: list[Any] = [None, None]
    if processes.rank == 0:
        try:
            made[0] = make()
        except Exception as error:
            made[1] = error
    with _explaining():
        distributed.broadcast_object_list(made)
    if made[1] is not None:
        raise made[1]
    value: T = made[0]
    return value


@contextmanager
def one_voice() -> Iterator[None]:
    """Let the first process alone print and warn."""
    processes = here()
    if processes is None or processes.rank == 0:
        yield
        return
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def draw_seed(random_state: Any) -> int:
    """Draw a seed by a parameter `random_state`, the same for all processes."""
    largest = np.iinfo(np.int32).max
    return from_first(lambda: int(check_random_state(random_state).randint(largest)))


@dataclass(frozen=True)
class Processes:
    """The processes of a training: how many, and the number of this one."""

    rank: int
    size: int

    def check(self, device: torch.device, recipe: Recipe) -> None:
        """Refuse a device or an option that the processes cannot have."""
        if recipe.compile:
            raise ValueError(
                "compile=True is for a training on one process; set compile=False, or "
                "start one process."
            )
        self._check_device(device)

    def _check_device(self, device: torch.device) -> None:
        if device.type not in ("cpu", "cuda"):
            raise ValueError(
                f"device={device.type!r} cannot train on several processes; set "
                "device='cpu', or start one process."
            )
        n_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if device.type == "cuda" and n_local > torch.cuda.device_count():
            raise ValueError(
                f"{n_local} processes share {torch.cuda.device_count()} GPUs of this "
                "machine; start one for each (--nproc-per-node), or set device='cpu'."
            )

    def check_alike(self, identity: Mapping[str, str]) -> None:
        """Refuse data or parameters of which the processes have different ones."""
        found: list[Any] = [None] * self.size
        with _explaining():
            distributed.all_gather_object(found, dict(identity))
        first = found[0]
        names = {n for other in found for n in {*first, *other}}
        differing = [
            n for n in sorted(names) if any(x.get(n) != first.get(n) for x in found)
        ]
        if differing:
            raise ValueError(
                f"The processes differ in {', '.join(differing)}; give all of them the "
                "same, by fixed seeds: each takes its share of every mini-batch itself."
            )

    def synchronize(self, module: nn.Module) -> None:
        """Give all processes the first one's weights and buffers."""
        self._check_device(next(module.parameters()).device)
        with torch.no_grad(), _explaining():
            for tensor in (*module.parameters(), *module.buffers()):
                whole = tensor.detach().contiguous()
                distributed.broadcast(whole, 0)
                tensor.copy_(whole)

    def share(self, n_rows: int) -> Share | None:
        """Return the share of a mini-batch; None where all compute the whole of it."""
        return None if n_rows < self.size else Share(self, n_rows)

    def rows(self, n_rows: int) -> slice:
        """Return the rows of a mini-batch that this process computes."""
        if n_rows < self.size:
            return slice(0, n_rows)
        first, last = (n_rows * (self.rank + i) // self.size for i in (0, 1))
        return slice(first, last)

    def average_gradients(self, module: nn.Module) -> None:
        """Average the gradients; None stays where all processes have None."""
        learned = [p for p in module.parameters() if p.requires_grad]
        for dtype in dict.fromkeys(p.dtype for p in learned):  # in one order
            some = [p for p in learned if p.dtype == dtype]
            parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in some]
            found = parts[0].new_tensor([p.grad is not None for p in some])
            sums = _add_up(torch.cat([*(part.flatten() for part in parts), found]))
            *grads, n_found = torch.split(sums, [*(p.numel() for p in some), len(some)])
            for p, grad, n in zip(some, grads, n_found.tolist(), strict=True):
                if n:
                    p.grad = grad.view_as(p) / self.size


class Share(TorchFunctionMode):
    """The rows of a mini-batch that this process computes, and a context to do so.

    In it, torch's dropout draws what one process would for these rows, and batch
    normalization takes the moments of all rows.
    """

    def __init__(self, processes: Processes, n_rows: int) -> None:
        super().__init__()
        self.processes, self.n_rows = processes, n_rows
        self.rows = processes.rows(n_rows)
        self.start, self.stop = self.rows.start, self.rows.stop

    def __enter__(self) -> Share:
        _thread.share = self
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _thread.share = None

    def gather(self, outputs: Tensor) -> Tensor:
        """Return the outputs for all rows; gradients reach those of this process.

        These are for gradients that are averaged: larger by the number of processes.
        """
        whole = outputs.new_zeros(self.n_rows, *outputs.shape[1:])
        whole[self.rows] = outputs.detach()
        _add_up(whole)
        if not outputs.requires_grad:
            return whole
        size = self.processes.size
        outputs.register_hook(lambda slope: slope * size)  # type: ignore[no-untyped-call]
        return torch.cat([whole[: self.start], outputs, whole[self.stop :]])

    def repeats(self, n_rows: int) -> int:
        """Return how many times a tensor has this share's rows, one by one; 0 is not.

        Samples may be sequences whose steps a layer takes for rows.
        """
        n_times, rest = divmod(n_rows, self.stop - self.start)
        return 0 if rest else n_times

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if func in DRAWING:
            return self._draw(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _draw(self, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Let a function draw for all rows."""
        n_times = self.repeats(len(x)) if x.ndim else 0
        before, after = self.start * n_times, (self.n_rows - self.stop) * n_times
        padding = [0, 0] * (x.ndim - 1) + [before, after]
        whole = functional.pad(x, padding) if n_times else x
        return func(whole, *args, **kwargs)[before:][: len(x)]

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """Normalize by the moments of all rows."""
        n_values = x.numel() // x.shape[1] * self.n_rows // (self.stop - self.start)
        if not training or n_values < 2:  # torch refuses a single value
            moments = running_mean, running_var
            return functional.batch_norm(
                x, *moments, weight, bias, training, momentum, eps
            )
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
        mean = _sum(values.sum(axes)) / n_values
        values = values - mean.view(shape)
        var = _sum(values.square().sum(axes)) / n_values
        with torch.no_grad():
            if running_mean is not None and running_var is not None:
                running_mean.lerp_(mean.to(running_mean), momentum)
                unbiased = var * (n_values / (n_values - 1))
                running_var.lerp_(unbiased.to(running_var), momentum)
        values = values * (var + eps).rsqrt().view(shape)
        if weight is not None:
            values = values * weight.view(shape)
        if bias is not None:
            values = values + bias.view(shape)
        normed: Tensor = values.to(x)
        return normed


class _Sum(Function):
    """The sum over the processes, and of its slopes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _add_up(x.clone())

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return _add_up(slope.clone())


def _sum(x: Tensor) -> Tensor:
    """Return the sum over the processes, with its gradient."""
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total


def summed(x: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes, with its gradient."""
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total


def _add_up(tensor: Tensor) -> Tensor:
    """Replace a tensor by its sum over the processes."""
    with _explaining():
        distributed.all_reduce(tensor)
    return tensor


def draw_for_rows(
    draw: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...]
) -> Tensor:
    """Draw a tensor of a shape that begins with the rows of a mini-batch.

    Where these are a share, it is that of a draw for all rows. ``()`` is one draw for
    all.
    """
    share = _thread.share
    n_times = share.repeats(shape[0]) if share and shape else 0
    if share is None or n_times == 0:
        return draw(shape)
    rows = slice(share.start * n_times, share.stop * n_times)
    return draw((share.n_rows * n_times, *shape[1:]))[rows]
