"""The parameters of DropCluster, for the regularizer and the estimators."""

from __future__ import annotations

from numbers import Integral, Real

from sklearn.utils._param_validation import Interval, StrOptions

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
        """Clusters per channel. "auto" is the paper's 15, at most a quarter of the
        pixels; on fewer than four pixels nothing is dropped.""",
    )
    start_epoch: int | str = parameter(
        "auto",
        [Interval(Integral, 0, None, closed="left"), AUTO],
        'int or "auto"',
        """Epochs to train before the first clusters are computed; until then nothing
        is dropped. "auto" is a fifth of `max_epochs`, as in the paper.""",
    )
    update_every: int | str = parameter(
        "auto",
        [Interval(Integral, 1, None, closed="left"), AUTO],
        'int or "auto"',
        'Epochs between updates of the clusters. "auto" is a fifth of `max_epochs`.',
    )
    layer: str | None = parameter(
        "auto",
        [str, None],
        "str or None",
        """Name of the layer whose output is regularized, as in
        ``module_.named_modules()``, or "input". "auto" is the first convolution;
        without one it is the input, flat features being a chain in their order. None
        adds no layer. In any case the DropCluster layers that the module already
        contains get their clusters on the same schedule.""",
    )
    unstructured: str | None = parameter(
        "auto",
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
        average; "down" is the integer below, as in the paper.""",
    )
