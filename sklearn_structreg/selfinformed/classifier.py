"""SelfInformedClassifier: specialist heads where the network itself is confused."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from numbers import Integral
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from sklearn_structreg.core import StructuredClassifier, count_multiply_adds
from sklearn_structreg.core.checkpoint import Checkpoint
from sklearn_structreg.core.convergence import note_failure, without_warning
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.messages import explaining, shown
from sklearn_structreg.core.modules import ModuleLike
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.parameters import component, parameter_of
from sklearn_structreg.core.randomness import derive_seed
from sklearn_structreg.core.sequence import RegularizerSequence, named_regularizers
from sklearn_structreg.core.training import PREDICTION_ROWS, SAMPLE_ROWS, make_net
from sklearn_structreg.selfinformed.attachment import find_attachment_point
from sklearn_structreg.selfinformed.augmentation import (
    HeadPlan,
    HeadTraining,
    Learner,
    augment,
)
from sklearn_structreg.selfinformed.conditional import ConditionalNet
from sklearn_structreg.selfinformed.defaults import resolve_top_k
from sklearn_structreg.selfinformed.folds import Fold, make_folds, take_folds
from sklearn_structreg.selfinformed.heads import AugmentedNet, check_layer_sizes
from sklearn_structreg.selfinformed.network import (
    Expected,
    check_estimator,
    classes_of,
    fit_estimator,
    is_fitted,
    network_of,
    unwrap,
)
from sklearn_structreg.selfinformed.parameters import SelfInformedParameters
from sklearn_structreg.selfinformed.partition import ClassPartition
from sklearn_structreg.selfinformed.saving import MultiplyAdds, SavableHeads

__all__ = ["MultiplyAdds", "SelfInformedClassifier"]

COMMON = tuple(StructuredClassifier().get_params(deep=False))


@component
class SelfInformedClassifier(
    SelfInformedParameters, SavableHeads, StructuredClassifier
):
    """A network with specialist heads for the classes that it confuses.

    A network is trained on all samples; predictions of networks that were trained on
    parts of them group the classes that are confused with each other; and each group
    gets a head, a small stack of ReLU layers on the network's features that is
    connected to the group's outputs alone. The old weights are frozen while the heads
    and the classifier layer are trained, on all samples too.

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
    n_folds_ : int
        The number of networks that scored samples they had not seen; 0 if the network
        itself did, the samples of the training or an `eval_set`.
    head_layer_sizes_ : list of list of tuple of int
        The units of the hidden layers of each head, for every round.
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

    module: ModuleLike = parameter_of(StructuredClassifier, "module")

    _structure: ClassVar[tuple[str, ...]] = (
        *("estimator", "n_clusters", "head_layer_sizes", "head_allocation", "source"),
        *("top_k", "layer", "n_rounds", "module", "module_params", "budget"),
        "hidden_layer_sizes",
    )
    _free_of_result: ClassVar[tuple[str, ...]] = (
        *StructuredClassifier._free_of_result,
        "conditional",
    )

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

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike | Dataset[Any],
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        eval_set: tuple[Any, Any] | None = None,
    ) -> Self:
        """Train the network and its heads.

        Parameters
        ----------
        X, y, sample_weight
            As in `StructuredClassifier.fit`.
        eval_set : tuple of (X, y) or None, default=None
            Samples to count confusions on, which nothing is trained on, in place of
            the folds of `cv`.

        Returns
        -------
        self : object
            The fitted estimator. A fit that fails leaves it as it was.

        Raises
        ------
        ValueError
            For data, targets or parameters that cannot work together, and if the loss
            becomes non-finite.
        """
        self._fit_copy(X, y, sample_weight, eval_set=eval_set)
        return self

    def _fit(self, X: Any, y: Any, sample_weight: Any, eval_set: Any = None) -> None:
        """Train the network, group its confusions, add heads and train them."""
        if hasattr(self, "net_"):  # a warm start trains the present heads on
            super()._fit(X, y, sample_weight)
            return
        check_layer_sizes(self.head_layer_sizes)
        known = classes_of(self.estimator)
        if known is not None and y is not None and np.isin(y, known).all():
            self.classes_ = known  # y may lack some of them
        data = self._read_data(X, y, sample_weight, min_samples=2)
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

        scored = data if eval_set is None else self._read_eval_set(eval_set)
        seed = self._draw_seed() if self.n_clusters != 0 else 0
        checkpoint = Checkpoint.of_fit(
            self, data, y, sample_weight, seed, eval_set=eval_set
        )
        seed = checkpoint.seed
        if y is None and isinstance(estimator, StructuredClassifier):
            y = self._labels_of(data)  # else all of the dataset would be read for them
        folds = self._make_folds(data, seed) if eval_set is None else []
        checkpoint.begin()
        given = estimator, X, y, sample_weight
        folder = checkpoint.subfolder("network")
        self.estimator_ = fit_estimator(*given, data, spec, folder)
        self.input_shape_ = getattr(self.estimator_, "input_shape_", self.input_shape_)
        main = self._learner(self.estimator_, Fold(data, scored))
        n_base = count_multiply_adds(main.module, self._sample_of(data))
        self._point = main.module.point
        self._gate = copy.deepcopy(main.module.classifier).cpu()

        learners = []
        for number, fold in enumerate(folds, 1):
            name = f"fold-{number}-"
            folder = checkpoint.subfolder(f"{name}network")
            with without_warning():
                fitted = fit_estimator(*given, fold.train, spec, folder, whole=False)
            learners.append(self._learner(fitted, fold, name))
        self.n_folds_ = len(learners)

        names = [each.name for each in fields(HeadPlan) if each.name != "n_base"]
        plan = HeadPlan(n_base, **{name: getattr(self, name) for name in names})
        if self.n_clusters == 0:
            plan = replace(plan, n_rounds=0)
        regularizers = named_regularizers(self.regularizers)
        training = HeadTraining(regularizers, recipe, self._make_spec(), checkpoint)
        self.partitions_, self.head_layer_sizes_ = augment(
            main, learners, self.classes_, plan, training, seed
        )
        net = main.net
        if net is None:
            net = make_net(main.module, RegularizerSequence(), recipe, seed=seed)
        self.net_, self._frozen = net, net.module_.frozen
        augmented = count_multiply_adds(self.module_, self._sample_of(data))
        self.multiply_adds_ = MultiplyAdds(n_base, augmented)
        self._note_structure()
        if net.history:
            note_failure(net, data, self._make_spec())

    def _read_eval_set(self, eval_set: Any) -> TrainingData:
        """Check samples to score as those of the training were checked."""
        if not isinstance(eval_set, tuple | list) or len(eval_set) != 2:
            raise ValueError(
                f"eval_set={shown(eval_set)} must be a pair of samples and labels, as "
                "in eval_set=(X_valid, y_valid)."
            )
        reader = copy.copy(self)
        reader.__dict__["net_"] = None  # the features and classes are known
        X, y = eval_set
        with explaining("eval_set cannot be used: {}."):
            return reader._read_data(X, y, None, min_samples=1)

    def _make_folds(self, data: TrainingData, seed: int) -> list[Fold]:
        """Divide the rows, where networks are to be trained without some of them."""
        if self.cv is None or self.n_clusters == 0 or is_fitted(self.estimator):
            return []
        if not isinstance(self.cv, Integral):
            return take_folds(data, self.cv)
        return make_folds(data, len(self.classes_), int(self.cv), derive_seed(seed, 0))

    def _sample_of(self, data: TrainingData) -> Tensor:
        """Return some samples as the network sees them."""
        return data.first_rows(SAMPLE_ROWS, self._make_spec())

    def _learner(self, fitted: Any, fold: Fold, name: str = "") -> Learner:
        """Take the network of a fitted estimator, to add heads to."""
        spec, sample = self._make_spec(), self._sample_of(fold.train)
        network = network_of(fitted).to(spec.device, spec.dtype)
        point = find_attachment_point(network, sample, len(self.classes_), self.layer)
        return Learner(AugmentedNet(network, point), *fold, name, self.fresh_classifier)

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
