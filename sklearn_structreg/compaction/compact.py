"""A smaller network with the same outputs."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sklearn_structreg.compaction.graph import describe, rounding, same_outputs, trace
from sklearn_structreg.compaction.liveness import follow, solve
from sklearn_structreg.compaction.shrink import shrink

__all__ = ["compact"]

SAMPLE_ROWS = 4  # enough to follow the network and to compare outputs


def compact(
    module: nn.Module, sample_batch: Tensor, *, unsupported: str = "raise"
) -> nn.Module:
    """Remove the channels of a network that make no difference to its outputs.

    A channel is a unit of a linear layer or a map of a convolution. It goes where

    - every layer that reads it has only zero weights for it (behind a flatten: for
      each pixel of its map), or
    - it is a constant, as its own weights are all zero, or a batch normalization's
      scale for it is; what it contributes is folded into the biases of its readers.

    Both are followed through the whole network until nothing changes. Where channels
    are added, multiplied or normalized together, as in residual networks, they go only
    together.

    Parameters
    ----------
    module : torch.nn.Module
        Not changed. It may be any module that `torch.fx` can follow, with one tensor
        as its input.
    sample_batch : torch.Tensor of shape (n, ...)
        A few samples as the module takes them, on its device. Their number and the
        size of images do not matter to the result.
    unsupported : {"raise", "keep"}, default="raise"
        What to do about a layer that there is no rule for, see the notes: raise an
        error that names it, or leave it as it is with all channels that it reads.

    Returns
    -------
    torch.nn.Module
        A copy of `module`, of the same class and with the same names, whose layers are
        smaller. In evaluation mode its outputs are those of `module` up to rounding.

    Raises
    ------
    ValueError
        If a layer is not supported, the network cannot be followed or does not take
        the batch. The error names the layer.

    Notes
    -----
    The copy keeps the class of the module, so it pickles and trains as the module
    does, and parameters keep their ``requires_grad``. Gradients are dropped.

    There are rules for linear and convolutional layers (of grouped ones only whole
    groups go, down to the last), batch, group and instance normalization, activations,
    dropout, pooling, padding, upsampling and flatten, for the functions that do the
    same, and for sums, products, means over positions, ``torch.cat``, ``permute``,
    ``unsqueeze`` and ``x.view(x.size(0), -1)``. All channels stay that a `LayerNorm` or
    a softmax over them reads, that any other function reads (reshaping to sizes written
    as numbers, indexing, matrix products), and the inputs and outputs of layers whose
    parameters are used elsewhere, too. That is exact, if less small.

    A constant other than zero stays where a convolution pads with zeros: at the
    borders it contributes something else than inside. A layer of which nothing is
    needed keeps one channel as a placeholder, with weights of zero, as torch's layers
    cannot be empty. Before it is returned, the copy is compared with the module on
    the samples, in double precision.

    While it is followed, `torch.fx` replaces how modules are called, so no other thread
    should run a network meanwhile.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.compaction import compact
    >>> from sklearn_structreg.core import make_mlp
    >>> net = make_mlp(4, 2, (5,))
    >>> with torch.no_grad():
    ...     _ = net[2].weight[:, :3].zero_()  # nobody reads the first three units
    >>> compact(net, torch.zeros(1, 4))
    Sequential(
      (0): Linear(in_features=4, out_features=2, bias=True)
      (1): ReLU()
      (2): Linear(in_features=2, out_features=2, bias=True)
    )
    """
    if unsupported not in ("raise", "keep"):
        raise ValueError(f"unsupported={unsupported!r} must be 'raise' or 'keep'.")
    if not isinstance(module, nn.Module):
        raise TypeError(f"compact takes a torch.nn.Module; got {module!r}.")
    if not isinstance(sample_batch, Tensor) or not len(sample_batch):
        raise ValueError(
            "sample_batch must be a tensor of at least one sample, as the module takes "
            "it."
        )
    sample = sample_batch.detach()[:SAMPLE_ROWS]
    result = _copy(module)
    modes = {name: part.training for name, part in result.named_modules()}
    result.eval()
    n_grouped = None
    while n_grouped != _count_grouped(result):  # a single group is an ordinary layer
        n_grouped = _count_grouped(result)
        with torch.no_grad():
            flow = follow(trace(result, sample), unsupported)
        shrink(result, flow, solve(flow))
    result.zero_grad(set_to_none=True)
    _check_outputs(module, result, sample)
    for name, part in result.named_modules():
        part.training = modes[name]
    return result


def _copy(module: nn.Module) -> nn.Module:
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
    return copy.deepcopy(module)


def _count_grouped(module: nn.Module) -> int:
    return sum(getattr(part, "groups", 1) != 1 for part in module.modules())


def _check_outputs(module: nn.Module, result: nn.Module, sample: Tensor) -> None:
    """Compare on the samples, in double precision where the network can do that."""
    # folded biases are rounded to the precision of the parameters
    tolerance = max((rounding(p.dtype) for p in module.parameters()), default=0.0)

    def agree(pair: list[nn.Module], batch: Tensor) -> bool:
        with torch.no_grad():
            expected, got = (net.eval()(batch.clone()) for net in pair)
        return same_outputs(expected, got, tolerance)

    pair = [copy.deepcopy(net) for net in (module, result)]
    try:
        dtype = torch.float64 if sample.is_floating_point() else sample.dtype
        double = [net.to("cpu", torch.float64) for net in pair]
        same = agree(double, sample.to("cpu", dtype))
    except RuntimeError:  # a forward pass that fixes its own precision or device
        try:
            same = agree([copy.deepcopy(net) for net in (module, result)], sample)
        except RuntimeError:
            same = False
    if not same:
        for name, part in module.named_modules():
            if not all(p.isfinite().all() for p in part.parameters(recurse=False)):
                raise ValueError(
                    f"{describe(name, part)} holds weights that are not finite, so the "
                    "network cannot be compacted: what is not finite reaches the "
                    "outputs even by weights of zero. Its training must have diverged."
                )
        raise ValueError(
            "The network cannot be compacted: its smaller copy has other outputs. Its "
            "forward pass must depend on the sizes of its layers in a way that "
            "torch.fx does not see."
        )
