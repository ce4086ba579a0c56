"""A size asked for: channels go until the multiply-adds, or the latency, fit it."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor, nn

from sklearn_structreg.cges.layers import forget_best
from sklearn_structreg.compaction.channels import Bools, Floats, Ids
from sklearn_structreg.compaction.compact import compact, simplified_copy
from sklearn_structreg.compaction.counting import (
    WEIGHTED,
    count_multiply_adds,
    measure_latencies,
    uncompiled,
)
from sklearn_structreg.compaction.graph import layer_name, trace
from sklearn_structreg.compaction.liveness import follow
from sklearn_structreg.core.parameters import component, parameter
from sklearn_structreg.core.processes import from_first
from sklearn_structreg.core.standardization import fold_standardization

if TYPE_CHECKING:
    from sklearn_structreg.cges.regularizer import CGES
else:
    CGES = Any

__all__ = [
    "Channels",
    "ReachTarget",
    "TargetParameters",
    "check_target",
    "example_of",
    "resume_target",
    "target_of",
]

SHARE = [Interval(Real, 0, 1, closed="right"), None]
CLOSE = 0.005  # of the whole network: near enough to a target
TIMED_ROWS = 128
N_SIZES = 7  # tried on the way to a latency


@component
class TargetParameters:
    """The parameters of a size to reach; off by default."""

    target_multiply_adds: float | None = parameter(
        None,
        SHARE,
        "float in (0, 1] or None",
        """Share of the network's multiply-adds that :func:`compact` is to leave, or as
        much less as one unit or channel is worth. Those with the smallest weights go, a
        few more with every epoch, up to the `refit`. The penalty of `alpha` decreases
        on the way there and rests from then on. None leaves the size to `alpha`.""",
    )
    target_latency: float | None = parameter(
        None,
        SHARE,
        "float in (0, 1] or None",
        """The same for time: the compacted network's share of the whole one's latency,
        for a batch of 128 on one thread, by the median of passes in turns during `fit`.
        At most one of the two can be given.""",
    )


def target_of(penalty: TargetParameters) -> tuple[str, float] | None:
    """Return the name and the value of the target, if there is one."""
    for name in ("target_multiply_adds", "target_latency"):
        if (share := getattr(penalty, name)) is not None:
            return name, float(share)
    return None


def example_of(sample: Any) -> Tensor | None:
    """Return a batch of no samples, to know their shape and type by."""
    return sample[:0].clone() if isinstance(sample, Tensor) else None


def resume_target(penalty: CGES, previous: CGES, module: nn.Module) -> None:
    """Go on to the target; the channels that have gone stay away."""
    penalty.example_ = previous.example_
    penalty.reached_, penalty.epoch_, penalty.brake_ = None, 0, 1.0
    if target_of(penalty) is None:
        return
    weights = {name: module.get_parameter(name) for name in previous.fixed_}
    penalty.fixed_ = {  # of other shape after compaction in place
        name: mask.to(weights[name].device)
        if mask.shape == weights[name].shape
        else weights[name].detach() == 0
        for name, mask in previous.fixed_.items()
    }
    if target_of(penalty) == target_of(previous):
        penalty.reached_, penalty.epoch_ = previous.reached_, previous.epoch_
        penalty.brake_ = previous.brake_


def check_target(penalty: CGES) -> None:
    """Refuse a target that the other parameters, or the samples, rule out."""
    target = target_of(penalty)
    if target is None:
        return
    name = f"{target[0]}={target[1]:g}"
    if penalty.target_latency is not None and target[0] != "target_latency":
        raise ValueError(
            f"{name} and target_latency={penalty.target_latency:g} cannot both be "
            "reached; set one of them to None."
        )
    if penalty.penalty == "l2" or penalty.refit == 0:
        missing, remedy = "refit=0", "set refit above 0"
        if penalty.penalty == "l2":
            missing, remedy = "penalty='l2'", "choose another penalty"
        raise ValueError(
            f"{name} is reached before the refit on fixed zeros, which {missing} "
            f"leaves out; {remedy}."
        )
    if penalty.example_ is None:
        raise ValueError(
            f"{name} needs a network that takes one tensor, for compaction to follow; "
            "set it to None."
        )


@dataclass(frozen=True)
class LayerChannels:
    """A linear map: the classes of channels of the rows and columns of its weight."""

    name: str | None  # of the weight; None where it is not to be changed
    cost: int  # multiply-adds per sample of a row and column
    rows: Ids
    columns: Ids


@dataclass(frozen=True)
class Channels:
    """Classes of channels that live or die together, in the layers that they cost."""

    layers: tuple[LayerChannels, ...]
    removable: Bools
    total: int  # multiply-adds of the whole network
    others: int  # those of other operations

    @classmethod
    def of(cls, module: nn.Module, names: Sequence[str], example: Tensor) -> Channels:
        """Follow a network; of the named weights parts may be set to zero."""
        twin = plain_twin(module, names)
        with torch.no_grad():
            graph = trace(twin, example)
            flow = follow(graph, "keep")
        n_uses: dict[str, int] = defaultdict(int)
        for node in graph.nodes:
            if isinstance(node.meta["layer"], WEIGHTED):
                n_rows = len(node.meta["layer"].weight) * len(example)
                n_uses[layer_name(node)] += node.meta["result"].numel() // n_rows
        for name in flow.readers:  # the target is for units, not for input columns
            flow.channels.fix(flow.maps[name].in_ids)
        labels, fixed = flow.channels.solve()
        all_inputs, fixed = np.array([len(fixed)]), np.append(fixed, True)
        layers, read = [], np.zeros(len(fixed), bool)
        for name, use in flow.uses():
            layer: Any = twin.get_submodule(name)
            rows, columns, weight = labels[use.out_ids], labels[use.in_ids], None
            if name not in flow.maps:  # a filter reads its own group alone
                columns = all_inputs
            elif isinstance(layer, WEIGHTED) and layer.weight.requires_grad:
                weight = getattr(layer, "weight_name", None)
            if isinstance(layer, WEIGHTED):
                cost = n_uses[name] * layer.weight[0].numel() // len(columns)
                layers.append(LayerChannels(weight, cost, rows, columns))
                read[columns] = True
            if name in flow.maps:
                fixed[columns] |= weight is None
        total = count_multiply_adds(twin, example)
        known = sum(x.cost * len(x.rows) * len(x.columns) for x in layers)
        return cls(tuple(layers), read & ~fixed, total, total - known)

    def share(self, alive: Bools) -> float:
        """Return the share of the multiply-adds that is left with these classes."""
        counts = [
            layer.cost * int(alive[layer.rows].sum()) * int(alive[layer.columns].sum())
            for layer in self.layers
        ]
        return (self.others + sum(counts)) / self.total

    def sizes(self, module: nn.Module) -> Floats:
        """Return the mean square of the weights that enter, and leave, every class.

        In units of each layer; 1 on a side that no weight is on.
        """
        shape = 2, len(self.removable)
        sums, numbers = np.zeros(shape), np.zeros(shape)
        for layer in self.layers:
            if layer.name is None:
                continue
            square = module.get_parameter(layer.name).detach().double().square()
            square = square.flatten(2).sum(2) if square.ndim > 2 else square
            for side, ids in enumerate((layer.rows, layer.columns)):
                each = square.sum(1 - side).cpu().numpy()
                each = each / max(each.mean(), np.finfo(float).tiny)
                np.add.at(sums[side], ids, each)
                np.add.at(numbers[side], ids, 1)
        return np.where(numbers > 0, sums / np.maximum(numbers, 1), 1.0)

    def scores(self, module: nn.Module) -> Floats:
        """Rate every class by its weights, for each multiply-add that it costs."""
        # A factor that moves from one side of a unit to the other changes nothing; the
        # sum decides between classes that have lost one side.
        sizes, costs = self.sizes(module), np.zeros(len(self.removable))
        for layer in self.layers:
            np.add.at(costs, layer.rows, layer.cost * len(layer.columns))
            np.add.at(costs, layer.columns, layer.cost * len(layer.rows))
        scores: Floats = (sizes.prod(0) + 1e-9 * sizes.sum(0)) / np.maximum(costs, 1)
        return scores

    def in_use(self, module: nn.Module) -> Bools:
        """Return the classes with weights other than zero on both sides."""
        in_use: Bools = ~self.removable | self.sizes(module).all(0)
        return in_use

    def select(self, scores: Floats, target: float) -> Bools:
        """Return the classes that stay, for at most this share of the multiply-adds."""
        order = self._in_order(scores)
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            if self.share(self._without(order[:middle])) <= target:
                high = middle
            else:
                low = middle + 1
        alive = self._without(order[:low])
        for each in order[:low][::-1]:  # one of a cheaper layer may still fit in
            if self.share(alive) > target - CLOSE or scores[each] == 0:
                break  # near enough, or gone already
            alive[each] = True
            alive[each] = self.share(alive) <= target
        return alive

    def smallest(self) -> Bools:
        """Return the classes that always stay."""
        return self._without(self._in_order(np.zeros(len(self.removable))))

    def _in_order(self, scores: Floats) -> Ids:
        """Order the classes that may go; of all that a layer reads, the best stays."""
        kept = ~self.removable
        for layer in self.layers:
            if not kept[layer.columns].any():
                kept[layer.columns[scores[layer.columns].argmax()]] = True
        order = np.argsort(scores, kind="stable")
        return order[~kept[order]]

    def _without(self, ids: Ids) -> Bools:
        alive = np.ones(len(self.removable), bool)
        alive[ids] = False
        return alive

    def masks(self, alive: Bools, module: nn.Module) -> dict[str, Tensor]:
        """Mark the weights that enter or leave the classes that go."""
        masks = {}
        for layer in self.layers:
            if layer.name is not None:
                mask = ~np.logical_and.outer(alive[layer.rows], alive[layer.columns])
                weight = module.get_parameter(layer.name)
                mask = mask.reshape(mask.shape + (1,) * (weight.ndim - 2))
                marks = torch.from_numpy(mask).to(weight.device)
                masks[layer.name] = marks.expand(weight.shape).clone()
        return masks


class ReachTarget(Callback):
    """Lead a network to a size through the epochs, and early stopping past that."""

    def __init__(self, penalty: CGES) -> None:
        self.penalty = penalty

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Follow the network, and see that the target can be reached."""
        penalty, module = self.penalty, net.module_
        target = target_of(penalty)
        if target is None or penalty.reached_ is not None or "channels" in vars(self):
            return
        self.last_ = net.max_epochs - round(penalty.refit * net.max_epochs)
        if self.last_ == net.max_epochs:
            raise ValueError(
                f"max_epochs={net.max_epochs} with refit={penalty.refit:.3g} leaves no "
                f"epoch after {target[0]} is reached; train for longer."
            )
        self.channels = Channels.of(module, penalty.names, self._batch(module, 1))
        least = self._measured(module, self.channels.smallest())
        if target[1] < least:
            raise ValueError(
                f"{target[0]}={target[1]:g} is below {least:.3g}, the share that one "
                "unit or channel for each layer takes; ask for more than that."
            )
        self.share_ = self._fitting_share(module)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Take out the channels that are due, and ease the penalty on the way."""
        penalty, module = self.penalty, net.module_
        if penalty.reached_ is not None:
            return
        forget_best(net)
        epoch, first = penalty.epoch_, self.last_ // 2
        penalty.epoch_ += 1
        if epoch >= self.last_:
            self._reach(module)
            return
        if epoch >= first:
            part = (epoch - first + 1) / (self.last_ - first + 1)
            self._take_out(module, self.share_**part)
        share = self.channels.share(self.channels.in_use(module))
        way = max(0.0, share - self.share_)
        penalty.brake_ = way / max(1 - self.share_, CLOSE)

    def _take_out(self, module: nn.Module, share: float) -> Bools:
        """Set the weights of the smallest channels to zero, and hold them there."""
        alive = self.channels.select(self.channels.scores(module), share)
        self.penalty.fixed_ |= self.channels.masks(alive, module)
        for name, mask in self.penalty.fixed_.items():
            module.get_parameter(name).detach().masked_fill_(mask, 0.0)
        return alive

    def _reach(self, module: nn.Module) -> None:
        """Take out the last channels; fix the other zeros, but not whole channels."""
        penalty, channels = self.penalty, self.channels
        alive = self._take_out(module, self._fitting_share(module))
        emptied = channels.masks(channels.in_use(module) | ~alive, module)
        for name in penalty.names:
            zero = module.get_parameter(name).detach() == 0
            if name in emptied:
                zero = penalty.fixed_[name] | (zero & ~emptied[name])
            penalty.fixed_[name] = zero
        penalty.reached_ = self._measured(module, alive)
        penalty.brake_ = 0.0

    def _fitting_share(self, module: nn.Module) -> float:
        """Return the share of the multiply-adds that meets the target."""
        name, target = target_of(self.penalty) or ("", 1.0)
        if name != "target_latency" or target == 1:
            return target
        channels, tried = self.channels, {}
        scores = channels.scores(module)
        low, high = channels.share(channels.smallest()), 1.0
        for _ in range(N_SIZES):
            share = math.sqrt(low * high)
            tried[share] = self._measured(module, channels.select(scores, share))
            low, high = (share, high) if tried[share] <= target else (low, share)
        return min(tried, key=lambda share: abs(tried[share] - target))

    def _measured(self, module: nn.Module, alive: Bools) -> float:
        """Return the share of multiply-adds, or of latency, with these classes."""
        if self.penalty.target_latency is None:
            return self.channels.share(alive)
        whole = plain_twin(module, self.penalty.names)
        part, masks = copy.deepcopy(whole), self.channels.masks(alive, module)
        for layer in part.modules():
            name = getattr(layer, "weight_name", None)
            if name in masks:  # other zeros are not to count: they may grow back
                weight = layer.get_parameter("weight").detach()
                weight.fill_(0.01).masked_fill_(masks[name], 0.0)
        batch = self._batch(module, TIMED_ROWS)
        small = compact(part, batch, unsupported="keep")
        return from_first(lambda: latency_share(whole, small, batch))

    def _batch(self, module: nn.Module, n_rows: int) -> Tensor:
        """Return so many samples of zeros."""
        example = self.penalty.example_
        assert example is not None  # checked
        batch = torch.zeros((n_rows, *example.shape[1:]), dtype=example.dtype)
        weight = next(module.parameters())
        return batch.to(weight if batch.is_floating_point() else weight.device)


def latency_share(whole: nn.Module, part: nn.Module, batch: Tensor) -> float:
    """Measure the latency of a part of a network, on one thread, as a share."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = measure_latencies([whole], batch, 1)[0]
        n_repeats = min(51, max(5, int(1 / max(seconds, 1e-9))))
        whole_time, part_time = measure_latencies([whole, part], batch, n_repeats)
    finally:
        torch.set_num_threads(n_threads)
    return part_time / whole_time


def plain_twin(module: nn.Module, names: Sequence[str]) -> nn.Module:
    """Copy a network as compaction sees it; layers know their weights' names."""
    twin = copy.deepcopy(module)
    for name in names:  # names change where compaction puts layers into a sequence
        layer: Any = twin.get_submodule(name.rpartition(".")[0])
        layer.weight_name = name
    return simplified_copy(fold_standardization(uncompiled(twin))).eval()
