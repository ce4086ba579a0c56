"""Layers of smaller networks that torch has none for."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Attention", "ColumnsLinear", "Selection"]

PROJECTIONS = "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"


class Selection(nn.Module):
    """Take channels by number, in the place of a split or a shuffle of channels.

    Parameters
    ----------
    index : Tensor of int64, shape (n,)
        Numbers of the channels.
    axis : int
        The axis of channels.
    """

    index: Tensor

    def __init__(self, index: Tensor, axis: int) -> None:
        super().__init__()
        self.register_buffer("index", index)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Take the channels."""
        return x.index_select(self.axis, self.index)


class ColumnsLinear(nn.Linear):
    """A linear layer that reads some of its columns alone."""

    columns: Tensor  # their numbers

    @classmethod
    def take_over(cls, layer: nn.Linear, columns: Tensor) -> None:
        """Make a layer one of this kind, with its weights for these columns."""
        bound = getattr(vars(layer).get("forward"), "__func__", None)
        if bound is type(layer).forward:  # noted for torch.compile
            vars(layer)["forward"] = MethodType(cls.forward, layer)
        layer.__class__ = cls
        layer.register_buffer("columns", columns)

    def forward(self, x: Tensor) -> Tensor:
        """Map the columns."""
        read = x.index_select(-1, self.columns)
        return functional.linear(read, self.weight, self.bias)


class Attention(nn.Module):
    """`torch.nn.MultiheadAttention` with fewer heads than its width has room for.

    Its parameters have the same names. It never returns attention weights, whose mean
    would be one over fewer heads, and takes no mask that differs between heads.

    Parameters
    ----------
    layer : torch.nn.MultiheadAttention
        Gives its parameters; has no additional keys.
    """

    in_proj_weight: Tensor | None
    in_proj_bias: Tensor | None
    _qkv_same_embed_dim = False  # keeps torch's fused transformer layer from reading it

    def __init__(self, layer: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = layer.embed_dim, layer.num_heads
        self.head_dim, self.dropout = layer.head_dim, layer.dropout
        self.batch_first, self.out_proj = layer.batch_first, layer.out_proj
        for name in (*PROJECTIONS, "in_proj_bias"):
            self.register_parameter(name, getattr(layer, name))

    def extra_repr(self) -> str:
        """Describe the layer."""
        return f"{self.embed_dim}, num_heads={self.num_heads}, head_dim={self.head_dim}"

    def keep_heads(self, kept: Tensor) -> None:
        """Remove the projections of all heads but those of a boolean mask."""
        self.num_heads = int(kept.sum())
        rows = kept.repeat_interleave(self.head_dim)
        for name in (*PROJECTIONS, "in_proj_bias"):
            old = getattr(self, name)
            if old is not None:
                part = old.detach()[rows.repeat(len(old) // len(rows)).to(old.device)]
                new = nn.Parameter(part, requires_grad=old.requires_grad)
                setattr(self, name, new)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Attend as `torch.nn.MultiheadAttention` does."""
        turned = not self.batch_first and query.ndim == 3
        inputs = [x.transpose(0, 1) if turned else x for x in (query, key, value)]
        if self.in_proj_weight is None:
            weights = [getattr(self, name) for name in PROJECTIONS[1:]]
        else:
            weights = [*self.in_proj_weight.chunk(3)]
        bias = self.in_proj_bias
        biases: Any = [None] * 3 if bias is None else bias.chunk(3)
        rows = [
            functional.linear(x, weight, bias)
            for x, weight, bias in zip(inputs, weights, biases, strict=True)
        ]
        heads = [x.reshape(*x.shape[:-1], -1, self.head_dim) for x in rows]
        mask = _as_scores(attn_mask, query)
        padding = _as_scores(key_padding_mask, query)
        if padding is not None:
            padding = padding[..., None, None, :]
            mask = padding if mask is None else mask + padding
        rate = self.dropout if self.training else 0.0
        q, k, v = (x.transpose(-3, -2) for x in heads)
        result = functional.scaled_dot_product_attention(q, k, v, mask, rate)
        result = self.out_proj(result.transpose(-3, -2).flatten(-2))
        return (result.transpose(0, 1) if turned else result), None


def _as_scores(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Turn a mask of entries to ignore into numbers to add to the scores."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)
