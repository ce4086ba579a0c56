"""Dropout of single values, of whole channels, and of blocks of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from sklearn_structreg.baselines.dropblock import (
    DropBlock1d,
    DropBlock2d,
    DropBlock3d,
)
from sklearn_structreg.baselines.insertion import InsertedLayers, rate_parameter
from sklearn_structreg.core.insertion import InsertionPoint
from sklearn_structreg.core.inspection import weighted_layers
from sklearn_structreg.core.parameters import component, parameter

__all__ = ["DropBlock", "Dropout", "SpatialDropout"]

PAPER_BLOCK = 5
CHANNELS = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}
BLOCKS = {1: DropBlock1d, 2: DropBlock2d, 3: DropBlock3d}


@component
class Dropout(InsertedLayers):
    """Drop single values in training (Srivastava et al., JMLR 15, 2014).

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    inserted_ : list of str
        Names of the inserted layers.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.baselines import Dropout
    >>> from sklearn_structreg.core import StructuredClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = StructuredClassifier(regularizers=[Dropout(0.5)], max_epochs=10)
    >>> net.fit(X, y).regularizers_["dropout"].inserted_
    ['2.inserted_layer']
    """

    drop_rate: float = rate_parameter(0.5, "Probability to drop a value")
    layers: str | Sequence[str] = parameter(
        "auto",
        [str, "array-like"],
        'str, sequence of str, or "auto"',
        """Names of layers, as in ``module_.named_modules()``, whose outputs are
        regularized, or "input". "auto" is the inputs of all linear layers but the first
        layer with weights.""",
    )

    _min_pixels: ClassVar[int] = 0
    _rate: ClassVar[str] = "p"

    def _find_auto(self, module: nn.Module, sample: Any) -> list[InsertionPoint]:
        later: list[tuple[str, Any]] = list(weighted_layers(module, sample).items())[1:]
        names = [name for name, layer in later if layer.weight.ndim == 2]
        if not names:
            raise ValueError(
                "Dropout finds no linear layer after the network's first layer with "
                "weights; name layers, or set layers='input'."
            )
        return [InsertionPoint(name, True, ()) for name in names]

    def _make_layer(self, point: InsertionPoint) -> nn.Module:
        return nn.Dropout(self.drop_rate)


@component
class SpatialDropout(InsertedLayers):
    """Drop whole channels of feature maps in training (Tompson et al., CVPR 2015).

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    inserted_ : list of str
        Names of the inserted layers.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.baselines import SpatialDropout
    >>> from sklearn_structreg.core import StructuredClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = StructuredClassifier(
    ...     regularizers=[SpatialDropout(0.2)], image_shape=(1, 8, 8), max_epochs=2)
    >>> net.fit(X, y).module_.get_submodule("0.inserted_layer_2")
    Dropout2d(p=0.2, inplace=False)
    """

    drop_rate: float = rate_parameter(0.1, "Probability to drop a channel")

    _rate: ClassVar[str] = "p"

    def _make_layer(self, point: InsertionPoint) -> nn.Module:
        if point.before and point.shape[0] == 1:
            raise ValueError(
                "SpatialDropout drops whole channels, but the input has a single one; "
                "name a layer with several."
            )
        return CHANNELS[point.n_dims](self.drop_rate)


@component
class DropBlock(InsertedLayers):
    """Drop blocks of neighbouring pixels in training (Ghiasi et al., NeurIPS 2018).

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    inserted_ : list of str
        Names of the inserted layers.

    See Also
    --------
    DropBlock2d : The layer, with notes on the drawing of blocks.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.baselines import DropBlock
    >>> from sklearn_structreg.core import StructuredClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = StructuredClassifier(
    ...     regularizers=[DropBlock(0.2)], image_shape=(1, 8, 8), max_epochs=2)
    >>> net.fit(X, y).module_.get_submodule("0.inserted_layer_2")
    DropBlock2d(block_size=(4, 4), drop_rate=0.2)
    """

    drop_rate: float = rate_parameter(0.1, "Share of the pixels to drop")
    block_size: int | str = parameter(
        "auto",
        [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        'int or "auto"',
        """Side of the blocks. "auto" is the paper's 5, at most half a side of the
        map.""",
    )

    _structure: ClassVar[tuple[str, ...]] = ("layers", "block_size")

    def _make_layer(self, point: InsertionPoint) -> nn.Module:
        shape, size = point.shape[1:], self.block_size
        if isinstance(size, str):
            sides = [min(PAPER_BLOCK, max(1, side // 2)) for side in shape]
        elif size <= min(shape):
            sides = [size] * len(shape)
        else:
            raise ValueError(
                f"block_size={size} does not fit into maps of shape {tuple(shape)}; "
                "give a smaller one, or block_size='auto'."
            )
        return BLOCKS[point.n_dims](sides, self.drop_rate)
