"""Masked linear layers on compiled loops."""

from typing import Any

from torch import Tensor


def fused_linear(*arguments: Any) -> Tensor | None:
    """Leave it to torch."""
    return None
