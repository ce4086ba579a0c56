"""Networks of one shape as one: the channels of all members side by side.

A stacked network maps (b, K c, ...) to (b, K, n_outputs); what all members share, as
they do the samples, is (b, c, ...). So elementwise layers, pooling and batch
normalization are torch's own, with K times the channels; linear layers and convolutions
have the weights of all members in one tensor; any other layer runs member by member.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.core.standardization import Standardize

__all__ = ["Bound", "StackedLinear", "StackedNetwork", "is_chain", "shape_of"]

CONVOLUTIONS = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}
NORMS = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}
ENTRYWISE = {
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Tanh, nn.Sigmoid, nn.Hardswish, nn.Softplus, nn.Identity),
}
ALIKE = {  # act on each entry or channel alone, whosever it is
    *(*ENTRYWISE, nn.Flatten),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
}
STACKED = {nn.Linear, *CONVOLUTIONS, *NORMS}
Layers = Sequence[Any]


class Bound:
    """A tensor of the stack, and the members' tensors, which are parts of it."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.parts = list(tensors)
        data = torch.stack([t.detach() for t in tensors])
        learned = isinstance(tensors[0], nn.Parameter)
        self.whole: Tensor = data
        if learned:
            self.whole = nn.Parameter(data, tensors[0].requires_grad)
            self.whole.grad = torch.zeros_like(data)
        for number, part in enumerate(tensors):
            part.data = data[number]
            if learned:
                part.grad = self.whole.grad[number]  # type: ignore[index]

    def release(self) -> None:
        """Give every member memory of its own again."""
        for part in self.parts:
            part.data, part.grad = part.data.clone(), None


def shape_of(module: nn.Module) -> tuple[Any, ...]:
    """Return the layers and shapes that networks of one stack share."""
    return tuple(
        (
            type(layer),
            layer.extra_repr() if type(layer) in STACKED | ALIKE else _key(layer),
            tuple((n, p.shape, p.requires_grad) for n, p in _own_parameters(layer)),
        )
        for layer in _layers_of(module)
    )


def is_chain(module: nn.Module) -> bool:
    """Whether a network is a chain of layers, each weight in one of them."""
    layers = list(_layers_of(module))
    plain = [p for each in layers if not _key(each) for p in _own_parameters(each)]
    # Layers with a stack of their own kind know what they have in common.
    others = {id(p) for each in layers if _key(each) for _, p in _own_parameters(each)}
    stacked = any(type(layer) in STACKED or _key(layer) for layer in layers)
    n_parameters = sum(1 for _ in module.parameters())
    return stacked and len(plain) + len(others) == n_parameters


def _key(layer: nn.Module) -> Any:
    """Return the properties that layers share which have a stack of their own kind."""
    return getattr(layer, "stack_key", None)


def _own_parameters(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    inserted = tuple(f"{name}." for name in vars(layer).get("_insertions", {}))
    recurse = type(layer) not in STACKED | ALIKE
    for name, parameter in layer.named_parameters(recurse=recurse):
        if not name.startswith(inserted):
            yield name, parameter


def _layers_of(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a chain in the order of their action, inserted ones too."""
    inserted: dict[str, bool] = vars(module).get("_insertions", {})
    hooks = len(module._forward_hooks), len(module._forward_pre_hooks)
    chain = type(module).forward is nn.Sequential.forward
    known = chain or type(module) in STACKED | ALIKE or _key(module)
    if hooks != (bool(inserted), bool(inserted)) or not known:
        yield module  # with all that acts inside of it
        return
    for name, before in inserted.items():
        if before:
            yield from _layers_of(module.get_submodule(name))
    if chain:
        for child in module.children():
            yield from _layers_of(child)
    else:
        yield module
    for name, before in inserted.items():
        if not before:
            yield from _layers_of(module.get_submodule(name))


class StackedNetwork(nn.Module):
    """Networks of one shape, whose tensors become parts of this one's.

    Parameters
    ----------
    modules : sequence of torch.nn.Module
        The members, all of one `shape_of`.
    shared : bool
        Whether all are given the same samples (b, c, ...), or each its own, as
        (b, K c, ...).
    """

    def __init__(self, modules: Sequence[nn.Module], *, shared: bool) -> None:
        super().__init__()
        self.n_members = len(modules)
        self.bound: list[Bound] = []
        self.beginning: Standardize | None = None  # that of every member
        self.draws: Callable[[int], AbstractContextManager[None]] = _no_draws
        self.notes: dict[int, Any] = {}  # of layers that have parts in common
        self.layers = nn.ModuleList()
        # A copy of a part would copy the whole.
        self._hooks: list[Any] = []
        for module in modules:
            add: Any = module.register_state_dict_post_hook
            self._hooks.append(add(_own_memory))
        columns = zip(*(_layers_of(module) for module in modules), strict=True)
        for layers in columns:
            stacked, shared = self._stack(layers, shared)
            self.layers.append(stacked)

    def _stack(self, layers: Layers, shared: bool) -> tuple[nn.Module, bool]:
        """Stack layers; return whether their outputs are still those of all."""
        first = layers[0]
        if type(first) is nn.Linear:
            return StackedLinear(self.bind(layers), shared), False
        if _key(first):
            own: Any = first
            return own.stacked(layers, self, shared), False
        zeros = getattr(first, "padding_mode", "") == "zeros"
        if type(first) in CONVOLUTIONS and zeros and not (shared and first.groups > 1):
            return _Convolution(first, self.bind(layers), shared), False
        if type(first) in NORMS and not shared:
            return self._stack_norms(layers), False
        last = self.layers[-1] if self.layers else None
        own_memory = (
            isinstance(last, StackedLinear) and not last.shared
        )  # no view of another
        if type(first) is nn.ReLU and own_memory:
            return nn.ReLU(inplace=True), shared
        same = type(first) in ALIKE
        if isinstance(first, Standardize):
            same = all(
                torch.equal(first.mean, x.mean) and torch.equal(first.factor, x.factor)
                for x in layers
            )
            if same and not self.layers:
                self.beginning = first
            if not shared:
                return _stack_standardization(layers), False
        if same:
            return first, shared
        self.bound += [
            Bound(tensors)
            for layer in layers
            for tensors in ([p] for p in layer.parameters())
        ]
        return _EachItsOwn(self, layers, shared), False

    def bind(self, layers: Layers) -> list[Any]:
        """Bind weights and biases, which may be None."""
        tensors: list[Any] = []
        for name in ("weight", "bias"):
            parts = [getattr(layer, name) for layer in layers]
            if parts[0] is None:
                tensors.append(None)
            else:
                tensors.append(self.bind_tensors(parts))
        return tensors

    def bind_tensors(self, parts: Sequence[Tensor]) -> Tensor:
        """Make tensors of the members parts of one, (K, ...), and return it."""
        self.bound.append(Bound(parts))
        return self.bound[-1].whole

    def _stack_norms(self, layers: Layers) -> nn.Module:
        norm = copy.deepcopy(layers[0])
        norm.num_features *= len(layers)
        norm.weight, norm.bias = None, None
        weights = self.bind(layers)
        for name in ("running_mean", "running_var"):
            parts = [getattr(layer, name) for layer in layers]
            if parts[0] is not None:
                self.bound.append(Bound(parts))
                setattr(norm, name, self.bound[-1].whole.flatten())
        for layer in layers:
            layer.num_batches_tracked = norm.num_batches_tracked
        return _Norm(norm, weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all members, (b, K, n_outputs)."""
        apart = False  # whether x is (K, c, b), as products of matrices have it
        for layer in self.layers:
            if isinstance(layer, StackedLinear):
                if not (apart or layer.shared):
                    x = _by_member(x, self.n_members).permute(1, 2, 0)
                apart = True
            elif apart and type(layer) not in ENTRYWISE:
                x, apart = x.permute(2, 0, 1).flatten(1), False
            x = layer(x)
        return x.permute(2, 0, 1) if apart else _by_member(x, self.n_members)

    def release(self) -> None:
        """Give every member memory of its own again."""
        for bound in self.bound:
            bound.release()
        for hook in self._hooks:
            hook.remove()


def _stack_standardization(layers: Layers) -> nn.Module:
    stacked: Standardize = copy.deepcopy(layers[0])
    stacked.mean = torch.cat([layer.mean for layer in layers])
    stacked.factor = torch.cat([layer.factor for layer in layers])
    return stacked


class StackedLinear(nn.Module):
    """From (K, c, b), or samples (b, c) that all share, to (K, h, b)."""

    def __init__(self, weights: Sequence[Any], shared: bool) -> None:
        super().__init__()
        self.weight, self.bias = weights
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the weights of all, and add the biases."""
        weight, bias = self.current_weight(), self.bias
        if not self.shared:
            products = torch.bmm(weight, x)
            return products if bias is None else products.add_(bias[:, :, None])
        weights, columns = weight.flatten(0, 1), x.t()
        if bias is None:
            products = weights @ columns
        else:
            products = torch.addmm(bias.flatten()[:, None], weights, columns)
        return products.view(*weight.shape[:2], -1)

    def current_weight(self) -> Tensor:
        """Return the weights, (K, h, c), to multiply with."""
        weight: Tensor = self.weight
        return weight


class _Convolution(nn.Module):
    def __init__(self, first: Any, weights: Sequence[Any], shared: bool) -> None:
        super().__init__()
        self.weight, self.bias = weights
        self.function = CONVOLUTIONS[type(first)]
        self.how = first.stride, first.padding, first.dilation
        self.groups = first.groups if shared else first.groups * len(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.flatten()
        weight = self.weight.flatten(0, 1)
        outputs: Tensor = self.function(x, weight, bias, *self.how, self.groups)
        return outputs


class _Norm(nn.Module):
    def __init__(self, norm: Any, weights: Sequence[Any]) -> None:
        super().__init__()
        self.norm = norm
        self.scale, self.shift = weights

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        if norm.training and norm.track_running_stats:
            norm.num_batches_tracked.add_(1)
        momentum = norm.momentum
        if momentum is None and norm.track_running_stats:
            momentum = 1.0 / float(norm.num_batches_tracked)
        return functional.batch_norm(
            x,
            norm.running_mean,
            norm.running_var,
            None if self.scale is None else self.scale.flatten(),
            None if self.shift is None else self.shift.flatten(),
            norm.training or norm.running_mean is None,
            momentum or 0.0,
            norm.eps,
        )


class _EachItsOwn(nn.Module):
    """Layers that run one after the other, each with the draws of its member."""

    def __init__(self, network: StackedNetwork, layers: Layers, shared: bool) -> None:
        super().__init__()
        # Not as children: they belong to the members.
        self._held = network, list(layers), shared

    def forward(self, x: Tensor) -> Tensor:
        network, layers, shared = self._held
        parts = [x] * len(layers)
        if not shared:
            parts = list(_by_member(x, len(layers)).unbind(1))
        outputs = []
        for number, (layer, part) in enumerate(zip(layers, parts, strict=True)):
            with network.draws(number):
                outputs.append(layer(part.contiguous()))
        return torch.stack(outputs, dim=1).flatten(1, 2)


def _no_draws(member: int) -> AbstractContextManager[None]:
    return nullcontext()


def _by_member(x: Tensor, n_members: int) -> Tensor:
    """View (b, K c, ...) as (b, K, c, ...)."""
    return x.view(len(x), n_members, -1, *x.shape[2:])


def _own_memory(module: Any, state: dict[str, Tensor], *args: Any) -> None:
    state.update({name: tensor.clone() for name, tensor in state.items()})
