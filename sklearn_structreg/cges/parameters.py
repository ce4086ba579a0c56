"""The parameters of the CGES penalty, of the regularizer and of its estimators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

from sklearn.utils._param_validation import Interval, StrOptions

from sklearn_structreg.core.parameters import component, parameter

__all__ = ["CGESParameters"]

LayerScale = str | Sequence[float] | Sequence[Sequence[float]] | None


@component
class CGESParameters:
    """The parameters of the penalty."""

    alpha: float = parameter(
        1.0,
        [Interval(Real, 0, math.inf, closed="left")],
        "float",
        """Strength of the penalty, at least 0; with 0 this is the plain network, bit
        for bit. Worth a search on a log scale.""",
        kw_only=False,
    )
    penalty: str = parameter(
        "cges",
        [StrOptions({"cges", "group", "exclusive", "l1", "l2"})],
        '{"cges", "group", "exclusive", "l1", "l2"}',
        r""""group" and "exclusive" are the two terms alone, with :math:`\mu_l` 0 and 1;
        "l1" is :math:`\|w\|_1`, "l2" :math:`\frac12\|w\|_2^2`.""",
    )
    exclusivity: float = parameter(
        0.2,
        [Interval(Real, 0, 1, closed="both")],
        "float in [0, 1]",
        r"""m in :math:`\mu_l = m + (1-2m)\,l/(L-1)`, for "cges": the share of the
        exclusive term at the bottom layer, and of the group term at the top. A network
        with a single weight gets the top layer's :math:`1-m`.""",
    )
    groups: str = parameter(
        "feature",
        [StrOptions({"feature", "filter"})],
        '{"feature", "filter"}',
        """"feature": a group is all weights that leave one input, for convolutions one
        tap of the kernel across all filters that read the input's channel. "filter":
        all weights that enter one unit or filter.""",
    )
    prox: str = parameter(
        "exact",
        [StrOptions({"exact", "paper"})],
        '{"exact", "paper"}',
        """The exclusive term's proximal operator: exact, or the paper's Eq. 8, which
        takes the norm before the step and zeroes whole groups once
        ``lr * alpha * mu * b`` reaches one.""",
    )
    layer_scale: LayerScale = parameter(
        "auto",
        [StrOptions({"auto"}), "array-like", None],
        '"auto", None or sequence',
        r"""The constants :math:`a_l` and :math:`b_l`. "auto" measures them on the
        gradients of the first mini-batch, so that one alpha means the same on every
        layer, width and depth: :math:`a_l` is the root mean square of the groups'
        gradient norms (a tenth of it for "cges"), :math:`b_l` that of the weights'
        gradients times :math:`2\sqrt{d}/n_g`, with n_g weights in a group and d inputs
        per unit. None is the bare paper, all ones. A sequence gives a constant, or a
        pair (a, b), for each weight in forward order.""",
    )
    ramp: float = parameter(
        0.5,
        [Interval(Real, 0, 1, closed="both")],
        "float in [0, 1]",
        """The share of `max_epochs` in which the strength rises evenly to alpha, so
        that weights grow before they are compared. 0 is alpha from the first step on.
        A warm start rises from the last fit's alpha.""",
    )
    refit: float = parameter(
        1 / 3,
        [Interval(Real, 0, 1, closed="left")],
        "float in [0, 1)",
        """The share of `max_epochs`, at the end, in which the penalty rests and the
        zeros stay, so that the other weights recover from the shrinking. 0 is none.""",
    )
