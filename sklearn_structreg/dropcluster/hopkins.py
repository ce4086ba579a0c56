"""Hopkins statistics: the amount of structure in points and in images.

Both are near 0.5 without structure and go towards 1 with it. (Some packages return the
other ratio, which goes to 0 with structure.)
"""

from collections.abc import Sequence
from itertools import product
from math import prod
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from sklearn_structreg.core.checks import (
    check_integer,
    check_table,
    is_integer,
    is_number,
)
from sklearn_structreg.core.parameters import Number
from sklearn_structreg.core.site import OnSite
from sklearn_structreg.core.versions import VersionedPickle
from sklearn_structreg.dropcluster.images import flatten_images, split_shape
from sklearn_structreg.dropcluster.tensors import as_numbers, as_tensor

_Count = int | Literal["auto"]
_Indices = npt.NDArray[np.int64]
_BLOCK = 2**17  # drawn pixels of all channels at a time, to need little memory


def hopkins(
    X: Any,
    n_points: _Count = "auto",
    *,
    power: float | Literal["d"] = 1,
    random_state: Any = None,
) -> float:
    """Measure how clustered points are: 0.5 is uniform, towards 1 is clustered.

    Equation 2 of the DropCluster paper: the distances from uniform random points to
    their nearest data points, as a share of those and of the distances from data points
    to theirs. Values near 0 are regularly spaced points.

    Parameters
    ----------
    X : array-like of shape (n_points_in_data, n_features)
        The points.
    n_points : int or "auto", default="auto"
        Points drawn of each kind, at most the number of data points. "auto" is a tenth
        of them, at least 1.
    power : float or "d", default=1
        Power of the distances. 1 is the paper's; with "d", the number of features, the
        statistic of uniform points follows Beta(n_points, n_points).
    random_state : int, RandomState instance or None, default=None
        Seed of the draws. The global generator of numpy is neither read nor advanced.

    Returns
    -------
    float
        From 0 to 1; NaN if all points are equal, where the ratio is 0 / 0.

    Raises
    ------
    ValueError
        If there are fewer than two points, if more are asked for than there are, or if
        `power` is not positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_structreg.dropcluster import hopkins
    >>> rng = np.random.default_rng(0)
    >>> uniform = rng.uniform(size=(500, 2))
    >>> blobs = rng.normal(size=(500, 2)) * 0.02 + rng.integers(3, size=(500, 2))
    >>> round(hopkins(uniform, random_state=0), 1)
    0.5
    >>> round(hopkins(blobs, random_state=0), 1)
    1.0
    """
    X = check_array(X, dtype=[np.float64, np.float32], ensure_min_samples=2)
    n, d = X.shape
    m: Any = max(1, n // 10) if n_points == "auto" else n_points
    if not is_integer(m) or m > n:
        raise ValueError(
            f"n_points={n_points!r} cannot be drawn from {n} data points: choose from "
            "1 to their number."
        )
    if power != "d" and not (is_number(power) and 0 < power < np.inf):
        raise ValueError(f"power={power!r} must be a positive number, or 'd'.")
    rng = _generator(random_state)
    artificial = rng.uniform(X.min(axis=0), X.max(axis=0), size=(m, d))
    actual = X[rng.choice(n, m, replace=False)]
    neighbors = NearestNeighbors(n_neighbors=2).fit(X)
    exponent = d if power == "d" else power
    u = neighbors.kneighbors(artificial)[0][:, 0] ** exponent
    # The nearest of two is the point itself.
    w = neighbors.kneighbors(actual)[0][:, 1] ** exponent
    total = u.sum() + w.sum()
    return float(u.sum() / total) if total > 0 else float("nan")


def spatial_hopkins(
    images: Tensor | npt.ArrayLike,
    n_points: _Count = "auto",
    *,
    random_state: Any = None,
) -> Tensor:
    """Measure structure in images: 0.5 is none, towards 1 is smooth or clustered.

    Equations 3 to 5 of the DropCluster paper: the distances of random pixels from
    another pixel's neighbours, as a share of those and of that pixel's own distances
    from them. One draw of pixels serves all images and channels, so that these can be
    compared.

    Parameters
    ----------
    images : Tensor of shape (n_images, n_channels, ...)
        Images, such as the feature maps of a mini-batch, of any spatial dimension d;
        also arrays. A pixel off the border has 3^d - 1 neighbours.
        Axes of length 1 do not count, and on an axis of length 2 either pixel is the
        other's neighbour on both sides.
    n_points : int or "auto", default="auto"
        Pixels drawn of each kind, with replacement. "auto" is a tenth of the pixels
        off the border, but at least 100.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws. The global generators are neither read nor advanced.

    Returns
    -------
    Tensor of shape (n_images, n_channels)
        From 0 to 1, in the floating dtype of `images`; NaN where a channel is constant
        on all drawn pixels, where the ratio is 0 / 0.

    Raises
    ------
    ValueError
        If there is no image or channel, or only one pixel.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.dropcluster import spatial_hopkins
    >>> ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    >>> noise = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> images = torch.cat([ramp, noise], dim=1)
    >>> spatial_hopkins(images, 500, random_state=0)
    tensor([[0.93..., 0.49...]])
    """
    maps = as_numbers(images, "images")
    if maps.ndim < 3 or maps.numel() == 0:
        raise ValueError(
            "images must have shape (n_images, n_channels, ...) and not be empty, got "
            f"{tuple(maps.shape)}."
        )
    drawn = draw_pixels(maps.shape[2:], n_points, random_state)
    return _statistic(maps, *(torch.from_numpy(d).to(maps.device) for d in drawn))


def draw_pixels(
    shape: Sequence[int], n_points: _Count = "auto", random_state: Any = None
) -> tuple[_Indices, _Indices, _Indices]:
    """Draw pixels for Eqs. 3 and 4, as indices into the flattened image.

    Returned are the pixels (x_i, y_i), off the border; their neighbours (u, v), as
    (n_neighbors, n_points); and the pixels (q_i, r_i), anywhere.
    """
    lengths = [length for length in shape if length > 1]
    if not lengths:
        raise ValueError(
            f"an image of shape {tuple(shape)}, n_features=1, has no neighbouring "
            "pixels: at least two are needed."
        )
    borders = [1 if length > 2 else 0 for length in lengths]
    inner = prod(n - 2 * border for n, border in zip(lengths, borders, strict=True))
    m = max(100, inner // 10) if n_points == "auto" else n_points
    check_integer("n_points", m, more=", or 'auto'")
    rng = _generator(random_state)
    here = np.stack(
        [
            rng.integers(border, n - border, size=m)
            for n, border in zip(lengths, borders, strict=True)
        ]
    )
    around = [
        offset for offset in product((-1, 0, 1), repeat=len(lengths)) if any(offset)
    ]
    neighbors = [
        np.ravel_multi_index(
            list(here + np.array(offset)[:, None]), lengths, mode="wrap"
        )
        for offset in around
    ]
    return (
        np.ravel_multi_index(list(here), lengths),
        np.stack(neighbors),
        rng.integers(prod(lengths), size=m),
    )


@torch.no_grad()
def _statistic(
    images: Tensor, here: Tensor, neighbors: Tensor, there: Tensor
) -> Tensor:
    """Return Eq. 5 per image and channel for given pixels, some images at a time."""
    n_images = max(1, _BLOCK // (images.shape[1] * len(here)))
    blocks = torch.split(images, n_images)
    return torch.cat([_block_statistic(x, here, neighbors, there) for x in blocks])


def _block_statistic(
    images: Tensor, here: Tensor, neighbors: Tensor, there: Tensor
) -> Tensor:
    if not images.is_floating_point():
        images = images.to(torch.float32)
    pixels = images.flatten(2)
    center, other = pixels.index_select(2, here), pixels.index_select(2, there)
    w, z = torch.zeros_like(center), torch.zeros_like(center)
    for index in neighbors:
        neighbor = pixels.index_select(2, index)
        w += (center - neighbor).abs_()
        z += (other - neighbor).abs_()
    # The 1/8 of Eqs. 3 and 4 cancels.
    z_sum, w_sum = z.sum(-1), w.sum(-1)
    return z_sum / (z_sum + w_sum)


class SpatialHopkins(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    VersionedPickle,
    OnSite,
    BaseEstimator,
):
    """Spatial Hopkins statistic of every image and channel: 0.5 is no structure.

    Towards 1, neighbouring pixels are alike: the channel is smooth or falls into
    regions. Near 0.5, neighbours differ as much as any two pixels. Below, they differ
    more, as in stripes one pixel wide.

    Parameters
    ----------
    n_points : int or "auto", default="auto"
        Pixels drawn of each kind, with replacement, once in `fit`. "auto" is a tenth of
        the pixels off the border, but at least 100.
    image_shape : tuple of 1 to 4 ints, default=None
        Shape of a flattened row of `X`: (length,), (height, width), (channels, height,
        width) or (channels, depth, height, width). None takes the shape from an `X` of
        more than two dimensions, (n_samples, height, width) or (n_samples, channels,
        height, width) and so on, and rows of a two-dimensional `X` as signals of one
        channel.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws. The global generator of numpy is neither read nor advanced.

    Attributes
    ----------
    n_channels_ : int
        Number of channels, and of columns that `transform` returns.
    shape_ : tuple of int
        Spatial shape of a channel.
    n_points_ : int
        Pixels drawn of each kind.
    n_features_in_ : int
        Number of values per image.
    feature_names_in_ : ndarray of str, shape (n_features,)
        Names of the features, where `X` had them.

    See Also
    --------
    sklearn_structreg.dropcluster.spatial_hopkins : The same on tensors.
    sklearn_structreg.dropcluster.hopkins : The statistic for points.

    Notes
    -----
    A channel without any contrast has no statistic: its value is NaN, which a
    `sklearn.impute.SimpleImputer` can replace in a pipeline, say by 0.5.

    References
    ----------
    Section 4.2, Equations 3 to 5, of L. Chen, P. Gautier, S. Aydore, "DropCluster: A
    structured dropout for convolutional networks", 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.dropcluster import SpatialHopkins
    >>> X = load_digits().data
    >>> statistic = SpatialHopkins(image_shape=(8, 8), random_state=0).fit_transform(X)
    >>> statistic.shape
    (1797, 1)
    """

    _parameter_constraints = {  # noqa: RUF012 (scikit-learn's way to declare them)
        "n_points": [Number(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "image_shape": [Sequence, np.ndarray, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_points: _Count = "auto",
        *,
        image_shape: Sequence[int] | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_points = n_points
        self.image_shape = image_shape
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Draw the pixels; the values of `X` do not matter.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Images.
        y : None
            Not used.

        Returns
        -------
        SpatialHopkins
            The fitted object.
        """
        self._validate_params()
        check_table(X, "X")
        rows = validate_data(self, flatten_images(X), dtype=[np.float64, np.float32])
        self.n_channels_, self.shape_ = split_shape(self.image_shape, X, rows.shape[1])
        self._pixels = draw_pixels(self.shape_, self.n_points, self.random_state)
        self.n_points_ = len(self._pixels[0])
        return self

    def transform(self, X: Any) -> npt.NDArray[np.floating[Any]]:
        """Compute the statistic of each channel of each image.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Images of the shape seen in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_channels)
            From 0 to 1, NaN for a channel that is constant on the drawn pixels.
        """
        check_is_fitted(self)
        dtypes = [np.float64, np.float32]
        rows = validate_data(self, flatten_images(X), dtype=dtypes, reset=False)
        if getattr(X, "ndim", 2) > 2:
            split_shape((self.n_channels_, *self.shape_), X, rows.shape[1])
        return _statistic(
            as_tensor(rows).reshape(len(rows), self.n_channels_, *self.shape_),
            *map(torch.from_numpy, self._pixels),
        ).numpy()

    @property
    def _n_features_out(self) -> int:
        """Number of channels, for get_feature_names_out."""
        return self.n_channels_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.three_d_array = True
        return tags


def _generator(random_state: Any) -> np.random.Generator:
    """Return a generator that differs from numpy's own for the same seed."""
    # Otherwise, for uniform data drawn with that seed, the artificial points would be
    # the data themselves.
    if random_state is None:
        return np.random.default_rng()
    return np.random.default_rng(
        check_random_state(random_state).randint(2**31, size=4)
    )
