"""Display: a picture that notebooks show; and its axes, given or of a new figure."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sklearn_structreg.core.messages import shown

__all__ = ["Display", "take_axes"]


class Display:
    """Base of displays: as the last line of a notebook's cell each is its picture.

    Subclasses have a method `plot`, which sets `figure_`.
    """

    figure_: Any

    def _repr_png_(self) -> bytes | None:
        """Return the picture, drawn now if it is not yet, for IPython."""
        if not hasattr(self, "figure_"):
            self.plot()  # type: ignore[attr-defined] # of the subclass
        import matplotlib.pyplot as plt
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure = self.figure_.figure  # the whole, where that is a part of one
        if type(figure.canvas) is not FigureCanvasAgg:
            return None  # it has a window, or a widget, of its own
        picture = BytesIO()
        figure.savefig(picture, format="png", bbox_inches="tight")
        plt.close(figure)  # else the notebook shows it a second time
        return picture.getvalue()


def take_axes(
    ax: Any,
    figsize: tuple[float, float],
    size: tuple[int, int] = (1, 1),
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
            f"ax must hold {size[0]} x {size[1]} matplotlib Axes, row by row; got "
            f"{got}."
        )
    return axes.reshape(size)
