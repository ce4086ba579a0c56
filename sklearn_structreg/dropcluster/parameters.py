"""The parameters of DropCluster, for the regularizer and the estimators."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
)

from sklearn_structreg.core.parameters import component, parameter

__all__ = ["DropClusterParameters"]

AUTO = StrOptions({"auto"})


@component
class DropClusterParameters:
    """See `DropCluster`."""

    drop_rate: float = parameter(
        0.1,
        [Interval(Real, 0, 1, closed="left")],
        "float in [0, 1)",
        """Share of the clusters to drop; 0 is the plain network, bit for bit, without
        any clusters.""",
        kw_only=False,
    )
    n_clusters: int | str = parameter(
        "auto",
        [Interval(Integral, 1, None, closed="left"), AUTO],
        'int or "auto"',
        """Clusters per channel. Two are left after every drop, so that it takes three
        for anything to be dropped. "auto" is the paper's 15, at most a quarter of the
        pixels and at least 3; of fewer than three flat features nothing is dropped.""",
    )
    start_epoch: float | str = parameter(
        "auto",
        [
            Interval(Integral, 0, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="left"),
            AUTO,
        ],
        'int, float in [0, 1) or "auto"',
        """Epochs to train before the first clusters are computed, or their share of
        `max_epochs`; until then nothing is dropped. "auto" is 0.2, as in the paper. A
        share begins before early stopping can end the training. In `partial_fit` a
        whole number counts calls, and a share begins in the second call.""",
    )
    update_every: float | str = parameter(
        "auto",
        [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
            AUTO,
        ],
        'int, float in (0, 1] or "auto"',
        """Epochs between updates of the clusters, or their share of `max_epochs`.
        "auto" is 0.2. In `partial_fit` a whole number counts calls, and a share is that
        of the calls before.""",
    )
    n_batches: int = parameter(
        4,
        [Interval(Integral, 1, None, closed="left")],
        "int",
        """Mini-batches that an update takes together, so that no single one decides on
        the clusters; at most an epoch. The paper takes 1.""",
    )
    layer: str | Sequence[str] | None = parameter(
        "auto",
        [str, list, tuple, None],
        "str, list of str or None",
        """Names of the layers whose outputs are regularized, as in
        ``module_.named_modules()``, or "input". "auto" is the first convolution;
        without one it is the input, flat features being a chain in their order. None
        adds no layer. In any case the DropCluster layers that the module already
        contains get their clusters on the same schedule.""",
    )
    connectivity: Any = parameter(
        None,
        ["array-like", "sparse matrix", None],
        "sparse matrix or array-like of shape (n_pixels, n_pixels), or None",
        """Symmetric graph of the pixels of a map, or of flat features, that may come
        together: a mask of voxels, nearest neighbours. Pixels without any neighbour
        form a cluster of their own. None joins neighbours on the map.""",
    )
    clusterer: Any = parameter(
        None,
        [HasMethods("fit"), None],
        "scikit-learn clusterer or None",
        """Clusters the pixels of each channel in place of ReNA: ``fit`` gets a row for
        each pixel and a column for each sample, and leaves ``labels_``; noise (-1) is
        one more cluster. It brings its own number of clusters and its own graph.""",
    )
    mask_per: str = parameter(
        "batch",
        [StrOptions({"batch", "sample"})],
        '{"batch", "sample"}',
        """One draw for each training step, as in the paper, or one for each sample, at
        the cost of larger masks.""",
    )
    unstructured: str | None = parameter(
        None,
        [StrOptions({"auto", "hopkins"}), None],
        '{"auto", "hopkins"} or None',
        """Channels to mask altogether: "auto" is those with fewer different pixels than
        clusters (dead, or nearly), "hopkins" also those whose mean Spatial Hopkins
        statistic is below `hopkins_threshold`, None is none.""",
    )
    hopkins_threshold: float = parameter(
        0.55,
        [Interval(Real, 0, 1, closed="both")],
        "float in [0, 1]",
        "Noise has a statistic of 0.5.",
    )
    rounding: str = parameter(
        "stochastic",
        [StrOptions({"stochastic", "down"})],
        '{"stochastic", "down"}',
        """Rounding of ``drop_rate * n_clusters``, the number of clusters to drop:
        "stochastic" is up or down at random, so that the share is `drop_rate` on
        average; "down" is the integer below, as in the paper. Two clusters of every
        channel always stay.""",
    )
