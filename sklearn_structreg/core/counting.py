"""How much work a network is: multiply-adds, counted while it runs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sklearn_structreg.core.modules import run_once

__all__ = ["count_multiply_adds"]


def count_multiply_adds(module: nn.Module, sample_batch: Tensor) -> int:
    """Count the multiply-adds that one sample costs at prediction.

    The module is run once under `torch.utils.flop_counter`, which counts matrix
    products and convolutions (two floating-point operations per multiply-add) and
    leaves out element-wise work: activations, norms, biases, pooling.

    Parameters
    ----------
    module : torch.nn.Module
        Run in evaluation mode; left in the mode it had.
    sample_batch : torch.Tensor of shape (n, ...)
        Samples as the module takes them; at least one.

    Returns
    -------
    int
        Multiply-adds per sample.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.core import count_multiply_adds, make_mlp
    >>> count_multiply_adds(make_mlp(64, 10, (100,)), torch.zeros(1, 64))
    7400
    """
    with FlopCounterMode(display=False) as counter:
        run_once(module, sample_batch)
    return int(counter.get_total_flops() // (2 * len(sample_batch)))
