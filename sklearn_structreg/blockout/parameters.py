"""The parameters of Blockout, declared once for regularizer, estimators, converter."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real

from sklearn.utils._param_validation import Interval, StrOptions

from sklearn_structreg.core.parameters import component, parameter

__all__ = ["BlockoutParameters"]


@component
class BlockoutParameters:
    """The clusters, their probabilities, and the layers to convert."""

    n_clusters: int = parameter(
        6,
        [Interval(Integral, 1, None, closed="left")],
        "int",
        "k, the most branches that the architecture can have.",
        kw_only=False,
    )
    assignment: str = parameter(
        "hard",
        [StrOptions({"hard", "soft"})],
        '{"hard", "soft"}',
        """"hard" draws memberships while training, "soft" uses the probabilities
        themselves.""",
    )
    learn_probabilities: bool = parameter(
        True,
        ["boolean"],
        "bool",
        "Whether the probabilities are trained with the weights or stay as they are.",
    )
    gradient: str = parameter(
        "straight_through",
        [StrOptions({"paper", "straight_through"})],
        '{"paper", "straight_through"}',
        """Of the memberships that are drawn: "paper" multiplies it by the draw (Eq. 9)
        and hardly learns once the weights fit; "straight_through" does not, and
        follows the expected loss.""",
    )
    init_probability: float = parameter(
        0.8,
        [Interval(Real, 0, 1, closed="right")],
        "float in (0, 1]",
        """The first probability of every membership, 0.5 in the paper. 1 is the plain
        network, bit for bit.""",
    )
    block_penalty: float = parameter(
        0.1,
        [Interval(Real, 0, None, closed="left")],
        "float",
        """Price of the multiply-adds of the converted layers, added to the loss: it
        presses nodes out of clusters where they do not pay. It is times the expected
        number of weights in branches, one branch for each cluster, over that of the
        weights.""",
    )
    mask_per: str = parameter(
        "batch",
        [StrOptions({"batch", "sample"})],
        '{"batch", "sample"}',
        """One draw for each training step, as in the paper, or one for each sample, at
        the cost of k matrix products instead of one.""",
    )
    logit_rate_factor: float | str = parameter(
        "auto",
        [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        '"auto" or float',
        """Learning rate of the logits as a multiple of the common one. The gradient of
        a membership is small beside those of the weights: with 1 the probabilities
        hardly leave `init_probability` in the first thousand steps. "auto" is 100 for
        SGD, and more for sets of over 100 nodes in proportion; 20 for all others.""",
    )
    layers: str | Sequence[str] = parameter(
        "auto",
        [StrOptions({"auto", "all"}), "array-like"],
        '"auto", "all" or list of str',
        """The chain of layers to convert, by their names in the module. "auto" takes
        the fully-connected heads, output layers included, "all" every linear and
        convolutional layer that runs once; the nodes of a convolution are its
        channels.""",
    )
