"""Arrays as tensors, without a warning, and where possible without a copy."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(values: Any) -> Tensor:
    """Return a tensor; a read-only or reversed array is copied, others are shared."""
    if isinstance(values, np.ndarray) and (
        not values.flags.writeable or min(values.strides, default=0) < 0
    ):
        values = values.copy()
    return torch.as_tensor(values)
