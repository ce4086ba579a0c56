"""Arrays as tensors, without a copy or a warning where that can be."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(values: Any) -> Tensor:
    """Return `torch.as_tensor`, of a copy if torch would warn of or refuse the array.

    Parameters
    ----------
    values : Tensor, ndarray or array-like
        Numbers. Arrays that must not be written to, or run backwards, are copied.

    Returns
    -------
    Tensor
        The values, sharing memory with them otherwise.
    """
    if isinstance(values, np.ndarray) and (
        not values.flags.writeable or min(values.strides, default=0) < 0
    ):
        values = values.copy()
    return torch.as_tensor(values)
