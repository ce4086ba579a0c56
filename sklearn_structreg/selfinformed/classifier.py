"""SelfInformedClassifier: specialist heads where the network itself is confused."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from sklearn.utils.metaestimators import available_if
from torch import Tensor, nn

from sklearn_structreg.compaction.compact import simplified_copy
from sklearn_structreg.core import StructuredClassifier, count_multiply_adds
from sklearn_structreg.core.checkpoint import Checkpoint
from sklearn_structreg.core.convergence import note_failure, noted
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.modules import ModuleLike
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.parameters import component, parameter_of
from sklearn_structreg.core.randomness import derive_seed
from sklearn_structreg.core.recipe import Recipe
from sklearn_structreg.core.sequence import RegularizerSequence, named_regularizers
from sklearn_structreg.core.training import SAMPLE_ROWS, make_net
from sklearn_structreg.selfinformed.attachment import check_layers
from sklearn_structreg.selfinformed.augmentation import (
    Groups,
    HeadPlan,
    HeadTraining,
    Learner,
    augment,
)
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
from sklearn_structreg.selfinformed.places import find_attachment_point
from sklearn_structreg.selfinformed.predicting import PredictingHeads
from sklearn_structreg.selfinformed.saving import MultiplyAdds, SavableHeads

__all__ = ["MultiplyAdds", "SelfInformedClassifier"]

COMMON = tuple(StructuredClassifier().get_params(deep=False))


@component
class SelfInformedClassifier(
    SelfInformedParameters, PredictingHeads, SavableHeads, StructuredClassifier
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
    (3, MultiplyAdds(base=7400, augmented=17327))
    """

    module: ModuleLike = parameter_of(StructuredClassifier, "module")

    _needs_rows: ClassVar[bool] = True
    _composes_networks: ClassVar[bool] = True
    _structure: ClassVar[tuple[str, ...]] = (
        *("estimator", "n_clusters", "head_layer_sizes", "head_allocation", "source"),
        *("top_k", "layer", "n_rounds", "module", "module_params", "budget"),
        *("hidden_layer_sizes", "head_kernel_size", "n_members"),
    )
    _of_one_network: ClassVar[tuple[str, ...]] = (
        *("estimator_", "partitions_", "n_folds_", "head_layer_sizes_"),
        *("multiply_adds_", "_point", "_gate", "_frozen"),
    )
    _free_of_result: ClassVar[tuple[str, ...]] = (
        *StructuredClassifier._free_of_result,
        "conditional",
    )

    # ---- fitted state ----------------------------------------------------------

    @property
    def partition_(self) -> ClassPartition | None:
        """The groups of the last round; None without heads."""
        assert self._one_module is not None  # of several there is none
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

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        heads: Groups | None = None,
        **more: Any,
    ) -> None:
        """Train the network, group its confusions, add heads and train them."""
        if hasattr(self, "net_"):  # a warm start trains the present heads on
            super()._fit(X, y, sample_weight=sample_weight, **more)
            return
        check_layer_sizes(self.head_layer_sizes)
        layer = check_layers(self.layer, self.n_rounds)
        known = classes_of(self.estimator)
        if known is not None and y is not None and np.isin(y, known).all():
            self.classes_ = known  # y may lack some of them
        data = self._read_data(X, y, sample_weight, min_samples=2, **more)
        self._check_groups(data)
        estimator = self._estimator_to_use()
        recipe, spec = self._make_recipe(), self._make_spec()
        expected = Expected(
            *(self.n_features_in_, self.classes_, recipe.task),
            *(layer, self.head_kernel_size, spec),
        )
        weighted = sample_weight is not None
        check_estimator(
            estimator,
            expected,
            data,
            weighted=weighted,
            resumable=self.checkpoint is not None,
        )

        seed = self._draw_seed() if self.n_clusters != 0 else 0
        checkpoint = Checkpoint.of_fit(self, data, y, sample_weight, seed)
        seed = checkpoint.seed
        if y is None and isinstance(estimator, StructuredClassifier):
            y = self._labels_of(data)  # else all of the dataset would be read for them
        folds = self._make_folds(data, seed) if heads is None else []
        checkpoint.begin()
        given = estimator, X, y, sample_weight
        folder = checkpoint.subfolder("network")
        self.estimator_ = fit_estimator(*given, data, spec, folder)
        self.input_shape_ = getattr(self.estimator_, "input_shape_", self.input_shape_)
        main = self._learner(self.estimator_, Fold(data, data.held_out or data))
        n_base = count_multiply_adds(main.module, self._sample_of(data))
        self._point = main.module.point
        self._gate = copy.deepcopy(main.module.classifier).cpu()

        learners = []
        for number, fold in enumerate(folds, 1):
            name = f"fold-{number}-"
            folder = checkpoint.subfolder(f"{name}network")
            with noted():  # and forget: these networks are not kept
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
            main, learners, self.classes_, plan, training, seed, heads
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

    def _make_recipe(self) -> Recipe:
        """Gather the parameters of the training of heads: groups name other weights."""
        recipe = super()._make_recipe()
        settings = {**recipe.optimizer_settings}
        settings.pop("param_groups", None)
        return replace(recipe, optimizer_settings=settings)

    def _make_folds(self, data: TrainingData, seed: int) -> list[Fold]:
        """Divide the rows, where networks are to be trained without some of them."""
        without = data.held_out is not None or is_fitted(self.estimator)
        if self.cv is None or self.n_clusters == 0 or without:
            return []
        if not isinstance(self.cv, Integral):
            return take_folds(data, self.cv)
        if data.groups is not None:
            return take_folds(data, GroupKFold(int(self.cv)))
        return make_folds(data, len(self.classes_), int(self.cv), derive_seed(seed, 0))

    def _sample_of(self, data: TrainingData) -> Tensor:
        """Return some samples as the network sees them."""
        return data.first_rows(SAMPLE_ROWS, self._make_spec())

    def _learner(self, fitted: Any, fold: Fold, name: str = "") -> Learner:
        """Take the network of a fitted estimator, to add heads to."""
        spec, sample = self._make_spec(), self._sample_of(fold.train)
        network = network_of(fitted).to(spec.device, spec.dtype)
        how = check_layers(self.layer, self.n_rounds), self.head_kernel_size
        point = find_attachment_point(network, sample, len(self.classes_), *how)
        module = AugmentedNet(network, point)
        return Learner(module, *fold, name, self.fresh_classifier, how[1])

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

    def _untrained_network(self) -> nn.Module:
        """Take the network without heads."""
        if self._is_ensemble:
            return super()._untrained_network()
        return simplified_copy(network_of(self.estimator_))

    def _check_one_network(self) -> None:
        if self.conditional is not None:
            raise ValueError(
                f"conditional={self.conditional} evaluates heads on demand, which a "
                "compacted network cannot do; set conditional=None."
            )

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
