"""Axes of a display."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def take_axes(
    ax: Any, size: tuple[int, int], figsize: tuple[float, float], **options: Any
) -> npt.NDArray[Any]:
    """Return the given Axes as a table, rows by columns, or those of a new figure."""
    import matplotlib.pyplot as plt

    if ax is None:
        options |= {"figsize": figsize, "squeeze": False, "layout": "constrained"}
        _, ax = plt.subplots(*size, **options)
    axes = np.array(ax, dtype=object).ravel()
    if len(axes) != size[0] * size[1]:
        raise ValueError(
            f"ax must hold {size[0]} x {size[1]} Axes, row by row, got {len(axes)}."
        )
    return axes.reshape(size)
