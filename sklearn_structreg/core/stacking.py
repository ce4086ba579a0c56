"""Networks of one shape in one training, each with the result that it has alone.

The members' weights are parts of a stacked network's. So all that a member's own net,
regularizers and callbacks do to it is done to the stack, and only the passes and the
steps of the optimizer, which take the time, are those of the stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sklearn_structreg.core.batches import (
    Batch,
    Batches,
    TensorBatches,
    all_after,
    side_by_side,
)
from sklearn_structreg.core.breakdown import reason_of
from sklearn_structreg.core.losses import default_loss
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.randomness import Draws, derive_seed
from sklearn_structreg.core.regularizer import Regularizer
from sklearn_structreg.core.skorch_callbacks import listens_to_batches
from sklearn_structreg.core.stacked_layers import StackedNetwork, is_chain, shape_of
from sklearn_structreg.core.stacked_optimizer import BY_ENTRY, StackedOptimizer
from sklearn_structreg.core.task import Task

__all__ = ["Job", "can_stack", "groups_of", "train_together"]

CACHE_BYTES = 32 * 2**20  # of weights, their gradients, and Adam's two moments
FEWEST = 3  # members; fewer are trained as fast alone


@dataclass
class Job:
    """A net to train, its batches, and the error that has ended its training."""

    net: StructuredNet
    train: Batches
    valid: Batches | None = None
    error: Exception | None = None

    def attempt(self, action: Callable[..., Any], *args: Any, **more: Any) -> bool:
        """Do something for this member alone; return whether its training goes on."""
        if self.error is not None:
            return False
        try:
            action(*args, **more)
        except KeyboardInterrupt:
            if not self.net._stop_requested:  # Ctrl-C, not early stopping
                raise
            return False
        except Exception as error:
            reason = reason_of(error, self.net)
            self.error = error if reason is None else ValueError(reason)
            return False
        return True

    def notify(self, event: str) -> bool:
        """Tell the callbacks of an epoch's beginning or end."""
        data = {"dataset_train": self.train, "dataset_valid": self.valid}
        return self.attempt(self.net.notify, event, **data)

    @property
    def stream(self) -> tuple[int, int]:
        """The samples in their order: jobs that share it see the same batches."""
        return id(self.train), self.net.seed if self.train.n_batches > 1 else 0


def groups_of(jobs: Sequence[Job]) -> list[Sequence[Job]]:
    """Divide jobs that can be stacked into groups to train together."""
    by_key: dict[Any, dict[Any, list[Job]]] = {}
    for job in jobs:
        streams = by_key.setdefault(_key(job), {})
        streams.setdefault(job.stream, []).append(job)
    groups: list[Sequence[Job]] = []
    for streams in by_key.values():
        # On the same batches the first layer is one product; few do better together.
        few: list[Job] = []
        for members in streams.values():
            if len(members) >= FEWEST:
                groups += _cut(members)
            else:
                few += members
        groups += _cut(few)
    return groups


def _cut(members: Sequence[Job]) -> list[Sequence[Job]]:
    """Cut a group into parts that fit into a cache, or into jobs alone."""
    if not members:
        return []
    n_groups = -(-len(members) // _n_in_cache(members[0]))
    if len(members) < FEWEST * n_groups:
        n_groups = len(members)
    return [members[i::n_groups] for i in range(n_groups)]


def _n_in_cache(job: Job) -> int:
    weights = job.net.module_.parameters()
    state: int = sum(4 * w.numel() * w.element_size() for w in weights)
    return max(1, CACHE_BYTES // max(1, state))


def can_stack(job: Job) -> bool:
    """Whether a job can be trained with others of its kind, and gains by it."""
    net, recipe = job.net, job.net.recipe
    return (
        recipe.optimizer in BY_ENTRY
        and recipe.lr_schedule in (None, "cosine")
        and recipe.precision == "float32"
        and not (recipe.callbacks or recipe.verbose or recipe.compile)
        and recipe.augment is None
        and recipe.clip_grad_norm is None
        and recipe.average_weights is None
        and isinstance(job.train, TensorBatches)
        and isinstance(job.valid, TensorBatches | None)
        and len(net.history) == 0
        and not listens_to_batches(net.callbacks_)
        and all(each.can_stack for each in net.regularizers.values())
        and is_chain(net.module_)
        and _n_in_cache(job) >= FEWEST
    )


def _key(job: Job) -> Any:
    """Return the properties that the members of a group share."""
    recipe = replace(job.net.recipe, learning_rate=0.0, optimizer_settings={})
    return (
        recipe,
        tuple(job.train.sizes),
        job.valid and tuple(job.valid.sizes),
        [(name, type(each)) for name, each in job.net.regularizers.items()],
        shape_of(job.net.module_),
    ).__repr__()


def train_together(jobs: Sequence[Job]) -> None:
    """Train jobs of one group; afterwards each has its trained net, or its error."""
    if len(jobs) == 1:
        jobs[0].attempt(jobs[0].net.train, jobs[0].train, jobs[0].valid)
        jobs[0].net.forget_last_steps()
        return
    for job in jobs:
        job.net.begin(job.train, job.valid)
    active = [
        job
        for job in jobs
        if job.attempt(job.net.notify, "on_train_begin", X=job.train, y=None)
    ]
    n_epochs = jobs[0].net.max_epochs
    while active and len(active[0].net.history) < n_epochs:
        stack = _Stack(active)
        while len(active) == len(stack.jobs) and len(active[0].net.history) < n_epochs:
            active = stack.train_epoch()
        stack.network.release()
    for job in jobs:
        if job.attempt(job.net.notify, "on_train_end", X=job.train, y=None):
            job.attempt(job.net.end, job.train)
        job.net.forget_last_steps()


class _Stack:
    """Jobs whose nets are parts of one for some epochs."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs, self.nets = list(jobs), [job.net for job in jobs]
        self.is_shared = len({job.stream for job in jobs}) == 1
        modules = [net.module_ for net in self.nets]
        self.network = StackedNetwork(modules, shared=self.is_shared)
        self.network.draws = self._draws_of
        self.draws: dict[int, Draws] = {}  # in this epoch, of those that draw
        self.seeds: list[int] = []
        self.parts: list[Any] = [
            *(job.train for job in jobs),
            *(job.valid for job in jobs),
        ]
        if self.network.beginning is not None:  # act once, instead of in every epoch
            parts = all_after(self.network.beginning, self.parts)
            if parts is not None:
                self.parts = parts
                del self.network.layers[0]
        self.optimizer = StackedOptimizer(self.nets, self.network.bound)
        bound = self.network.bound
        acting = [net.regularizers.with_hook("after_step") for net in self.nets]
        self.regularizers = list(zip(*acting, strict=True))
        self.penalized = [
            (number, net)
            for number, net in enumerate(self.nets)
            if net.regularizers.with_hook("penalty")
        ]
        self.gradients = [b.whole.grad for b in bound if b.whole.grad is not None]

    def train_epoch(self) -> list[Job]:
        """Train and validate for an epoch; return the jobs that go on."""
        for job in self.jobs:
            job.notify("on_epoch_begin")
        self.optimizer.begin_epoch()
        self._run(training=True)
        if self.jobs[0].valid is not None:
            self._run(training=False)
        return [job for job in self.jobs if job.notify("on_epoch_end")]

    def _run(self, *, training: bool) -> None:
        """Run all mini-batches, and record the figures of every member."""
        seeds = [derive_seed(net.seed, len(net.history)) for net in self.nets]
        self.seeds, self.draws = seeds, {}
        self.network.train(training)
        for net in self.nets:
            if net.regularizers or net.module_.training != training:
                net.module_.train(training)
        losses, shares, sizes = [], [], []
        for X, y, weight in self._batches(seeds, training):
            with torch.set_grad_enabled(training):
                outputs = self.network(X)
                values = self._losses(outputs, y, weight)
            if training:
                self._step(values)
            elif (hits := self._hits(outputs, y)) is not None:
                hits = hits.to(values.dtype)
                shares.append((hits if weight is None else hits * weight).mean(dim=0))
            losses.append(values.detach())
            sizes.append(len(y))
        if training:
            for number, job in enumerate(self.jobs):
                if job.net.regularizers:
                    with self._draws_of(number):
                        net = job.net
                        job.attempt(net.regularizers.before_validation, net.module_)
        mean_losses, mean_shares = _means(losses, sizes), _means(shares, sizes)
        prefix = "train" if training else "valid"
        for k, job in enumerate(self.jobs):
            share = mean_shares[k] if shares else None
            job.attempt(job.net.record_epoch, prefix, mean_losses[k], share, len(sizes))

    def _batches(self, seeds: Sequence[int], training: bool) -> Iterator[Batch]:
        """Yield samples (b, c, ...) or (b, K c, ...), targets and weights (b, K)."""
        n_members = len(self.jobs)
        parts = self.parts[:n_members] if training else self.parts[n_members:]
        orders = seeds if training else [None] * n_members
        if not self.is_shared:
            for X, y, weight in side_by_side(parts, orders):
                yield X.flatten(1, 2), y, weight
            return
        for X, y, weight in parts[0].epoch(orders[0]):
            y = y[:, None].expand(-1, n_members, *y.shape[1:])
            yield X, y, None if weight is None else weight[:, None]

    def _losses(self, outputs: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        """Return the mean loss of every member."""
        recipe = self.nets[0].recipe
        if recipe.criterion is not None:
            weights: list[Tensor | None] = [None] * len(self.nets)
            if weight is not None:
                weights = list(weight.expand(y.shape[:2]).unbind(1))
            each = zip(self.nets, outputs.unbind(1), y.unbind(1), weights, strict=True)
            return torch.stack([net.criterion_(o, t, w) for net, o, t, w in each])
        if recipe.task is Task.CLASSES:  # faster with rows last
            rows_last = outputs.permute(1, 2, 0).contiguous()
            losses = default_loss(recipe.task, rows_last, y.t()).t()
        else:
            target = y.flatten(0, 1).to(outputs.dtype)
            losses = default_loss(recipe.task, outputs.flatten(0, 1), target)
            if losses.ndim > 1:
                losses = losses.flatten(1).mean(dim=1)
            losses = losses.view(y.shape[:2])
        return (losses if weight is None else losses * weight).mean(dim=0)

    def _hits(self, outputs: Tensor, y: Tensor) -> Tensor | None:
        task = self.nets[0].recipe.task
        hits = task.hits(outputs.flatten(0, 1), y.flatten(0, 1))
        return None if hits is None else hits.view(y.shape[:2])

    def _step(self, losses: Tensor) -> None:
        torch._foreach_zero_(self.gradients)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        for k, net in self.penalized:
            penalty = net.regularizers.penalty(net.module_)
            if penalty is not None:
                penalty.backward()  # type: ignore[no-untyped-call]
                losses.data[k] += penalty.detach()
        self.optimizer.step()
        for members in self.regularizers:
            if not type(members[0]).after_stacked_step(members, self.optimizer):
                self._act(members)

    def _act(self, members: Sequence[Regularizer]) -> None:
        """Let each regularizer act on its own network."""
        each = zip(self.jobs, members, strict=True)
        for number, (job, regularizer) in enumerate(each):
            with self._draws_of(number):
                net = job.net
                job.attempt(regularizer.after_step, net.module_, net.optimizer_)

    def _draws_of(self, number: int) -> Draws:
        """Return the random numbers of a member in this epoch."""
        if number not in self.draws:
            self.draws[number] = self.nets[number].draws(self.seeds[number])
        return self.draws[number]


def _means(values: Sequence[Tensor], sizes: Sequence[int]) -> list[float]:
    """Return the mean over rows for every member; nothing of nothing."""
    if not values:
        return []
    rows = torch.tensor(sizes, dtype=torch.float64)
    means: list[float] = (
        rows @ torch.stack([*values]).cpu().double() / rows.sum()
    ).tolist()
    return means
