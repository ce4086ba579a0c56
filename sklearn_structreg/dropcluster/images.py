"""Images as rows of a table: `image_shape` is (C, ...spatial), or of one channel."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sklearn_structreg.core.checks import is_integer
from sklearn_structreg.core.image_shapes import (
    refuse_channels_last,
    without_leading_ones,
)

__all__ = ["flatten_images", "split_shape"]


def flatten_images(X: Any) -> Any:
    """Return images of shape (n_samples, n_channels, ...) as rows; rows as they are."""
    if getattr(X, "ndim", 2) <= 2:
        return X
    images = np.asarray(X)
    return images.reshape(len(images), -1)


def split_shape(
    image_shape: Sequence[int] | None, X: Any, n_features: int
) -> tuple[int, tuple[int, ...]]:
    """Return the channels and spatial shape of a row of X, a signal by default.

    One length is that of a signal, two are those of an image of one channel; of three
    or four, the first one counts channels.
    """
    own = tuple(getattr(X, "shape", (1, n_features))[1:])
    shape = own if image_shape is None else tuple(image_shape)
    positive = all(map(is_integer, shape))
    same = len(own) == 1 or without_leading_ones(own) == without_leading_ones(shape)
    if not (1 <= len(shape) <= 4 and positive and prod(shape) == n_features and same):
        raise ValueError(
            f"image_shape={shape} does not fit n_features={n_features}, in samples of "
            f"shape {own}: it must be (length,), (height, width), (channels, height, "
            "width) or (channels, depth, height, width), in positive integers whose "
            "product is the number of features."
        )
    refuse_channels_last(shape, flat=len(own) == 1)
    return (int(shape[0]), shape[1:]) if len(shape) > 2 else (1, shape)
