"""SelfInformedClassifier: specialist heads where the network itself is confused."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields, replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from sklearn_structreg.core import StructuredClassifier, count_multiply_adds
from sklearn_structreg.core.checkpoint import Checkpoint
from sklearn_structreg.core.convergence import note_failure
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.modules import ModuleLike
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.parameters import component, parameter, parameter_of
from sklearn_structreg.core.randomness import derive_seed
from sklearn_structreg.core.sequence import RegularizerSequence, named_regularizers
from sklearn_structreg.core.training import PREDICTION_ROWS, SAMPLE_ROWS, make_net
from sklearn_structreg.selfinformed.attachment import find_attachment_point
from sklearn_structreg.selfinformed.augmentation import HeadPlan, HeadTraining, augment
from sklearn_structreg.selfinformed.conditional import ConditionalNet
from sklearn_structreg.selfinformed.defaults import resolve_top_k
from sklearn_structreg.selfinformed.heads import AugmentedNet, check_layer_sizes
from sklearn_structreg.selfinformed.holdout import HoldOut, hold_out
from sklearn_structreg.selfinformed.network import (
    Expected,
    check_estimator,
    classes_of,
    fit_estimator,
    network_of,
    unwrap,
)
from sklearn_structreg.selfinformed.partition import ClassPartition
from sklearn_structreg.selfinformed.saving import MultiplyAdds, SavableHeads

__all__ = ["MultiplyAdds", "SelfInformedClassifier"]

SOURCES = ("confusion", "codetection", "random", "random_codetection")
COMMON = tuple(StructuredClassifier().get_params(deep=False))
POSITIVE = Interval(Integral, 1, None, closed="left")


@component
class SelfInformedClassifier(SavableHeads, StructuredClassifier):
    """A network with specialist heads for the classes that it confuses.

    A network is trained; its predictions on held-out samples group the classes that it
    confuses with each other; and each group gets a head, a small stack of ReLU layers
    on the network's features that is connected to the group's outputs alone. The old
    weights are frozen while the heads and a fresh classifier layer are trained.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier whose network got the heads.
    partition_ : ClassPartition or None
        The groups of the last round: `clusters_`, `labels_`, `confusion_`.
    partitions_ : list of ClassPartition
        Those of every round.
    n_clusters_ : int
        The number of groups in the last round.
    top_k_ : int or None
        The number of detections per sample.
    held_out_indices_ : ndarray of shape (n_held_out,)
        The rows that were held out; none if the training samples were scored.
    multiply_adds_ : MultiplyAdds
        Cost of a prediction: ``(base, augmented)``, counted without and with heads.
    history_ : skorch.history.History
        The epochs of the heads; the network's own are in ``estimator_.history_``.
    classes_, n_features_in_, feature_names_in_, input_shape_, net_, module_, n_iter_
        Common to all estimators.

    See Also
    --------
    ConfusionSpectralPartitioner : Groups the classes that any model confuses.

    Notes
    -----
    The common parameters, `regularizers` among them, hold for the heads' training, and
    for the network's where `estimator` is None. Regularizers are attached to the
    network with its heads, anew in every round, and act on the weights that learn.

    A fitted estimator is not changed: its network is copied. While the old weights are
    frozen, the features they give are computed once, not every epoch, where the samples
    are in memory.

    With `warm_start`, `fit` trains the present heads on. There is no `partial_fit`:
    only a trained network shows where heads are needed.

    References
    ----------
    D. Warde-Farley, A. Rabinovich, D. Anguelov, "Self-informed neural network
    structure learning", ICLR workshop, 2015: sections 2, 4 and 6.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.preprocessing import minmax_scale
    >>> from sklearn_structreg import SelfInformedClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = SelfInformedClassifier(
    ...     n_clusters=3, head_layer_sizes=(32,), max_epochs=10, random_state=0
    ... ).fit(minmax_scale(X), y)
    >>> model.score(minmax_scale(X), y) > 0.95
    True
    >>> model.n_clusters_, model.multiply_adds_
    (3, MultiplyAdds(base=7400, augmented=13864))
    """

    estimator: Any = parameter(
        None,
        [HasMethods(["fit", "get_params"]), None],
        "classifier or None",
        """The network to add heads to: a classifier of this package, or a skorch
        `NeuralNetClassifier`. One that is fitted is used as it is, and best with
        samples that it was not trained on; one that is not is cloned and trained. In a
        grid search, which clones its estimators, wrap a fitted one in
        :class:`sklearn.frozen.FrozenEstimator`. None trains a plain network with the
        common parameters.""",
        kw_only=False,
    )
    n_clusters: int | str = parameter(
        "auto",
        [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        'int or "auto"',
        """The number of groups. 0 adds no heads and holds nothing out: this is the
        plain network, bit for bit. "auto" is the paper's 6, or half the classes.""",
    )
    head_layer_sizes: Sequence[int] = parameter(
        (512, 512),
        ["array-like"],
        "sequence of int",
        "Units of each hidden layer of the average head. Empty is a linear head.",
    )
    head_allocation: str = parameter(
        "equal",
        [StrOptions({"equal", "size", "difficulty"})],
        '{"equal", "size", "difficulty"}',
        """The distribution of the units over the heads: equal, in proportion to the
        classes in the group, or to the share of the group's held-out samples that the
        network missed.""",
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
        [POSITIVE, StrOptions({"auto"})],
        'int or "auto"',
        """The number of a sample's best predictions that count as detections; less than
        the number of classes. "auto" is the paper's share of the classes, at least
        2.""",
    )
    holdout_fraction: float = parameter(
        0.2,
        [Interval(Real, 0, 1, closed="left")],
        "float in [0, 1)",
        """Share of each class that neither network nor heads are trained on, but
        scored. With 0 the training samples are scored, which shows fewer confusions. So
        they are where fewer than two held-out samples per class would result.""",
    )
    layer: str = parameter(
        "auto",
        [str],
        "str",
        """The layer whose output the heads read, by its name in ``named_modules()``;
        "auto" is the input of the first fully-connected layer.""",
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
    module: ModuleLike = parameter_of(StructuredClassifier, "module")

    _structure: ClassVar[tuple[str, ...]] = (
        *("estimator", "n_clusters", "head_layer_sizes", "head_allocation", "source"),
        *("top_k", "layer", "n_rounds", "module", "module_params"),
        "hidden_layer_sizes",
    )
    _free_of_result: ClassVar[tuple[str, ...]] = (
        *StructuredClassifier._free_of_result,
        "conditional",
    )
    _needs_rows: ClassVar[bool] = True

    # ---- fitted state ----------------------------------------------------------

    @property
    def partition_(self) -> ClassPartition | None:
        """The groups of the last round; None without heads."""
        return self.partitions_[-1] if self.partitions_ else None

    @property
    def n_clusters_(self) -> int:
        """The number of groups in the last round."""
        return self.partition_.n_clusters_ if self.partition_ else 0

    @property
    def top_k_(self) -> int | None:
        """The number of detections per sample."""
        return self.partition_.top_k_ if self.partition_ else None

    # ---- fitting ---------------------------------------------------------------

    def _fit(self, X: Any, y: Any, sample_weight: Any = None, **more: Any) -> None:
        """Train the network, group its confusions, add heads and train them."""
        if hasattr(self, "net_"):  # a warm start trains the present heads on
            super()._fit(X, y, sample_weight=sample_weight, **more)
            return
        check_layer_sizes(self.head_layer_sizes)
        known = classes_of(self.estimator)
        if known is not None and y is not None and np.isin(y, known).all():
            self.classes_ = known  # y may lack some of them
        data = self._read_data(X, y, sample_weight, min_samples=2, **more)
        self._check_groups(data)
        estimator = self._estimator_to_use()
        recipe, spec = self._make_recipe(), self._make_spec()
        expected = Expected(
            self.n_features_in_, self.classes_, recipe.task, self.layer, spec
        )
        weighted = sample_weight is not None
        check_estimator(
            estimator,
            expected,
            data,
            weighted=weighted,
            resumable=self.checkpoint is not None,
        )

        n_rounds = 0 if self.n_clusters == 0 else self.n_rounds
        seed = self._draw_seed() if n_rounds else 0
        checkpoint = Checkpoint.of_fit(self, data, y, sample_weight, seed)
        seed = checkpoint.seed
        split = HoldOut(data, data, np.empty(0, np.int64))
        if n_rounds and self.holdout_fraction:
            split_seed = derive_seed(seed, 0)
            split = hold_out(data, self.classes_, self.holdout_fraction, split_seed)
        self.held_out_indices_ = split.held_out
        if y is None and isinstance(estimator, StructuredClassifier):
            y = self._labels_of(data)  # else all of the dataset would be read for them
        checkpoint.begin()
        folder = checkpoint.subfolder("network")
        self.estimator_ = fit_estimator(
            estimator, X, y, sample_weight, split, spec, folder
        )

        self.input_shape_ = getattr(self.estimator_, "input_shape_", self.input_shape_)
        spec = self._make_spec()
        sample = data.first_rows(SAMPLE_ROWS, spec)
        network = network_of(self.estimator_).to(spec.device, spec.dtype)
        point = find_attachment_point(network, sample, len(self.classes_), self.layer)
        module = AugmentedNet(network, point)
        self._gate = copy.deepcopy(module.classifier).cpu()
        names = [field.name for field in fields(HeadPlan)]
        plan = HeadPlan(**{name: getattr(self, name) for name in names})
        regularizers = named_regularizers(self.regularizers)
        training = HeadTraining(regularizers, recipe, spec, checkpoint)
        self.partitions_, net = augment(
            module,
            split,
            self.classes_,
            replace(plan, n_rounds=n_rounds),
            training,
            seed,
        )
        if net is None:
            net = make_net(module, RegularizerSequence(), recipe, seed=seed)
        self.net_, self._frozen = net, net.module_.frozen
        costs = [count_multiply_adds(m, sample) for m in (network, self.module_)]
        self.multiply_adds_ = MultiplyAdds(*costs)
        self._note_structure()
        if net.history:
            note_failure(net, split.train, spec)

    @property
    def _has_own_network(self) -> bool:
        """Whether the network to augment is the user's."""
        network = unwrap(self.estimator)
        if network is None:
            return not isinstance(self.module, str)
        return not (
            isinstance(network, StructuredClassifier) and not network._has_own_network
        )

    def _n_epochs_at_most(self) -> None:
        """Return None: rounds, stages and the network's own training have their own."""

    def _attributes_at(self, net: StructuredNet) -> None:
        """Return None: a net that trains on features makes no estimator yet."""

    def _labels_of(self, data: TrainingData) -> NDArray[Any]:
        """Return the labels as they came; any one for rows of weight zero."""
        return data.target if self.multilabel_ else self.classes_[data.target]

    def _standardizes(self) -> bool:
        """Whether the network to augment does."""
        network = unwrap(getattr(self, "estimator_", self.estimator))
        if network is None:
            return super()._standardizes()
        return isinstance(network, StructuredClassifier) and network._standardizes()

    @available_if(lambda self: False)
    def partial_fit(self, *args: Any, **params: Any) -> Self:
        """Absent: only a trained network shows where heads are needed.

        With ``warm_start=True``, `fit` trains the present heads on.
        """
        raise NotImplementedError  # not reached: available_if hides it

    def _estimator_to_use(self) -> Any:
        """Take the given estimator, or make a plain one of the common parameters."""
        if isinstance(unwrap(self.estimator), SelfInformedClassifier):
            raise ValueError(
                "estimator is itself a SelfInformedClassifier; use n_rounds to add "
                "heads more than once."
            )
        if self.estimator is not None:
            return self.estimator
        common = {name: getattr(self, name) for name in COMMON}
        return StructuredClassifier(**common | {"checkpoint": None})

    def _check_groups(self, data: TrainingData) -> None:
        """Check the parameters of the groups before any work is done."""
        n_classes = len(self.classes_)
        if self.n_clusters != "auto" and int(self.n_clusters) > n_classes:
            raise ValueError(
                f"n_clusters={self.n_clusters} groups were asked for, but y has only "
                f"{n_classes} class(es); ask for at most {n_classes}, or 'auto'."
            )
        if self.n_clusters != 0:
            resolve_top_k(self.top_k, n_classes, self.source)

    def _check_simple(self) -> None:
        raise ValueError(
            "in_place=True would leave no heads to train or evaluate on demand; take "
            "the network that compact() returns."
        )

    # ---- predicting ------------------------------------------------------------

    def count_multiply_adds(self, X: ArrayLike | Dataset[Any]) -> float:
        """Count the multiply-adds that predictions for these samples cost.

        Parameters
        ----------
        X : as in `fit`
            Samples; with `conditional`, the cost depends on them.

        Returns
        -------
        float
            Multiply-adds per sample, on average.
        """
        batches = self._batches_to_predict(X, PREDICTION_ROWS)
        module, n_samples = self._predictor().eval(), 0
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            for samples, _, _ in batches.epoch(None):
                module(samples)
                n_samples += len(samples)
        return float(counter.get_total_flops()) / (2 * n_samples)

    def _logits(self, X: Any, module: nn.Module | None = None) -> NDArray[np.float64]:
        return super()._logits(X, self._predictor() if module is None else module)

    def _predictor(self) -> nn.Module:
        """Take the network, or the one that evaluates heads on demand."""
        check_is_fitted(self, "net_")
        if self.conditional is None:
            return self.module_
        self._validate_params()  # it may have been set since fit
        parameter = next(self.module_.parameters())
        gate = copy.deepcopy(self._gate).to(parameter.device, parameter.dtype)
        module = cast(AugmentedNet, self.module_)
        return ConditionalNet(module, gate, self.conditional, self.multilabel_)
