"""A smaller network with the same outputs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sklearn_structreg.compaction.counting import check_call, uncompiled
from sklearn_structreg.compaction.graph import describe, rounding, same_outputs, trace
from sklearn_structreg.compaction.liveness import follow, solve
from sklearn_structreg.compaction.moves import needs_selections, with_selections
from sklearn_structreg.compaction.shrink import shrink

__all__ = ["compact", "simplified_copy"]

SAMPLE_ROWS = 4  # enough to follow the network and to compare outputs


def compact(
    module: nn.Module, sample_batch: Tensor, *, unsupported: str = "raise"
) -> nn.Module:
    """Remove the channels of a network that make no difference to its outputs.

    A channel is a unit of a linear layer or a map of a convolution. It goes where

    - every layer that reads it has only zero weights for it (behind a flatten: for
      each pixel of its map), or
    - it is a constant, as its own weights are all zero, or a batch normalization's
      scale for it is; its contribution is folded into the biases of its readers.

    Both are followed through the whole network until nothing changes. Channels that are
    added, multiplied or normalized together, as in residual networks, go only together.

    Parameters
    ----------
    module : torch.nn.Module
        Any module that `torch.fx` can follow, with one input tensor. Not changed.
    sample_batch : torch.Tensor of shape (n, ...)
        A few samples as the module takes them, on its device; their number and the
        size of images do not matter.
    unsupported : {"raise", "keep"}, default="raise"
        A layer without a rule (see the notes) raises an error that names it, or is
        left as it is with all channels that it reads.

    Returns
    -------
    torch.nn.Module
        A copy of `module`, of the same class (but see the notes) and with the same
        names, whose layers are smaller. In evaluation mode its outputs are those of
        `module` up to rounding.

    Raises
    ------
    ValueError
        If a layer is not supported, the network cannot be followed or does not take
        the batch. The error names the layer.

    Notes
    -----
    The copy pickles and trains as the module does; parameters keep ``requires_grad``
    and lose their gradients. It is compared with the module on the samples before it is
    returned. While `torch.fx` follows the network no other thread should run one.

    Rules cover linear and convolutional layers, normalization, activations, dropout,
    pooling, padding, upsampling and flatten, the functions that do the same, and sums,
    products, means over positions, ``torch.cat``, ``permute``, ``unsqueeze`` and
    ``x.view(x.size(0), -1)``; embeddings; the units of `LSTM`, `GRU` and `RNN`, in
    equal numbers in all their layers and directions; and the heads of
    `MultiheadAttention`, also within torch's transformer encoders. All channels stay
    that any other function reads, also a `LayerNorm` or a softmax over them, and those
    of layers with shared parameters. A constant other than zero stays where a
    convolution pads with zeros. A layer of which nothing is needed keeps one channel
    with weights of zero, as torch's layers cannot be empty.

    Where channels go that the network splits, shuffles or takes by number, its forward
    pass is rewritten: the result is a `torch.fx.GraphModule` with the same names of
    layers, in which functions that look at ``training`` are those of evaluation.

    A layer whose class has a method ``simplified()``, like those of this package, is
    first replaced by the plain layer that it returns, with the same outputs.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.compaction import compact
    >>> from sklearn_structreg.core import make_mlp
    >>> net = make_mlp(4, 2, (5,))
    >>> with torch.no_grad():
    ...     _ = net[2].weight[:, :3].zero_()  # the first three units are not read
    >>> compact(net, torch.zeros(1, 4))
    Sequential(
      (0): Linear(in_features=4, out_features=2, bias=True)
      (1): ReLU()
      (2): Linear(in_features=2, out_features=2, bias=True)
    )
    """
    if unsupported not in ("raise", "keep"):
        raise ValueError(f"unsupported={unsupported!r} must be 'raise' or 'keep'.")
    check_call(module, sample_batch)
    module = uncompiled(module)
    sample = sample_batch.detach()[:SAMPLE_ROWS]
    for may_rewrite in (True, False):
        result = _smaller(module, sample, unsupported, may_rewrite)
        if _agree(module, result, sample):
            return result
    raise _disagreement(module)


def _smaller(
    module: nn.Module, sample: Tensor, unsupported: str, may_rewrite: bool
) -> nn.Module:
    """Make a smaller copy, whose outputs are not yet compared."""
    result = simplified_copy(module)
    modes = {name: part.training for name, part in result.named_modules()}
    result.eval()
    n_grouped = None
    while n_grouped != _count_grouped(result):  # a single group is an ordinary layer
        n_grouped = _count_grouped(result)
        result = _cut(result, sample, unsupported, may_rewrite)
    result.zero_grad(set_to_none=True)
    for name, part in result.named_modules():
        part.training = modes.get(name, modes[""])
    return result


@torch.no_grad()
def _cut(
    network: nn.Module, sample: Tensor, unsupported: str, may_rewrite: bool
) -> nn.Module:
    """Remove channels, in place where the forward pass is not rewritten."""
    graph = trace(network, sample)
    flow = follow(graph, unsupported)
    if not may_rewrite:
        flow.keep_choices()
    elif needs_selections(flow, solve(flow).kept):
        network = with_selections(network, graph, flow)
        flow = follow(trace(network, sample), unsupported)
    shrink(network, flow, solve(flow))
    return network


def simplified_copy(module: nn.Module) -> nn.Module:
    """Copy a network and replace every layer that has `simplified()` by its result."""
    for name, part in module.named_modules():
        if any(is_lazy(parameter) for parameter in part._parameters.values()):
            raise ValueError(
                f"{describe(name, part)} has no shape yet; run the network once first."
            )
        for attribute, tensor in vars(part).items():
            if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
                raise ValueError(
                    f"{describe(name, part)} computes its {attribute} anew in each "
                    "pass, so it cannot be copied; make that permanent first, say with "
                    f"torch.nn.utils.prune.remove(layer, {attribute!r})."
                )
    module = copy.deepcopy(module)
    for hook in {hook for part in module.modules() for hook in _hooks(part)}:
        if hasattr(hook, "simplified"):
            module = hook.simplified(module)
    return _simplified(module, {})


def _hooks(layer: nn.Module) -> list[Any]:
    """List a layer's hooks; one that calls further layers can replace them itself."""
    return [*layer._forward_pre_hooks.values(), *layer._forward_hooks.values()]


def _simplified(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """Replace from the outside inwards; a layer with several names stays one layer."""
    if module not in done:
        result: Any = module
        if hasattr(type(module), "simplified"):
            result = result.simplified().train(module.training)
        done[module] = done[result] = result
        for name, part in result._modules.items():
            result._modules[name] = None if part is None else _simplified(part, done)
    return done[module]


def _count_grouped(module: nn.Module) -> int:
    return sum(getattr(part, "groups", 1) != 1 for part in module.modules())


def _agree(module: nn.Module, result: nn.Module, sample: Tensor) -> bool:
    """Compare on the samples, in double precision where the network can do that."""
    # folded biases are rounded to the precision of the parameters
    tolerance = max((rounding(p.dtype) for p in module.parameters()), default=0.0)
    double = torch.float64 if sample.is_floating_point() else sample.dtype
    for device, dtype, batch in (
        ("cpu", torch.float64, sample.to("cpu", double)),
        (None, None, sample),
    ):
        pair = [copy.deepcopy(net).eval().to(device, dtype) for net in (module, result)]
        try:
            with torch.no_grad():
                expected, got = (net(batch.clone()) for net in pair)
        except RuntimeError:  # a forward pass that fixes its own precision or device
            continue
        return same_outputs(expected, got, tolerance)
    return False


def _disagreement(module: nn.Module) -> ValueError:
    """Explain why the outputs differ."""
    for name, part in module.named_modules():
        if not all(p.isfinite().all() for p in part.parameters(recurse=False)):
            return ValueError(
                f"{describe(name, part)} holds weights that are not finite, so the "
                "network cannot be compacted: NaN and infinity reach the outputs even "
                "through weights of zero. Its training must have diverged."
            )
    return ValueError(
        "The network cannot be compacted: its smaller copy has other outputs. Its "
        "forward pass must depend on the sizes of its layers in a way that torch.fx "
        "does not see."
    )
