"""Pictures of the zeros: maps of the weights, and their share over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sklearn_structreg.cges.estimator import SparseEstimator, check_estimator
from sklearn_structreg.core.axes import Display, take_axes
from sklearn_structreg.core.checks import check_integer
from sklearn_structreg.core.weights import weight_layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["SparsityDisplay", "SparsityHistoryDisplay"]

_TILE_COLUMNS = 16  # of filters, where they have a single input channel
_FRAME = -1.0  # below all magnitudes


class SparsityDisplay(Display):
    """Maps of each layer's weights, zeros in white.

    As Figs. 5 and 6 of the thesis; colours are magnitudes. A linear layer is a matrix
    with a row to each output unit and a column to each input feature. Of a convolution
    each kernel is a tile: a row of tiles to each input channel, a column to each
    filter, or the filters in reading order where there is but one channel.

    Parameters
    ----------
    weights : mapping of str to array-like
        Weights ``(out, in)`` or ``(out, in, *kernel)`` under the names of their layers.

    Attributes
    ----------
    axes_ : ndarray of Axes, shape (n_layers,)
        The axes with the maps.
    figure_ : Figure
        The figure of the axes.

    See Also
    --------
    SparsityDisplay.from_estimator : Show a fitted estimator.
    SparsityHistoryDisplay : The share of zeros over the epochs.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_structreg.cges import SparsityDisplay
    >>> display = SparsityDisplay({"top": np.eye(3, 5)}).plot()
    >>> display.axes_[0].get_title()
    'layer top: 80 % zero'
    """

    def __init__(self, weights: Mapping[str, npt.ArrayLike]) -> None:
        self.weights = weights

    @classmethod
    def from_estimator(
        cls,
        estimator: SparseEstimator,
        *,
        layers: Sequence[str] | None = None,
        **plot_params: Any,
    ) -> Self:
        """Show the penalised weights of a fitted estimator.

        Parameters
        ----------
        estimator : CGESClassifier or CGESRegressor
            Fitted.
        layers : sequence of str, default=None
            Parameter names, as in the keys of ``history_[-1, "layer_sparsity"]``; None
            takes all penalised weights.
        **plot_params : dict
            Passed to :meth:`plot`.

        Returns
        -------
        SparsityDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If a layer is none of the penalised ones.
        TypeError
            If `estimator` is another one, such as a pipeline.
        """
        check_estimator(estimator, cls.__name__)
        known, module = estimator._penalised(), estimator._one_module
        names = known if layers is None else list(layers)
        if not names or not set(names) <= set(known):
            raise ValueError(
                f"layers={layers!r} must list some of the penalised weights {known}."
            )
        weights = {}
        for name in names:
            w = module.get_parameter(name).detach().cpu().double()
            if "io" in weight_layout(module, name).axes:
                w = w.swapaxes(0, 1)
            weights[name.removesuffix(".weight")] = w.numpy()
        return cls(weights).plot(**plot_params)

    def plot(
        self,
        ax: Any = None,
        *,
        n_outputs: int = 32,
        n_inputs: int = 50,
        cmap: Any = "viridis",
    ) -> Self:
        """Draw the maps.

        Parameters
        ----------
        ax : array-like of Axes, default=None
            One for each layer. None makes a figure.
        n_outputs, n_inputs : int, default=32 and 50
            Numbers of output units or filters, and of input features or channels, to
            show, from the first; of channels at most eight.
        cmap : str or Colormap, default="viridis"
            Colours of the magnitudes, from zero to nearly the layer's largest.

        Returns
        -------
        SparsityDisplay
            The display.
        """
        check_matplotlib_support("SparsityDisplay.plot")
        import matplotlib.pyplot as plt

        for name, number in (("n_outputs", n_outputs), ("n_inputs", n_inputs)):
            check_integer(name, number)
        weights = {name: np.asarray(w) for name, w in self.weights.items()}
        if not weights or any(w.ndim < 2 for w in weights.values()):
            raise ValueError(
                "weights must hold a weight of two axes or more, by layer."
            )
        maps = [_map(w, n_outputs, n_inputs) for w in weights.values()]
        heights = [np.clip(7.0 * m.shape[0] / m.shape[1], 0.5, 4.0) for m in maps]
        figsize = (7.5, sum(heights) + 0.75 * len(maps))
        size = (len(maps), 1)
        axes = take_axes(ax, figsize, size, height_ratios=heights)[:, 0]
        self.axes_: npt.NDArray[Any] = axes
        self.figure_: Figure | SubFigure = axes[0].figure
        colors = plt.get_cmap(cmap).with_extremes(bad="white", under="0.6")
        for axis, (name, w), image in zip(axes, weights.items(), maps, strict=True):
            magnitudes = np.where(image == 0, np.nan, image)
            # A few outliers must not darken all else.
            positive = np.abs(w[w != 0])
            top = np.quantile(positive, 0.99) if positive.size else 1.0
            shown = axis.imshow(
                magnitudes, cmap=colors, vmin=0, vmax=top, interpolation="nearest"
            )
            beside = axis.inset_axes((1.015, 0.0, 0.02, 1.0))
            bar = self.figure_.colorbar(shown, cax=beside, extend="max")
            bar.set_label("magnitude", fontsize="small")
            title = f"layer {name}: {100 * np.mean(w == 0):.0f} % zero"
            axis.set_title(title, fontsize="medium")
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(_caption(w, n_outputs, n_inputs), fontsize="small")
        return self


def _map(w: npt.NDArray[Any], n_outputs: int, n_inputs: int) -> npt.NDArray[Any]:
    """Lay a layer's magnitudes out in a plane, tiles framed."""
    if w.ndim == 2:
        return np.asarray(np.abs(w[:n_outputs, :n_inputs]))
    w = np.abs(w[:n_outputs, : min(n_inputs, 8)])
    w = w.reshape(*w.shape[:2], -1, w.shape[-1])  # Conv1d: one row; Conv3d: slices
    if w.shape[1] == 1:
        n_columns = min(_TILE_COLUMNS, len(w))
        w = np.pad(w[:, 0], ((0, -len(w) % n_columns), (0, 0), (0, 0)))
        tiles = w.reshape(-1, n_columns, *w.shape[1:])
    else:
        tiles = w.swapaxes(0, 1)
    frame = ((0, 0), (0, 0), (0, 1), (0, 1))
    framed = np.pad(tiles, frame, constant_values=_FRAME).swapaxes(1, 2)
    plane = framed.reshape(framed.shape[0] * framed.shape[1], -1)
    return np.asarray(plane[:-1, :-1])


def _caption(w: npt.NDArray[Any], n_outputs: int, n_inputs: int) -> str:
    """Describe both axes, and the part of the layer that is shown."""
    if w.ndim > 2:
        n_inputs = min(n_inputs, 8)
    names = ("output", "input feature") if w.ndim == 2 else ("filter", "input channel")
    limits = (n_outputs, n_inputs)
    shown = [
        f"{min(size, limit)} of {size} {name}s"
        for name, size, limit in zip(names, w.shape, limits, strict=False)
    ]
    if w.ndim > 2 and w.shape[1] == 1:
        return shown[0]
    across, down = shown[::-1] if w.ndim == 2 else shown
    return f"across: {across}; down: {down}"


class SparsityHistoryDisplay(Display):
    """The share of zeros in each layer over the epochs.

    Parameters
    ----------
    epochs : array-like of int, shape (n_epochs,)
        Numbers of the epochs.
    layers : mapping of str to array-like of float, shape (n_epochs,)
        Share of zeros in [0, 1] under the names of the layers.
    total : array-like of float, shape (n_epochs,)
        The same among all these weights.

    Attributes
    ----------
    ax_ : Axes
        The axes with the curves.
    figure_ : Figure
        The figure of the axes.
    lines_ : list of Line2D
        One per layer, then that of all.

    See Also
    --------
    SparsityHistoryDisplay.from_estimator : Show a fitted estimator.
    SparsityHistoryDisplay.from_history : Show the history of any skorch net.

    Examples
    --------
    >>> from sklearn_structreg.cges import SparsityHistoryDisplay
    >>> display = SparsityHistoryDisplay([1, 2], {"0": [0.1, 0.5]}, [0.1, 0.5]).plot()
    >>> display.ax_.get_ylabel()
    'weights at zero (%)'
    """

    def __init__(
        self,
        epochs: npt.ArrayLike,
        layers: Mapping[str, npt.ArrayLike],
        total: npt.ArrayLike,
    ) -> None:
        self.epochs = epochs
        self.layers = layers
        self.total = total

    @classmethod
    def from_estimator(
        cls, estimator: SparseEstimator, *, ax: Axes | None = None
    ) -> Self:
        """Show the training of a fitted estimator.

        Parameters
        ----------
        estimator : CGESClassifier or CGESRegressor
            Fitted.
        ax : Axes, default=None
            Axes to draw in. None makes a figure.

        Returns
        -------
        SparsityHistoryDisplay
            The display, drawn.
        """
        check_estimator(estimator, cls.__name__)
        estimator._penalised()  # fitted?
        return cls.from_history(estimator.history_, ax=ax)

    @classmethod
    def from_history(cls, history: Any, *, ax: Axes | None = None) -> Self:
        """Show the history of a skorch net that was trained with `CGES`.

        Parameters
        ----------
        history : skorch.history.History
            With ``sparsity`` and ``layer_sparsity`` in every epoch.
        ax : Axes, default=None
            Axes to draw in. None makes a figure.

        Returns
        -------
        SparsityHistoryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the history does not hold them.
        """
        if not len(history) or "layer_sparsity" not in history[-1]:
            raise ValueError(
                "The history holds no layer_sparsity; give the one of a CGESClassifier "
                "or CGESRegressor, or of a net with RegularizerCallback(CGES(...))."
            )
        per_epoch = history[:, "layer_sparsity"]
        layers = {
            name.removesuffix(".weight"): [epoch[name] for epoch in per_epoch]
            for name in per_epoch[-1]
        }
        return cls(history[:, "epoch"], layers, history[:, "sparsity"]).plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw in. None makes a figure.

        Returns
        -------
        SparsityHistoryDisplay
            The display.
        """
        check_matplotlib_support("SparsityHistoryDisplay.plot")

        ax = take_axes(ax, (6.4, 3.8)).item()
        self.ax_, self.figure_ = ax, ax.figure
        marker = "o" if np.size(self.epochs) == 1 else None
        self.lines_ = [
            ax.plot(self.epochs, 100 * np.asarray(share), marker=marker, label=name)[0]
            for name, share in self.layers.items()
        ]
        total = 100 * np.asarray(self.total)
        style: dict[str, Any] = {"color": "0.2", "linestyle": "--", "label": "all"}
        self.lines_ += ax.plot(self.epochs, total, marker=marker, **style)
        ax.set(xlabel="epoch", ylabel="weights at zero (%)", ylim=(-2, 102))
        ax.grid(alpha=0.3)
        ax.legend(title="layer", fontsize="small")
        return self
