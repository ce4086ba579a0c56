"""The scikit-learn contract: validate, encode, weigh, fit, predict."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted
from skorch.history import History
from torch import nn
from torch.utils.data import Dataset

from sklearn_structreg.core.batches import Batches
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.device import resolve_device, resolve_dtype
from sklearn_structreg.core.modules import ModuleLike
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.regularizer import Regularizer
from sklearn_structreg.core.training import (
    OPTIMIZERS,
    attach,
    build_network,
    make_net,
    predict_logits,
)
from sklearn_structreg.core.validation import (
    check_partial_fit,
    check_samples,
    validate_training_data,
)

__all__ = ["StructuredClassifier"]

PREDICTION_ROWS = 1024  # per forward pass: keeps the activations of images small
SAMPLE_ROWS = 2  # shown to the module before it is trained


class StructuredClassifier(ClassifierMixin, BaseEstimator):
    """A neural network as a scikit-learn classifier; methods give it structure.

    On its own this is the plain, unregularized net. Each method is a subclass that
    supplies a `Regularizer` and some parameters; everything else is shared.

    Parameters
    ----------
    module : "auto", torch.nn.Module class, instance or factory, default="auto"
        "auto" builds a multilayer perceptron for flat rows and a small convolutional
        net for images. An instance is copied together with its weights. A factory is
        called as ``factory(input_shape, n_outputs)``; a class gets those two where
        its signature names them. The outputs are logits, one per class.
    module_params : dict or None, default=None
        Further keyword arguments for a module class or factory.
    hidden_layer_sizes : sequence of int, default=(100,)
        Hidden fully-connected layers of the "auto" networks.
    image_shape : tuple of int or None, default=None
        ``(C, H, W)`` of images that come as flattened rows. Images that come as
        ``(n_samples, C, H, W)`` need none. ``(C, L)`` and ``(C, D, H, W)`` work too.
    max_epochs : int, default=100
        Passes over the training data.
    batch_size : int or None, default=128
        Rows per optimizer step; None or -1 takes all rows at once.
    optimizer : {"sgd", "adam", "adamw"} or torch optimizer class, default="sgd"
        Plain SGD with momentum is what proximal steps are made for.
    learning_rate : float, default=0.05
        Step size of the optimizer.
    momentum : float in [0, 1), default=0.9
        For optimizers that have it.
    weight_decay : float, default=0.0
        L2 decay of all parameters, for optimizers that have it.
    lr_schedule : None, "cosine" or callable, default=None
        "cosine" decays the rate to zero over `max_epochs`. A callable gets
        ``(optimizer, max_epochs)`` and returns a torch scheduler, stepped every epoch.
    class_weight : dict, "balanced" or None, default=None
        Factors on the sample weights per class label.
    early_stopping : bool, default=False
        Hold out `validation_fraction` of the samples and stop when their loss has not
        improved for `n_iter_no_change` epochs; the best epoch's weights come back.
    validation_fraction : float in (0, 1), default=0.1
        Only with early stopping. Stratified where every class has enough samples.
    n_iter_no_change : int, default=10
        Only with early stopping.
    callbacks : list of skorch callbacks or None, default=None
        Instances, classes or ``(name, callback)`` pairs.
    device : str or torch.device, default="auto"
        "auto" takes a CUDA device where there is one. Resolved in `fit`.
    dtype : {"float32", "float64"}, default="float32"
        Precision of weights and computation.
    warm_start : bool, default=False
        Whether `fit` goes on from the weights of the last fit, with a new optimizer.
    random_state : int, RandomState instance or None, default=None
        Seeds the initial weights, the order of the rows, dropout and the hold-out.
    verbose : {0, 1, 2}, default=0
        1 prints a table of epochs, 2 adds a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in sorted order. A class whose samples all have weight zero is absent.
    multilabel_ : bool
        Whether y was an indicator of several labels; `classes_` then counts them.
    n_features_in_ : int
        Features per sample, images flattened.
    feature_names_in_ : ndarray of shape (n_features,)
        Only where X had string column names.
    input_shape_ : tuple of int
        Shape of one sample as the module sees it.
    net_ : StructuredNet
        The private skorch net.
    module_ : torch.nn.Module
        The trained module.
    history_ : skorch.history.History
        One row per epoch: losses, durations, and what the method records.
    n_iter_ : int
        Epochs trained.

    Notes
    -----
    Sample weights are scaled to mean one. Weight zero means absent, in every
    configuration. Weight k equals k copies to the last bit where all rows fit in one
    batch, and in expectation over the order of the rows where they do not.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.preprocessing import minmax_scale
    >>> from sklearn_structreg.core import StructuredClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = StructuredClassifier(max_epochs=10, random_state=0)
    >>> net.fit(minmax_scale(X), y).score(minmax_scale(X), y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "module": [StrOptions({"auto"}), nn.Module, callable],
        "module_params": [dict, None],
        "hidden_layer_sizes": ["array-like"],
        "image_shape": ["array-like", None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [
            Interval(Integral, 1, None, closed="left"),
            Options(Integral, {-1}),
            None,
        ],
        "optimizer": [StrOptions(set(OPTIMIZERS)), callable],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "lr_schedule": [StrOptions({"cosine"}), callable, None],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "callbacks": [list, None],
        "device": [str, torch.device],
        "dtype": [StrOptions({"float32", "float64"})],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    net_: StructuredNet
    classes_: NDArray[Any]
    multilabel_: bool
    input_shape_: tuple[int, ...]
    n_features_in_: int

    def __init__(
        self,
        module: ModuleLike = "auto",
        *,
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
        self.module = module
        self.module_params = module_params
        self.hidden_layer_sizes = hidden_layer_sizes
        self.image_shape = image_shape
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.callbacks = callbacks
        self.device = device
        self.dtype = dtype
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    # ---- what a method supplies ------------------------------------------------

    def _make_regularizer(self) -> Regularizer:
        """Return the method's regularizer, made of the estimator's parameters."""
        return Regularizer()

    # ---- fitted state that follows from the net --------------------------------

    @property
    def module_(self) -> nn.Module:
        """The trained module."""
        module: nn.Module = self.net_.module_
        return module

    @property
    def history_(self) -> History:
        """One row per epoch."""
        return self.net_.history

    @property
    def n_iter_(self) -> int:
        """Epochs trained."""
        return len(self.net_.history)

    # ---- fitting ---------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike | Dataset[Any],
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), \
                or torch Dataset
            Samples. A map-style `Dataset` of ``(x, label)`` is for data beyond memory.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels of any type, or an indicator of several labels per sample (zeros
            and ones, dense or sparse), which trains logistic units. May be None only
            for a `Dataset` that holds them.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative; zero means absent.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            For data, labels or parameters that cannot work together, and if the loss
            becomes non-finite.
        """
        device = resolve_device(self.device)
        resume = self.warm_start and hasattr(self, "net_")
        data = validate_training_data(
            self,
            X,
            y,
            sample_weight,
            reset=not resume,
            min_samples=2,
            classes=self.classes_ if resume else None,
        )
        if resume:
            seed, module = self.net_.seed, copy.deepcopy(self.module_)
        else:
            seed, module = self._draw_seed(), None
            self.__dict__.pop("net_", None)  # its classes and features are gone
        valid = None
        if self.early_stopping:
            data, held_out = data.split(self.validation_fraction, seed)
            valid = self._batches(held_out, device, normalize=True)
        train = self._batches(data, device, normalize=True)
        net = self._make_net(data, device, seed, module, train, valid)
        if resume:
            net.history.extend(copy.deepcopy(self.history_))
        self.net_ = net.train(train, valid)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ArrayLike | Dataset[Any],
        y: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch on these samples, from the present weights.

        The optimizer keeps its state from call to call; the learning rate is constant.

        Parameters
        ----------
        X, y : as in `fit`
            A single sample will do.
        classes : array-like of shape (n_classes,) or None, default=None
            All labels that will ever come. Required in the first call.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative; used as they are, so that they compare across calls.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            As in `fit`, and for labels that are none of the classes.
        """
        device = resolve_device(self.device)
        first = not hasattr(self, "net_")
        labels = check_partial_fit(self, classes)
        data = validate_training_data(
            self, X, y, sample_weight, reset=first, min_samples=1, classes=labels
        )
        batches = self._batches(data, device, normalize=False)
        if first:
            net = self._make_net(data, device, self._draw_seed(), None, batches)
        else:
            net = self.net_
            net.to(device, resolve_dtype(self.dtype))
        net.drop_schedule()
        self.net_ = net.train(batches, epochs=1)
        return self

    def _draw_seed(self) -> int:
        random_state = check_random_state(self.random_state)
        return int(random_state.randint(np.iinfo(np.int32).max))

    def _batches(
        self, data: TrainingData, device: torch.device, *, normalize: bool
    ) -> Batches:
        size = self.batch_size
        return data.batches(
            batch_size=data.n_rows if size is None or size == -1 else size,
            normalize=normalize,
            **self._placement(device),
        )

    def _placement(self, device: torch.device) -> dict[str, Any]:
        dtype = resolve_dtype(self.dtype)
        return {"input_shape": self.input_shape_, "dtype": dtype, "device": device}

    def _make_net(
        self,
        data: TrainingData,
        device: torch.device,
        seed: int,
        module: nn.Module | None,
        train: Batches,
        valid: Batches | None = None,
    ) -> StructuredNet:
        """Build or take up a module, attach the regularizer, put a net around."""
        sample = data.head(SAMPLE_ROWS, **self._placement(device))
        if module is None:
            module = build_network(self, len(self.classes_), sample, seed)
        regularizer = self._make_regularizer()
        return make_net(
            self,
            attach(regularizer, module.to(sample.device, sample.dtype), sample, seed),
            regularizer,
            seed=seed,
            n_batches=train.n_batches + (valid.n_batches if valid else 0),
        )

    # ---- predicting ------------------------------------------------------------

    def predict(self, X: ArrayLike | Dataset[Any]) -> NDArray[Any]:
        """Return the most probable label of every sample.

        Parameters
        ----------
        X : as in `fit`
            Samples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels; for several per sample, an indicator of the probable ones.
        """
        return self._decide(self._logits(X))

    def predict_proba(self, X: ArrayLike | Dataset[Any]) -> NDArray[np.float64]:
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : as in `fit`
            Samples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            Columns in the order of `classes_`; rows sum to one, unless a sample may
            have several labels: then each label has a probability of its own.
        """
        logits = self._logits(X)
        probabilities: NDArray[np.float64] = (
            expit(logits) if self.multilabel_ else softmax(logits, axis=1)
        )
        return probabilities

    def decision_function(self, X: ArrayLike | Dataset[Any]) -> NDArray[np.float64]:
        """Return the logits.

        Parameters
        ----------
        X : as in `fit`
            Samples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes), float64
            With two classes the log-odds of the second.
        """
        logits = self._logits(X)
        if logits.shape[1] == 2 and not self.multilabel_:
            return logits[:, 1] - logits[:, 0]
        return logits

    def _decide(self, logits: NDArray[np.float64]) -> NDArray[Any]:
        """Return the labels, or the indicator of them, that logits stand for."""
        if self.multilabel_:
            return (logits > 0).astype(np.int64)
        labels: NDArray[Any] = self.classes_[logits.argmax(axis=1)]
        return labels

    def _logits(self, X: Any, module: nn.Module | None = None) -> NDArray[np.float64]:
        """Return what the trained module, or one made of it, gives for every row."""
        batches = self._batches_to_predict(X, PREDICTION_ROWS)
        module = self.module_ if module is None else module
        return predict_logits(module, batches).numpy()

    def _batches_to_predict(self, X: Any, batch_size: int) -> Batches:
        """Check samples against the fitted net and put them on its device."""
        check_is_fitted(self, "net_")
        parameter = next(self.module_.parameters())
        dtype = str(parameter.dtype).removeprefix("torch.")
        samples, _ = check_samples(self, X, dtype=dtype, reset=False)
        data = TrainingData.of(samples, np.zeros(len(samples), np.int64), None)
        return data.batches(
            batch_size=batch_size,
            normalize=False,
            input_shape=self.input_shape_,
            dtype=parameter.dtype,
            device=parameter.device,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
