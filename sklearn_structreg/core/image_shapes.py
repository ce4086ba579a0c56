"""The layout of an image, (C, ...spatial): recognized or refused, never guessed."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["refuse_channels_last", "with_channel", "without_leading_ones"]

Shape = tuple[int, ...]
USUAL_CHANNELS = (1, 3, 4)


def with_channel(shape: Sequence[int]) -> Shape:
    """Give an image of two lengths, (H, W), its one channel.

    >>> with_channel((28, 28)), with_channel((3, 28, 28)), with_channel((784,))
    ((1, 28, 28), (3, 28, 28), (784,))
    """
    return (1, *shape) if len(shape) == 2 else tuple(shape)


def without_leading_ones(shape: Shape) -> Shape:
    """Leave out all leading axes of length 1, such as that of a single channel."""
    while shape[:1] == (1,):
        shape = shape[1:]
    return shape


def refuse_channels_last(shape: Sequence[int], *, flat: bool = False) -> None:
    """Refuse (H, W, C) where it cannot well be (C, H, W).

    That is where the last length is a usual number of channels, the first is none, and
    all others are larger than the last. `flat` is for images that come as rows.
    """
    *others, last = shape
    if (
        len(others) < 2
        or others[0] in USUAL_CHANNELS
        or last not in USUAL_CHANNELS
        or min(others) <= last
    ):
        return
    axes = range(len(shape) - 1)
    whole = (0, len(shape), *(axis + 1 for axis in axes))
    images = f"X.reshape{(-1, *shape)}" if flat else "X"
    raise ValueError(
        f"Samples of shape {tuple(shape)} seem to have their channels last, but the "
        f"layout is (C, ...spatial); turn them round with {images}.transpose{whole}, a "
        f"tensor with permute{whole}, or each item of a Dataset with "
        f"permute{(len(shape) - 1, *axes)}."
    )
