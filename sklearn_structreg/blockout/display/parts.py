"""Names, colours and axes, for all of Blockout's pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklearn_structreg.blockout.conversion import ends_at_outputs
from sklearn_structreg.core.axes import take_axes

__all__ = [
    "check_names",
    "class_names_of",
    "cluster_colors",
    "node_set_names",
    "panels",
]


def node_set_names(estimator: Any) -> list[str]:
    """Name the node sets of a fitted estimator, for titles."""
    sizes = [len(P) for P in estimator.cluster_probabilities_]
    last = "nodes"
    if ends_at_outputs(estimator._one_module, estimator.input_shape_):
        last = "classes" if hasattr(estimator, "classes_") else "targets"
    kinds = ["inputs", *["nodes"] * (len(sizes) - 2), last]
    return [
        f"$P_{{{j}}}$: {n} {kind}"
        for j, (n, kind) in enumerate(zip(sizes, kinds, strict=True))
    ]


def class_names_of(estimator: Any, class_names: Any) -> Any:
    """Return names for the last node set; None if it is not the estimator's classes."""
    if not ends_at_outputs(estimator._one_module, estimator.input_shape_):
        return None
    return getattr(estimator, "classes_", None) if class_names is None else class_names


def check_names(class_names: ArrayLike, n_classes: int) -> NDArray[Any]:
    """Return the names as an array, one for each class."""
    names = np.asarray(class_names)
    if names.shape != (n_classes,):
        raise ValueError(
            f"class_names has shape {names.shape} for {n_classes} classes; give one "
            "name per class."
        )
    return names


def cluster_colors(n_clusters: int, cmap: Any = "tab10") -> list[Any]:
    """Return a colour for each cluster; they repeat beyond those of the map."""
    import matplotlib.pyplot as plt

    colors = plt.get_cmap(cmap)
    return [colors(cluster % colors.N) for cluster in range(n_clusters)]


def panels(
    ax: Any, n_panels: int, side: float = 2.9, share: bool = False
) -> tuple[NDArray[Any], Any]:
    """Return axes for as many panels, new ones where there are none, and the figure."""
    figsize = (side * n_panels + 0.4, side * 0.95)
    axes = take_axes(ax, figsize, (1, n_panels), sharey=share)[0]
    return axes, axes[0].figure
