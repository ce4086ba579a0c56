"""DropBlock as a torch layer, for signals, images and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.core.checks import is_integer
from sklearn_structreg.core.insertion import as_maps, check_drop_rate
from sklearn_structreg.core.processes import draw_for_rows
from sklearn_structreg.core.randomness import own_generator

__all__ = ["DropBlock1d", "DropBlock2d", "DropBlock3d"]

POOLS = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


def block_seed_rate(
    drop_rate: float, block: Sequence[int], shape: Sequence[int]
) -> float:
    """Return the probability of a block to start at a pixel: gamma, the paper's Eq. 1.

    It makes the expected sum of the blocks' sizes the share `drop_rate` of the pixels.
    """
    places = [side - b + 1 for side, b in zip(shape, block, strict=True)]
    return drop_rate * math.prod(shape) / (math.prod(block) * math.prod(places))


def draw_seeds(
    rate: float, size: Sequence[int], source: torch.Generator | None = None
) -> Tensor:
    """Draw on the CPU the flat places at which blocks start, each with a probability.

    The gaps between the successes of coin flips are geometric numbers: few of them are
    drawn where a coin for each place would be many.
    """
    n_places, found = math.prod(size), [torch.zeros(0, dtype=torch.int64)]
    last = -1
    while last < n_places:
        expected = (n_places - last) * rate
        n_draws = int(expected + 4 * math.sqrt(expected)) + 1
        drawn = torch.rand(n_draws, dtype=torch.float64, generator=source)
        gaps = drawn.neg_().log1p_().div_(math.log1p(-rate)).clamp_(max=n_places)
        places = gaps.long().add_(1).cumsum(0).add_(last)
        found.append(places)
        last = int(places[-1])
    places = torch.cat(found)
    return places[places < n_places]


def scatter_blocks(
    places: Tensor, size: Sequence[int], block: Sequence[int], shape: Sequence[int]
) -> Tensor:
    """Return a mask, false in the blocks that start at these flat places of `size`."""
    corner, rest = torch.zeros_like(places), places
    offset = torch.zeros(1, dtype=torch.int64)
    step = 1
    for n_places, side, n_pixels in zip(
        reversed(size[2:]), reversed(block), reversed(shape), strict=True
    ):
        corner += rest % n_places * step
        rest = rest // n_places
        offset = (torch.arange(side)[:, None] * step + offset).flatten()
        step *= n_pixels
    corner += rest * step
    keep = torch.ones(math.prod(size[:2]) * step, dtype=torch.bool)
    keep[(corner[:, None] + offset).flatten()] = False
    return keep.view(*size[:2], *shape)


def grow_blocks(seeds: Tensor, block: Sequence[int]) -> Tensor:
    """Turn first corners of blocks, marked by one, into a mask: one outside of blocks.

    Corners lie where a block fits: a map has ``block - 1`` pixels more along each axis.
    """
    margins = [side - 1 for side in reversed(block) for _ in range(2)]
    padded = functional.pad(seeds, margins)
    return 1 - POOLS[len(block)](padded, tuple(block), stride=1)


class _DropBlock(nn.Module):
    """Base of the layers for one, two and three dimensions; see `DropBlock2d`."""

    n_dims: ClassVar[int]
    sparse: ClassVar[float] = 0.1
    """A rate of block starts below which they are drawn one by one, on a CPU."""

    def __init__(
        self,
        block_size: int | Sequence[int] = 5,
        drop_rate: float = 0.1,
        *,
        per_channel: bool = True,
    ) -> None:
        super().__init__()
        sides: list[Any] = [block_size] * self.n_dims
        if isinstance(block_size, Sequence):
            sides = list(block_size)
        if len(sides) != self.n_dims or not all(map(is_integer, sides)):
            raise ValueError(
                f"block_size={block_size!r} must be a positive integer, or "
                f"{self.n_dims} of them."
            )
        self.block_size = tuple(int(side) for side in sides)
        self.drop_rate = check_drop_rate(drop_rate)
        self.per_channel = per_channel

    def forward(self, x: Tensor) -> Tensor:
        """Mask a mini-batch of maps that are no smaller than a block."""
        maps = as_maps(x, self.n_dims)
        n_samples, n_channels, *shape = maps.shape
        if any(side > axis for side, axis in zip(self.block_size, shape, strict=True)):
            raise ValueError(
                f"block_size={self.block_size} does not fit into maps of shape "
                f"{tuple(shape)}; give a smaller one."
            )
        if not self.training or self.drop_rate == 0:
            return x
        places = [
            axis - side + 1 for axis, side in zip(shape, self.block_size, strict=True)
        ]
        size = (n_samples, n_channels if self.per_channel else 1, *places)
        mask = draw_for_rows(partial(self._draw_mask, x, shape), size)
        return (maps * mask).view_as(x)

    def _draw_mask(
        self, x: Tensor, shape: Sequence[int], size: Sequence[int]
    ) -> Tensor:
        """Draw the factors of maps of a shape, whose blocks may start in `size`."""
        rate = block_seed_rate(self.drop_rate, self.block_size, shape)
        source = own_generator(x.device)
        if x.is_cpu and rate < self.sparse and not torch.compiler.is_compiling():
            starts = draw_seeds(rate, size, source)
            keep = scatter_blocks(starts, size, self.block_size, shape)
            factor = keep.numel() / max(1, int(keep.count_nonzero()))
            return keep.to(x.dtype).mul_(factor)
        seeds = torch.rand(size, device=x.device, generator=source) < rate
        mask = grow_blocks(seeds.float(), self.block_size)
        return (mask * (mask.numel() / mask.sum().clamp_min(1))).to(x.dtype)

    def simplified(self) -> nn.Module:
        """Return the identity: the layer acts in training only."""
        return nn.Identity()

    def extra_repr(self) -> str:
        """Show the parameters."""
        return f"block_size={self.block_size}, drop_rate={self.drop_rate}"


class DropBlock1d(_DropBlock):
    """DropBlock on signals: drop blocks at random places.

    Takes and returns ``(n, n_channels, length)``, or ``(n, length)`` as one channel.

    Parameters
    ----------
    block_size, drop_rate, per_channel
        As in `DropBlock2d`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.baselines import DropBlock1d
    >>> DropBlock1d(2, drop_rate=0.2)(torch.ones(8, 2, 20)).shape
    torch.Size([8, 2, 20])
    """

    n_dims = 1


class DropBlock2d(_DropBlock):
    """DropBlock on images: drop blocks of pixels at random places.

    Takes and returns ``(n, n_channels, height, width)``.

    After Ghiasi, Lin, Le, "DropBlock: A regularization method for convolutional
    networks" (2018). Blocks lie within the map, have any sides, odd or even, and are
    drawn for every sample; the pixels left are scaled by all pixels over their number.

    Parameters
    ----------
    block_size : int or sequence of int, default=5
        Sides of a block.
    drop_rate : float in [0, 1), default=0.1
        Share of the pixels; where blocks overlap, less is dropped.
    per_channel : bool, default=True
        Whether every channel has blocks of its own, which its authors found better.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.baselines import DropBlock2d
    >>> _ = torch.manual_seed(1)
    >>> (DropBlock2d(2, drop_rate=0.3)(torch.ones(1, 1, 3, 4)) == 0)[0, 0].int()
    tensor([[0, 0, 0, 0],
            [0, 1, 1, 0],
            [0, 1, 1, 0]], dtype=torch.int32)
    """

    n_dims = 2


class DropBlock3d(_DropBlock):
    """DropBlock on volumes: drop blocks at random places.

    Takes and returns ``(n, n_channels, depth, height, width)``.

    Parameters
    ----------
    block_size, drop_rate, per_channel
        As in `DropBlock2d`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.baselines import DropBlock3d
    >>> DropBlock3d(2, drop_rate=0.2)(torch.ones(8, 2, 4, 5, 6)).shape
    torch.Size([8, 2, 4, 5, 6])
    """

    n_dims = 3
