"""The scikit-learn contract, whatever the targets: parameters, fit, compaction."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, _fit_context
from skorch.history import History
from torch import nn
from torch.utils.data import Dataset

from sklearn_structreg.core.batches import Batches
from sklearn_structreg.core.checkpoint import Checkpoint
from sklearn_structreg.core.convergence import note_failure, note_problem, warn_once
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.deployment import Exportable
from sklearn_structreg.core.interruption import called_at_prompt
from sklearn_structreg.core.members import Ensemble, Members
from sklearn_structreg.core.nested_regularizers import NestedRegularizers
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.net_state import snapshot
from sklearn_structreg.core.parameters import component
from sklearn_structreg.core.processes import draw_seed, one_voice
from sklearn_structreg.core.randomness import derive_seed
from sklearn_structreg.core.reading import ReadsData
from sklearn_structreg.core.recipe import Recipe, TensorSpec
from sklearn_structreg.core.regularizer import check_unchanged
from sklearn_structreg.core.sequence import RegularizerSequence
from sklearn_structreg.core.shared_parameters import NetworkParameters
from sklearn_structreg.core.site import OnSite
from sklearn_structreg.core.sklearn_callbacks import CallbackSupportMixin, fit_task
from sklearn_structreg.core.stacking import Job
from sklearn_structreg.core.standardization import Standardize
from sklearn_structreg.core.task import Task
from sklearn_structreg.core.training import (
    PREDICTION_ROWS,
    SAMPLE_ROWS,
    build_network,
    make_net,
    predict_outputs,
    prediction_rows,
    set_up,
    train,
)
from sklearn_structreg.core.validation_data import gather_metadata
from sklearn_structreg.core.versions import VersionedPickle

__all__ = ["StructuredEstimator"]


@component
class StructuredEstimator(
    NetworkParameters,
    ReadsData,
    NestedRegularizers,
    Members,
    Exportable,
    VersionedPickle,
    OnSite,
    CallbackSupportMixin,
    BaseEstimator,
):
    """A neural network with regularizers: the base of classifiers and regressors.

    Subclasses supply `_read_targets`.
    """

    _structure: ClassVar[tuple[str, ...]] = (
        "module",
        "module_params",
        "hidden_layer_sizes",
        "standardize",
        "n_members",
    )
    _free_of_result: ClassVar[tuple[str, ...]] = (  # may change where a fit goes on
        *("checkpoint", "device", "verbose", "warm_start"),
    )

    # ---- fitted state that follows from the net --------------------------------

    @property
    def module_(self) -> nn.Module:
        """The trained module, or one that holds those of all members."""
        if self._is_ensemble:
            return Ensemble([each.module_ for each in self.estimators_], self._task)
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

    @property
    def learning_rate_(self) -> float:
        """The rate that the training began with: a number where "auto" was asked."""
        return self.net_.recipe.learning_rate

    @property
    def regularizers_(self) -> RegularizerSequence:
        """The fitted regularizers by name, the estimator's own first."""
        return self.net_.regularizers

    # ---- fitting ---------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike | Dataset[Any],
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        eval_set: tuple[Any, ...] | Dataset[Any] | None = None,
        groups: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> Self:
        """Train the network.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features), array-like \
                of shape (n_samples, C, H, W), or torch Dataset
            Samples; images of one channel may come as (n_samples, H, W). Of a sparse
            matrix a mini-batch at a time is made dense. A `Dataset` of ``(x, target)``
            is for data beyond memory; an `IterableDataset` is read once for its labels
            before the epochs.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            For a classifier labels of any type, or an indicator of several labels per
            sample (zeros and ones, dense or sparse), which trains logistic units; for a
            regressor numbers. May be None only for a `Dataset` that holds them.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Non-negative; zero means absent.
        eval_set : tuple ``(X, y)`` or ``(X, y, sample_weight)``, or Dataset, \
                default=None
            Samples to validate on after every epoch, in place of a hold-out: for early
            stopping, and for the figures ``valid_loss`` and ``valid_acc``.
        groups : array-like of shape (n_samples,) or None, default=None
            Labels of groups, such as patients. A hold-out takes whole groups,
            `validation_fraction` of them.
        X_val, y_val : as X and y, default=None
            Another way to pass an `eval_set`: ``Pipeline(transform_input=["X_val"])``
            transforms the former as it does X.

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
        more = gather_metadata(sample_weight, eval_set, groups, X_val, y_val)
        with self._attempt(X, y, more) as attempt, warn_once():
            if self.n_members > 1:
                attempt._fit_members(X, y, **more)
            else:
                attempt._fit(X, y, **more)
        return self

    @contextmanager
    def _attempt(self, X: Any, y: Any, metadata: dict[str, Any]) -> Iterator[Self]:
        """Yield a copy to fit, and become as it is then, unless that fails."""
        metadata = {name: each for name, each in metadata.items() if each is not None}
        task = fit_task(
            self,
            {"X": X, "y": y, "metadata": metadata or None},
            n_epochs=self._n_epochs_at_most(),
            reconstruct=lambda net: attempt._attributes_at(net),
        )
        with one_voice(), task, torch.inference_mode(False):
            attempt = copy.copy(self)
            if not (self.warm_start and hasattr(self, "net_")):
                for name in [name for name in vars(attempt) if name.endswith("_")]:
                    delattr(attempt, name)
            yield attempt
            self.__dict__ = attempt.__dict__

    def _n_epochs_at_most(self) -> int | None:
        """Return the number of epochs of a fit, if it is known before."""
        return self.max_epochs if self.n_members == 1 else None

    def _attributes_at(self, net: StructuredNet) -> dict[str, Any] | None:
        """Return the attributes of an estimator whose fit ends with this net."""
        return vars(self) | {"net_": snapshot(net)}

    def _fit(self, X: Any, y: Any, **more: Any) -> None:
        """Fit; may leave the estimator half done where it fails."""
        data = self._read_data(X, y, min_samples=2, **more)
        self._make_recipe()  # refuses a wrong one before the seed is drawn
        seed = self.net_.seed if hasattr(self, "net_") else self._draw_seed()
        checkpoint = Checkpoint.of_fit(self, data, y, more["sample_weight"], seed)
        self._train_on(
            data,
            checkpoint.seed,
            stage=checkpoint.stage("training"),
            keep_interrupted=self.verbose >= 1 and called_at_prompt(),
        )
        if self.net_.was_interrupted:
            note_problem(
                f"The training was interrupted; the model is that of {self.n_iter_} "
                f"whole epochs, of max_epochs={self.max_epochs}."
            )
        note_failure(self.net_, data, self._make_spec())

    @property
    def _can_join(self) -> bool:
        """Whether `fit` is one fresh training, which can be part of a stack's."""
        return (
            type(self)._fit is StructuredEstimator._fit
            and type(self)._train_on is StructuredEstimator._train_on
            and not hasattr(self, "net_")
            and self.n_members == 1
            and self.checkpoint is None
            and not self.verbose
            and not getattr(self, "_skl_callbacks", None)
        )

    def _set_up(self, data: TrainingData, seed: int | None = None) -> Job:
        """Do all of a fresh fit that comes between reading and training."""
        recipe, spec = self._make_recipe(), self._make_spec()
        seed = self._draw_seed() if seed is None else seed
        regularizers = self._make_regularizers()
        module = self._fresh_network(data, spec, regularizers, seed)
        return Job(*set_up(module, regularizers, data, recipe, spec, seed=seed))

    def _conclude(self, job: Job, data: TrainingData) -> None:
        """Do all of a fresh fit that comes after its training."""
        self.net_ = job.net
        self._note_structure()
        note_failure(self.net_, data, self._make_spec())

    def _train_on(self, data: TrainingData, seed: int, **how: Any) -> None:
        """Train the present network further, or a new one; `how` is for `train`."""
        recipe, spec = self._make_recipe(), self._make_spec()
        resume = hasattr(self, "net_")
        regularizers = self._make_regularizers()
        if resume:
            module = copy.deepcopy(self.module_).to(spec.device, spec.dtype)
            module = self._resume(regularizers, module)
        else:
            module = self._fresh_network(data, spec, regularizers, seed)
        history = self.history_ if resume else None
        self.net_: StructuredNet = train(
            module, regularizers, data, recipe, spec, seed=seed, history=history, **how
        )
        self._note_structure()

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, **known: Any) -> None:
        """Train for an epoch on these rows; `known` are fitted attributes."""
        attempt = copy.copy(self)
        with one_voice(), torch.inference_mode(False):
            if self.n_members > 1 or self._is_ensemble:
                attempt._fit_members_further(X, y, sample_weight, **known)
            else:
                attempt.__dict__.update(known)
                attempt._fit_further(X, y, sample_weight)
        self.__dict__ = attempt.__dict__

    def _fit_further(self, X: Any, y: Any, sample_weight: Any) -> None:
        """Train for an epoch; may leave the estimator half done where it fails."""
        if self.early_stopping:
            raise ValueError(
                "partial_fit has no hold-out to stop by; set early_stopping=False."
            )
        if self.checkpoint is not None:
            raise ValueError(
                "partial_fit leaves no state in a folder; set checkpoint=None, and "
                "pickle the estimator between the calls."
            )
        first = not hasattr(self, "net_")
        data = self._read_data(X, y, sample_weight, min_samples=1)
        recipe, spec = self._make_recipe(), self._make_spec()
        size = recipe.rows_per_batch(data.n_rows)
        batches = data.batches(spec, batch_size=size, normalize=False)
        regularizers = self._make_regularizers()
        if first:
            seed = self._draw_seed()
            module = self._fresh_network(data, spec, regularizers, seed)
            net = make_net(
                module, regularizers, recipe, seed=seed, n_batches=batches.n_batches
            )
        else:
            net = self.net_
            net.to(spec.device, spec.dtype)
            self._check_structure()
            same = regularizers.has_parameters_of(net.regularizers)
            if not (same and recipe == net.recipe):
                module = self._resume(regularizers, net.module_)
                net = make_net(
                    module,
                    regularizers,
                    recipe,
                    seed=self.net_.seed,
                    n_batches=batches.n_batches,
                    history=self.history_,
                ).with_state_of(self.net_)
        net.drop_schedule()
        with net.kept_on_failure():
            self.net_ = net.train(batches, epochs=1)
        self._note_structure()

    @property
    def _task(self) -> Task:
        """The kind of targets seen in `fit`."""
        raise NotImplementedError  # abstract: classifiers and regressors have their own

    @property
    def _n_outputs(self) -> int:
        """The number of the network's outputs."""
        raise NotImplementedError  # abstract: classifiers and regressors have their own

    def _make_recipe(self) -> Recipe:
        """Gather the parameters of the training."""
        return Recipe.of(self, self._task, self._n_outputs)

    def _fresh_network(
        self,
        data: TrainingData,
        spec: TensorSpec,
        regularizers: RegularizerSequence,
        seed: int,
    ) -> nn.Module:
        """Build the network to train, with the regularizers attached."""
        sample, target, _ = data.first_batch(SAMPLE_ROWS, spec)
        first_layer = None
        if self._standardizes():
            loading = self._make_recipe().loader_params
            first_layer = Standardize.of(data, spec, loading)
        module = build_network(
            self.module,
            self.module_params,
            self.hidden_layer_sizes,
            n_outputs=self._n_outputs,
            sample=sample,
            dtype=spec.dtype,
            seed=seed,
            task=self._task,
            standardize=first_layer,
            target=target,
            criterion=self.criterion,
        )
        return regularizers.attach(module, sample, seed)

    def _resume(self, regularizers: RegularizerSequence, module: nn.Module) -> Any:
        self._check_structure()
        return regularizers.resume(self.regularizers_, module, self.net_.seed)

    def _note_structure(self) -> None:
        """Keep the parameters that the network was built by."""
        self._built_by = {name: getattr(self, name) for name in self._structure}

    def _check_structure(self) -> None:
        """Refuse other parameters than those that the network was built by."""
        check_unchanged(SimpleNamespace(**self._built_by), self, self._structure)

    def _draw_seed(self) -> int:
        return draw_seed(self.random_state)

    # ---- outputs ---------------------------------------------------------------

    def _logits(self, X: Any, module: nn.Module | None = None) -> NDArray[np.float64]:
        """Return the outputs of the trained module, or of another one, for all rows."""
        batches = self._batches_to_predict(X, PREDICTION_ROWS)
        module = self.module_ if module is None else module
        return predict_outputs(module, batches).numpy()

    def _drawn_logits(self, X: Any, n_draws: int) -> Iterator[NDArray[np.float64]]:
        """Return the outputs for all rows under one draw of the masks after another."""
        if self._is_ensemble:
            yield from self._drawn_by_members(X, n_draws)
            return
        batches = self._batches_to_predict(X, PREDICTION_ROWS)
        for number in range(n_draws):
            # Every batch begins at the same numbers: all rows meet the same masks.
            seed = derive_seed(self.net_.seed, 0, 2, number)
            draws = partial(self.net_.draws, seed)
            yield predict_outputs(self.module_, batches, draws).numpy()

    def _batches_to_predict(self, X: Any, batch_size: int) -> Batches:
        """Check samples against the fitted net and put them on its device."""
        data, spec = self._samples_to_predict(X)
        size = prediction_rows(spec.shape, batch_size)
        return data.batches(spec, batch_size=size, normalize=False)
