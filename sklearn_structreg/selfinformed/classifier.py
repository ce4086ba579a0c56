"""SelfInformedClassifier: specialist heads where the network itself is confused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from sklearn_structreg.core import StructuredClassifier, count_multiply_adds
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.device import resolve_device
from sklearn_structreg.core.modules import ModuleLike
from sklearn_structreg.core.randomness import derive_seed
from sklearn_structreg.core.regularizer import Regularizer
from sklearn_structreg.core.training import make_net
from sklearn_structreg.core.validation import validate_training_data
from sklearn_structreg.selfinformed.allocation import check_layer_sizes
from sklearn_structreg.selfinformed.attach import find_junction
from sklearn_structreg.selfinformed.augmentation import augment
from sklearn_structreg.selfinformed.auto import resolve_top_k
from sklearn_structreg.selfinformed.base import (
    SAMPLE_ROWS,
    check_base,
    fit_base,
    network_of,
)
from sklearn_structreg.selfinformed.conditional import ConditionalNet
from sklearn_structreg.selfinformed.heads import AugmentedNet
from sklearn_structreg.selfinformed.holdout import (
    HoldOut,
    check_labels_occur,
    hold_out,
)
from sklearn_structreg.selfinformed.partition import ClassPartition

__all__ = ["MultiplyAdds", "SelfInformedClassifier"]

SOURCES = ("confusion", "codetection", "random", "random_codetection")
PREDICTION_ROWS = 1024  # per forward pass
COMMON = tuple(StructuredClassifier().get_params(deep=False))


class MultiplyAdds(NamedTuple):
    """Multiply-adds that one sample costs, before and after heads were added."""

    base: int
    augmented: int


class SelfInformedClassifier(StructuredClassifier):
    """A network with specialist heads for the classes that it confuses.

    A base network is trained; its predictions on held-out samples group the classes
    that it confuses with each other; and each group gets a head, a small stack of
    ReLU layers on the network's features that is connected to the group's outputs
    alone. The old weights are frozen while the heads and a fresh classifier layer
    are trained.

    Parameters
    ----------
    base : classifier or None, default=None
        The network to augment: a classifier with a torch module in `module_` once it
        is fitted, such as any of this package or a skorch `NeuralNetClassifier`. One
        that is fitted is used as it is; one that is not is cloned and trained. In a
        grid search, which clones its estimators, wrap a fitted one in
        :class:`sklearn.frozen.FrozenEstimator`. None trains a plain network with the
        common parameters below.
    n_clusters : int or "auto", default="auto"
        The number of groups. 0 adds no heads and holds nothing out: this is the base
        alone, bit for bit. "auto" is the paper's 6, or as many as half the classes.
    head_layer_sizes : sequence of int, default=(512, 512)
        Units of each hidden layer of the average head. Empty is a linear head.
    head_allocation : {"equal", "size", "difficulty"}, default="equal"
        How the heads' units are shared out: alike, in proportion to the classes in
        the group, or to the share of the group's held-out samples that the network
        missed.
    source : {"confusion", "codetection", "random", "random_codetection"}, \
            default="confusion"
        What the groups are made of: classes predicted where another is true (Eq. 3),
        or classes predicted together (Eq. 4). "random" and "random_codetection" are
        the controls: as many and as large groups, with classes drawn by lot.
    top_k : int or "auto", default="auto"
        How many of a sample's best predictions count as detections; less than the
        number of classes. "auto" is the paper's share of the classes, at least 2.
    holdout_fraction : float in [0, 1), default=0.2
        Share of each class that neither base nor heads are trained on, but scored.
        With 0 the training samples are scored, which sees fewer confusions. So they
        are where fewer than two held-out samples per class would come out.
    attach : str, default="auto"
        What the heads read: the output of the base network's layer of this name, as
        in ``named_modules()``; "auto" is the input of the first fully-connected layer.
    fine_tune : bool, default=False
        Whether to train all weights for another `max_epochs` in the end.
    n_rounds : int, default=1
        How often to score, group and add heads; each round scores the last one's
        network.
    conditional : int or None, default=None
        In predictions, evaluate only the heads whose group holds one of so many best
        classes by the base network; the other classes keep what the base gives them.
        None evaluates all heads. May be changed after `fit`.
    module, module_params, hidden_layer_sizes, image_shape
    max_epochs, batch_size, optimizer, learning_rate, momentum, weight_decay
    lr_schedule, class_weight, early_stopping, validation_fraction
    n_iter_no_change, callbacks, device, dtype, warm_start, random_state, verbose
        Common to all estimators: see
        :class:`~sklearn_structreg.core.StructuredClassifier`. They hold for the heads'
        training, and for the base's where `base` is None. With `warm_start`, `fit`
        trains the present heads on. There is no `partial_fit`: only a trained network
        can say where heads are needed.

    Attributes
    ----------
    base_ : classifier
        The fitted base.
    partition_ : ClassPartition or None
        The groups of the last round: `clusters_`, `labels_`, `confusion_`.
    partitions_ : list of ClassPartition
        Those of every round.
    n_clusters_ : int
        The number of groups in the last round.
    top_k_ : int or None
        K of the detections.
    held_out_indices_ : ndarray of shape (n_held_out,)
        Which rows were held out; none if the training samples were scored.
    multiply_adds_ : MultiplyAdds
        What a prediction costs: ``(base, augmented)``, counted.
    history_ : skorch.history.History
        The epochs of the heads; those of the base are in ``base_.history_``.
    classes_, n_features_in_, feature_names_in_, input_shape_, net_, module_, n_iter_
        Common to all estimators.

    See Also
    --------
    ConfusionSpectralPartitioner : Groups the classes that any model confuses.

    Notes
    -----
    Nothing is written to a base that was fitted before: the network is copied. While
    the old weights are frozen, their results are computed once, not every epoch, where
    the samples are in memory.

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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **StructuredClassifier._parameter_constraints,
        "base": [HasMethods(["fit", "get_params"]), None],
        "n_clusters": [
            Interval(Integral, 0, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "head_layer_sizes": ["array-like"],
        "head_allocation": [StrOptions({"equal", "size", "difficulty"})],
        "source": [StrOptions(set(SOURCES))],
        "top_k": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "holdout_fraction": [Interval(Real, 0, 1, closed="left")],
        "attach": [str],
        "fine_tune": ["boolean"],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
        "conditional": [Interval(Integral, 1, None, closed="left"), None],
    }

    base_: Any
    partitions_: list[ClassPartition]
    held_out_indices_: NDArray[np.int64]
    multiply_adds_: MultiplyAdds
    _gate: nn.Linear

    def __init__(
        self,
        base: Any = None,
        *,
        n_clusters: int | str = "auto",
        head_layer_sizes: Sequence[int] = (512, 512),
        head_allocation: str = "equal",
        source: str = "confusion",
        top_k: int | str = "auto",
        holdout_fraction: float = 0.2,
        attach: str = "auto",
        fine_tune: bool = False,
        n_rounds: int = 1,
        conditional: int | None = None,
        module: ModuleLike = "auto",
        module_params: Mapping[str, Any] | None = None,
        hidden_layer_sizes: Sequence[int] = (100,),
        image_shape: Sequence[int] | None = None,
        max_epochs: int = 100,
        batch_size: int | None = 128,
        optimizer: str | type[torch.optim.Optimizer] = "sgd",
        learning_rate: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        lr_schedule: str | Callable[..., Any] | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        callbacks: list[Any] | None = None,
        device: str | torch.device = "auto",
        dtype: str = "float32",
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            module,
            module_params=module_params,
            hidden_layer_sizes=hidden_layer_sizes,
            image_shape=image_shape,
            max_epochs=max_epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            lr_schedule=lr_schedule,
            class_weight=class_weight,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            callbacks=callbacks,
            device=device,
            dtype=dtype,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
        )
        self.base = base
        self.n_clusters = n_clusters
        self.head_layer_sizes = head_layer_sizes
        self.head_allocation = head_allocation
        self.source = source
        self.top_k = top_k
        self.holdout_fraction = holdout_fraction
        self.attach = attach
        self.fine_tune = fine_tune
        self.n_rounds = n_rounds
        self.conditional = conditional

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
        """K of the detections."""
        return self.partition_.top_k_ if self.partition_ else None

    # ---- fitting ---------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike | Dataset[Any],
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train the base, group its confusions, add heads and train them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), \
                or torch Dataset
            Samples. If `base` is fitted, samples that it was not trained on tell more
            about its confusions.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels of any type, or an indicator of several labels per sample (zeros
            and ones, dense or sparse). May be None only for a `Dataset` that holds
            them.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative; zero means absent, in what is scored and counted too.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            As for all estimators; and if the base is frozen and not fitted or was
            fitted for other classes, if a class is missing in the held-out part or a
            label is true for no sample, if there are fewer classes than groups asked
            for, or no layer `attach`.
        """
        if self.warm_start and hasattr(self, "net_"):
            super().fit(X, y, sample_weight)
            return self
        device = resolve_device(self.device)
        check_layer_sizes(self.head_layer_sizes)
        self.__dict__.pop("net_", None)  # its classes and features are gone
        data = validate_training_data(
            self, X, y, sample_weight, reset=True, min_samples=2, classes=None
        )
        self._check_groups(data)
        base = self.base
        if base is None:
            base = StructuredClassifier(**{n: getattr(self, n) for n in COMMON})
        placement = self._placement(device)
        weighted = sample_weight is not None
        check_base(base, self, data, weighted=weighted, placement=placement)

        n_rounds = 0 if self.n_clusters == 0 else self.n_rounds
        seed = self._draw_seed() if n_rounds else 0
        split = HoldOut(data, data, np.empty(0, np.int64))
        if n_rounds and self.holdout_fraction:
            split_seed = derive_seed(seed, 0)
            split = hold_out(data, self.classes_, self.holdout_fraction, split_seed)
        self.held_out_indices_ = split.held_out
        rows = split.train.rows if split.held_out.size else None
        self.base_ = fit_base(base, X, y, sample_weight, rows)

        self.input_shape_ = getattr(self.base_, "input_shape_", self.input_shape_)
        placement["input_shape"] = self.input_shape_
        sample = data.head(SAMPLE_ROWS, **placement)
        network = network_of(self.base_, self).to(sample.device, sample.dtype)
        junction = find_junction(network, sample, len(self.classes_), self.attach)
        module = AugmentedNet(network, junction)
        self._gate = copy.deepcopy(module.classifier).cpu()
        self.partitions_, net = augment(
            self, module, split, n_rounds=n_rounds, seed=seed, placement=placement
        )
        self.multiply_adds_ = MultiplyAdds(
            count_multiply_adds(network, sample), count_multiply_adds(module, sample)
        )
        self.net_ = net or make_net(self, module, Regularizer(), seed=seed, n_batches=0)
        return self

    @available_if(lambda self: False)
    def partial_fit(self, *args: Any, **params: Any) -> Self:
        """Absent: only a trained network can say where heads are needed.

        With ``warm_start=True``, `fit` trains the present heads on.
        """
        raise NotImplementedError  # not reached: available_if hides it

    def _check_groups(self, data: TrainingData) -> None:
        """Check what can be said about the groups before any work is done."""
        n_classes = len(self.classes_)
        if self.n_clusters != "auto" and int(self.n_clusters) > n_classes:
            raise ValueError(
                f"n_clusters={self.n_clusters} groups were asked for, but y has only "
                f"{n_classes} class(es); ask for at most {n_classes}, or 'auto'."
            )
        if self.n_clusters != 0:
            resolve_top_k(self.top_k, n_classes, self.source)
            check_labels_occur(data, self.classes_)

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
        """Return what predicts: the network, or the one that asks for its heads."""
        check_is_fitted(self, "net_")
        if self.conditional is None:
            return self.module_
        self._validate_params()  # it may have been set since fit
        parameter = next(self.module_.parameters())
        gate = copy.deepcopy(self._gate).to(parameter.device, parameter.dtype)
        module = cast(AugmentedNet, self.module_)
        return ConditionalNet(module, gate, self.conditional, self.multilabel_)
