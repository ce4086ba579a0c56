"""The parameters of self-informed networks: groups, heads and their training."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions

from sklearn_structreg.core.parameters import component, parameter

__all__ = ["SelfInformedParameters"]

SOURCES = ("confusion", "codetection", "random", "random_codetection")
ALLOCATIONS = ("misses", "equal", "size", "difficulty")
POSITIVE = Interval(Integral, 1, None, closed="left")
AUTO = StrOptions({"auto"})


@component
class SelfInformedParameters:
    """See `SelfInformedClassifier`."""

    estimator: Any = parameter(
        None,
        [HasMethods(["fit", "get_params"]), None],
        "classifier or None",
        """The network to add heads to: a classifier of this package, or a skorch
        `NeuralNetClassifier`. One that is fitted is used as it is; one that is not is
        cloned and trained on all samples. In a grid search, which clones its
        estimators, wrap a fitted one in :class:`sklearn.frozen.FrozenEstimator`. None
        trains a plain network with the common parameters.""",
        kw_only=False,
    )
    n_clusters: int | str = parameter(
        "auto",
        [Interval(Integral, 0, None, closed="left"), AUTO],
        'int or "auto"',
        """The number of groups. 0 adds no heads: this is the plain network, bit for
        bit. "auto" takes the number of eigenvalues of the classes' similarity above the
        largest gap, if there is a clear one, else the paper's 6; at least 2, and at
        most half the classes. There are no more groups than classes that are confused
        at all.""",
    )
    head_layer_sizes: Sequence[int] | str = parameter(
        "auto",
        ["array-like", AUTO],
        'sequence of int or "auto"',
        """Units of each hidden layer of the average head; empty is a linear head.
        "auto" is one layer as wide as `budget` allows. The paper has (512, 512).""",
    )
    budget: float = parameter(
        0.03,
        [Interval(Real, 0, None, closed="neither")],
        "float above 0",
        """Only with ``head_layer_sizes="auto"``: multiply-adds of all heads of a round,
        as a share of the network's. A head has one unit at least, whatever it
        costs.""",
    )
    head_kernel_size: int | None = parameter(
        None,
        [Options(Integral, {1, 3, 5, 7}), None],
        "{1, 3, 5, 7} or None",
        """With a size, the hidden layers of heads are convolutions with such kernels
        and with as many channels as else units, averaged over all positions before the
        output; heads then read maps, and ``layer="auto"`` is the last maps of more than
        one position. None flattens what heads read.""",
    )
    head_allocation: str = parameter(
        "misses",
        [StrOptions(set(ALLOCATIONS))],
        '{"misses", "equal", "size", "difficulty"}',
        """The distribution of the units over the heads: in proportion to the classes in
        the group times the share of their samples that the network missed; equal; or in
        proportion to one of the two, "size" or "difficulty".""",
    )
    head_epochs: float = parameter(
        0.3,
        [Interval(Real, 0, 1, closed="right")],
        "float in (0, 1]",
        "Epochs of the heads' training in each round, as a share of `max_epochs`.",
    )
    source: str = parameter(
        "confusion",
        [StrOptions(set(SOURCES))],
        '{"confusion", "codetection", "random", "random_codetection"}',
        """The counts that groups are made of: classes predicted where another is true
        (Eq. 3), or classes predicted together (Eq. 4). "random" and
        "random_codetection" are the controls: as many and as large groups, with
        classes drawn by lot.""",
    )
    top_k: int | str = parameter(
        "auto",
        [POSITIVE, AUTO],
        'int or "auto"',
        """The number of a sample's best predictions that count as detections; less than
        the number of classes. "auto" is the paper's share of the classes, at least
        2.""",
    )
    cv: Any = parameter(
        2,
        ["cv_object"],
        "int, splitter or iterable of (train, test), or None",
        """Where the estimator is not fitted: the folds. A clone is trained on all but
        one of them for a third of the epochs, and what it confuses in that one is
        counted, so that all samples are scored by a network that has not seen them. The
        network itself is trained on all samples. None scores the samples of the
        training, which shows fewer confusions, as an int does where there are fewer
        than two different samples per class. A fitted estimator scores the samples it
        is given here. An `eval_set` in `fit` takes the place of all this.""",
    )
    layer: str | Sequence[str] = parameter(
        "auto",
        [str, "array-like"],
        "str or sequence of str",
        """The layer whose output the heads read, by its name in ``named_modules()``;
        "auto" is the input of the first fully-connected layer that all of the
        network's computation passes through, and never the samples themselves unless
        the network is linear. Where no fully-connected layer makes the logits, it may
        be another layer, the last one. A sequence has a place for each round.""",
    )
    fresh_classifier: bool = parameter(
        False,
        ["boolean"],
        "bool",
        """Whether the classifier layer begins anew when heads are added, as in the
        paper, and the heads with usual weights. Else it goes on from its weights, and
        what the heads add begins small, so that the network begins as it was.""",
    )
    fine_tune: bool = parameter(
        False,
        ["boolean"],
        "bool",
        "Whether to train all weights for another `max_epochs` in the end.",
    )
    n_rounds: int = parameter(
        1,
        [POSITIVE],
        "int",
        """The number of times to score, group and add heads; each round scores the
        network of the last.""",
    )
    conditional: int | None = parameter(
        None,
        [POSITIVE, None],
        "int or None",
        """In predictions, evaluate only the heads whose group holds one of so many best
        classes of the network without heads; the other classes keep its logits. None
        evaluates all heads. May be changed after `fit`.""",
    )
