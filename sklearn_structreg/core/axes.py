"""Axes of a display: the given ones, or those of a new figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sklearn_structreg.core.messages import shown

__all__ = ["take_axes"]


def take_axes(
    ax: Any,
    figsize: tuple[float, float],
    size: tuple[int, int] = (1, 1),
    *,
    name: str = "ax",
    **options: Any,
) -> NDArray[Any]:
    """Return the given Axes as a table, rows by columns, or those of a new figure."""
    check_matplotlib_support("A display's plot")
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

    if ax is None:
        options |= {"figsize": figsize, "squeeze": False, "layout": "constrained"}
        _, ax = plt.subplots(*size, **options)
    axes = np.array(ax, dtype=object).ravel()
    known = all(isinstance(each, Axes) for each in axes)
    if not known or len(axes) != size[0] * size[1]:
        got = f"{len(axes)} of them" if known else shown(ax)
        raise ValueError(
            f"{name} must hold {size[0]} x {size[1]} matplotlib Axes, row by row; got "
            f"{got}."
        )
    return axes.reshape(size)
