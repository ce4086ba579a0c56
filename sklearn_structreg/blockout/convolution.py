"""The convolution of Blockout: its nodes are channels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.utils import _pair

from sklearn_structreg.blockout.layer import BlockoutLinear, NodeSet
from sklearn_structreg.blockout.masks import block_mask

__all__ = ["BlockoutConv2d"]


class BlockoutConv2d(BlockoutLinear):
    r"""A convolution whose weight is masked by the clusters of its channels.

    The mask of :class:`BlockoutLinear` is that of the channels, and all pixels of a
    kernel have it in common.

    Parameters
    ----------
    inputs, outputs : NodeSet
        The channels on both sides.
    kernel_size : int or tuple of int
        As in `torch.nn.Conv2d`.
    bias : bool, default=True
        Whether there is a bias.
    stride, dilation : int or tuple of int, default=1
        As in `torch.nn.Conv2d`.
    padding : int, tuple of int or str, default=0
        As in `torch.nn.Conv2d`; filled with zeros.
    mask_per, scale, device, dtype
        As in `BlockoutLinear`. One mask for each sample takes k convolutions.

    Attributes
    ----------
    weight : torch.nn.Parameter of shape (d_out, d_in, height, width)
        The unconstrained weight.
    bias : torch.nn.Parameter of shape (d_out,) or None
        The bias.

    Raises
    ------
    ValueError
        If the numbers of clusters differ, or a parameter is out of range.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.blockout import BlockoutConv2d, NodeSet
    >>> layer = BlockoutConv2d(NodeSet(3), NodeSet(8), 3, padding=1)
    >>> layer(torch.zeros(5, 3, 16, 16)).shape
    torch.Size([5, 8, 16, 16])
    """

    groups: ClassVar[int] = 1  # for core.weights.weight_layout

    def __init__(
        self,
        inputs: NodeSet,
        outputs: NodeSet,
        kernel_size: int | tuple[int, int],
        bias: bool = True,
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        mask_per: str = "batch",
        scale: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._kernel = _pair(kernel_size)
        settings: Any = {"device": device, "dtype": dtype}
        super().__init__(
            inputs, outputs, bias, mask_per=mask_per, scale=scale, **settings
        )
        self.stride, self.dilation = _pair(stride), _pair(dilation)
        self.padding = padding if isinstance(padding, str) else _pair(padding)
        self.n_positions = 1
        """Pixels of the output, for the multiply-adds; `convert` sets it."""

    @property
    def n_multiply_adds(self) -> int:
        """Multiply-adds per sample of the plain layer."""
        return self.weight.numel() * self.n_positions

    def mean_weight(self) -> Tensor:
        """Return the weight of inference (Eq. 5)."""
        if self.unmasked:
            return self.weight
        return self._masked(self.outputs.probabilities, self.inputs.probabilities)

    def _masked(self, c_out: Tensor, c_in: Tensor) -> Tensor:
        return self.weight * block_mask(c_out, c_in, self.scale)[..., None, None]

    def _compute(self, x: Tensor, weight: Tensor) -> Tensor:
        how = self.stride, self.padding, self.dilation
        return functional.conv2d(x, weight, self.bias, *how)

    def _compute_drawn(self, x: Tensor, c_out: Tensor, c_in: Tensor) -> Tensor:
        if c_in.ndim == 2:
            return self._compute(x, self._masked(c_out, c_in))
        within = x.unsqueeze(1) * c_in.mT[..., None, None]  # (n, k, d_in, ...)
        how = None, self.stride, self.padding, self.dilation
        each = functional.conv2d(within.flatten(0, 1), self.weight, *how)
        each = each.reshape(*within.shape[:2], *each.shape[1:])
        y: Tensor = (each * c_out.mT[..., None, None]).sum(1) * (
            self.scale / c_out.shape[-1]
        )
        return y if self.bias is None else y + self.bias[:, None, None]

    def _plain_layer(self) -> nn.Module:
        d_out, d_in = self.weight.shape[:2]
        how: Any = {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "bias": self.bias is not None,
        }
        return nn.Conv2d(d_in, d_out, self._kernel, device="meta", **how)

    @property
    def in_channels(self) -> int:
        """Number of inputs, as `torch.nn.Conv2d` calls it."""
        return self.inputs.n_nodes

    @property
    def out_channels(self) -> int:
        """Number of outputs, as `torch.nn.Conv2d` calls it."""
        return self.outputs.n_nodes
