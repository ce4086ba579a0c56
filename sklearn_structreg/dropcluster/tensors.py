"""Arrays as tensors, without a warning, and where possible without a copy."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_structreg.core.messages import explaining


def as_tensor(values: Any) -> Tensor:
    """Return a tensor; a read-only or reversed array is copied, others are shared."""
    if isinstance(values, np.ndarray) and (
        not values.flags.writeable or min(values.strides, default=0) < 0
    ):
        values = values.copy()
    return torch.as_tensor(values)


def as_numbers(values: Any, name: str) -> Tensor:
    """Return a dense tensor of real numbers, or raise."""
    with explaining(f"{name} must hold numbers: {{}}."):
        tensor = as_tensor(values)
    if tensor.is_complex() or tensor.is_meta or tensor.layout is not torch.strided:
        raise ValueError(f"{name} must hold numbers: real ones, in a dense tensor.")
    return tensor
