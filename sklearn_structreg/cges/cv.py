"""Strengths chosen by cross-validation, and networks of all rows at the best."""

from __future__ import annotations

import copy
import math
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.utils import check_random_state, indexable
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.optim import Optimizer

from sklearn_structreg.cges.classifier import CGESClassifier
from sklearn_structreg.cges.estimator import SparseEstimator
from sklearn_structreg.cges.folds import (
    Average,
    routed,
    score_fold,
    split_rows,
    train_last,
)
from sklearn_structreg.cges.path import check_strengths
from sklearn_structreg.cges.regressor import CGESRegressor
from sklearn_structreg.cges.targets import target_of
from sklearn_structreg.core import StructuredClassifier, StructuredRegressor
from sklearn_structreg.core.convergence import note_failure, note_problem, noted
from sklearn_structreg.core.dataset_items import dataset_targets
from sklearn_structreg.core.modules import ModuleLike
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.parameters import component, parameter, parameter_of
from sklearn_structreg.core.processes import from_first
from sklearn_structreg.core.task import Task
from sklearn_structreg.core.together import can_train_together

__all__ = ["CGESClassifierCV", "CGESRegressorCV"]

WEAKEST, STRONGEST = 0.1, 3.0  # one strength means the same on any network
EQUAL = 1e-9  # scores of equal networks differ by rounding
CHOICES = ("alphas_", "alpha_", "scores_", "mean_scores_", "standard_errors_")


@component
class CrossValidated(SparseEstimator):
    """The parameters and the fit of both estimators."""

    _plain_class: ClassVar[type[SparseEstimator]]

    alpha: ClassVar[float]  # type: ignore[misc] # no parameter: `alphas` is
    n_members: ClassVar[int] = 1  # type: ignore[misc] # nor this: `final` is
    alphas: int | ArrayLike = parameter(
        4,
        [Interval(Integral, 1, None, closed="left"), "array-like"],
        "int or array-like of shape (n_alphas,)",
        """The strengths, each at least 0. An int gives their number: so many between
        0.1 and 3, evenly spaced on a log scale.""",
    )
    cv: Any = parameter(
        5,
        ["cv_object"],
        "int, splitter or iterable of (train, test), or None",
        """The folds, as in scikit-learn; an int gives their number, stratified for a
        classifier, and of whole groups where `fit` gets `groups`. Rows of weight zero
        are in no fold: a splitter never sees them, and they are taken out of the folds
        of an iterable, whose numbers are those of the rows of X.""",
    )
    scoring: Any = parameter(
        None,
        [StrOptions(set(get_scorer_names())), callable, None],
        "str, callable or None",
        "The score to maximise; None is that of `score`: accuracy, or R^2.",
    )
    warm_path: bool = parameter(
        False,
        ["boolean"],
        "bool",
        """Whether the strengths are trained from weak to strong, each network from the
        weights of the one before, and every one but the first for half of `max_epochs`.
        Else each strength has a new network.""",
    )
    selection: str = parameter(
        "best",
        [StrOptions({"best", "1se"})],
        '{"best", "1se"}',
        """The choice of `alpha_`: the strength of the best mean score, or the strongest
        whose mean score is at most one standard error of the best one below it. Of
        equal ones it is the strongest.""",
    )
    final: str = parameter(
        "average",
        [StrOptions({"average", "single"})],
        '{"average", "single"}',
        """The final model, trained on all rows at `alpha_`, by the same path: as many
        networks as folds, whose outputs are averaged, or a single one.""",
    )
    n_jobs: int | None = parameter(
        None,
        [Interval(Integral, None, None, closed="neither"), None],
        "int or None",
        "Folds at once, in processes of their own; the result is the same.",
    )

    # ---- fitted state ----------------------------------------------------------

    @property
    def net_(self) -> StructuredNet:
        """The net of the first network."""
        net: StructuredNet = self.estimators_[0].net_
        return net

    @net_.setter
    def net_(self, net: StructuredNet) -> None:
        member = self._member()
        member.net_, member._built_by = net, self._built_by
        self.estimators_: list[Any] = [member]

    @property
    def module_(self) -> nn.Module:
        """The trained network, or all of them with the means of their outputs."""
        check_is_fitted(self, "estimators_")
        modules = [each.module_ for each in self.estimators_]
        return modules[0] if len(modules) == 1 else Average(modules)

    # ---- fitting ---------------------------------------------------------------

    _needs_rows: ClassVar[bool] = True
    _composes_networks: ClassVar[bool] = True

    def get_metadata_routing(self) -> MetadataRouter:
        """Return who takes metadata in `fit`: the networks, the splitter, the scorer.

        Returns
        -------
        routing : MetadataRouter
            As in scikit-learn's guide on metadata routing.
        """
        router = MetadataRouter(owner=self).add_self_request(self)
        splits = MethodMapping().add(caller="fit", callee="split")
        scores = MethodMapping().add(caller="fit", callee="score")
        router.add(splitter=self.cv, method_mapping=splits)
        if self.scoring is None:  # `score`, of which a scorer would ask us here again
            scorer = self._get_metadata_request()
        else:
            scorer = check_scoring(self, self.scoring)
        return router.add(scorer=scorer, method_mapping=scores)

    def _fit(self, X: Any, y: Any, sample_weight: Any = None, **more: Any) -> None:
        self._check_one_fit()
        strengths = self._strengths()
        data = self._read_data(X, y, sample_weight, min_samples=2, **more)
        self._make_recipe()
        X, y = indexable(X, dataset_targets(X) if y is None else y)
        classes = self._task is Task.CLASSES
        folds = split_rows(
            *(data, self.cv), *routed(self, sample_weight, more.get("groups")), classes
        )
        model = self._member().set_params(warm_start=self.warm_path)
        scorer = check_scoring(model, self.scoring)
        random_state, largest = check_random_state(self.random_state), 2**31 - 1
        seeds = from_first(lambda: [int(random_state.randint(largest)) for _ in folds])
        in_parallel = Parallel(n_jobs=self.n_jobs)
        scores = in_parallel(
            delayed(score_fold)(model, data, fold, strengths, seed, scorer, X, y)
            for fold, seed in zip(folds, seeds, strict=True)
        )
        chosen = self._choose(strengths, np.array(scores))
        self._note_structure()
        seeds = seeds if self.final == "average" else seeds[:1]
        n_seeds = 0 if self.warm_path else len(seeds)
        together = can_train_together(model, data, seeds[0], n_seeds)
        trained = in_parallel(
            delayed(train_last)(model, data, strengths[: chosen + 1], part)
            for part in ([seeds] if together else [[seed] for seed in seeds])
        )
        self.estimators_ = [each for part in trained for each in part]
        with noted() as problems:
            for member in self.estimators_:
                note_failure(member.net_, data, self._make_spec())
        of_a_member = f"lower alpha={self.alpha_:g} of 'cges'"
        for problem in problems:  # `alpha` is no parameter here
            of_all = f"give lower alphas than {self.alpha_:g}"
            note_problem(problem.replace(of_a_member, of_all))

    def _check_one_fit(self) -> None:
        """Refuse what is for a single training."""
        name = type(self).__name__
        if self.checkpoint is not None:
            raise ValueError(
                f"{name} trains many networks, but a checkpoint is for a single fit; "
                "set checkpoint=None."
            )
        if self.warm_start:
            raise ValueError(
                f"{name} trains new networks in every fit; set warm_start=False, and "
                "train one of estimators_ further."
            )
        if target := target_of(self):
            raise ValueError(
                f"{name} looks for a strength, but {target[0]} is a size; set it to "
                f"None, or take a {self._plain_class.__name__}."
            )

    def _strengths(self) -> NDArray[np.float64]:
        if isinstance(self.alphas, Integral):
            return np.geomspace(WEAKEST, STRONGEST, int(self.alphas))
        return np.unique(check_strengths(self.alphas))

    def _member(self) -> Any:
        """Return an estimator of one strength, with the targets and shapes of this."""
        names = self._plain_class._get_param_names()
        model = self._plain_class(
            **{name: getattr(self, name) for name in names if name != "alpha"}
        )
        seen = {k: v for k, v in vars(self).items() if k.endswith("_")}
        for name in (*CHOICES, "best_score_", "estimators_"):
            seen.pop(name, None)
        model.__dict__.update(seen)
        if hasattr(self, "_one_dimensional"):
            model._one_dimensional = self._one_dimensional
        return model

    def _choose(
        self, strengths: NDArray[np.float64], scores: NDArray[np.float64]
    ) -> int:
        """Keep the scores, (n_folds, n_alphas), and return the number of the best."""
        means = scores.mean(axis=0)
        errors = np.zeros(len(strengths))
        if len(scores) > 1:
            errors = scores.std(axis=0, ddof=1) / math.sqrt(len(scores))
        best = int(np.argmax(means))
        least = means[best] - EQUAL * max(1.0, abs(means[best]))
        if self.selection == "1se":
            least -= errors[best]
        chosen = int(np.flatnonzero(means >= least)[-1])
        self.alphas_, self.alpha_ = strengths, float(strengths[chosen])
        self.scores_, self.mean_scores_ = scores, means
        self.standard_errors_, self.best_score_ = errors, float(means[chosen])
        return chosen

    def _n_epochs_at_most(self) -> None:
        """Return None: the folds have trainings of their own."""

    def _attributes_at(self, net: StructuredNet) -> None:
        """Return None: a network of a fold makes no estimator yet."""

    @available_if(lambda self: False)
    def partial_fit(self, *args: Any, **params: Any) -> Self:
        """Absent: a stream has no folds; train one of `estimators_` further."""
        raise NotImplementedError  # not reached: available_if hides it

    # ---- smaller networks, and files -------------------------------------------

    def _simplify(self) -> tuple[nn.Module, None]:
        """Simplify every network; each has standardized by itself."""
        check_is_fitted(self, "estimators_")
        modules = [member.simplified_module() for member in self.estimators_]
        return (modules[0] if len(modules) == 1 else Average(modules)), None

    def _compacted(self, unsupported: str) -> Any:
        if not all(each._keeps_its_layers() for each in self.estimators_):
            return super()._compacted(unsupported)  # one plain net of all
        smaller = copy.copy(self)
        smaller.estimators_ = [
            each._compacted(unsupported) for each in self.estimators_
        ]
        return smaller

    def _plain_fitted(self) -> dict[str, Any]:
        """Write the first network as that of this estimator, the others beside it."""
        plain = super()._plain_fitted()
        _, *others = plain.pop("estimators_")
        return plain | {"others": [member._to_state() for member in others]}

    @classmethod
    def _from_state(cls, state: dict[str, Any], module: ModuleLike | None) -> Self:
        fitted = dict(state["fitted"])
        others = fitted.pop("others")
        model = super()._from_state(state | {"fitted": fitted}, module)
        kind: Any = cls._plain_class
        model.estimators_ += [kind._from_state(each, module) for each in others]
        return model


@component
class CGESClassifierCV(CrossValidated, StructuredClassifier):
    """A `CGESClassifier` whose strength is chosen by cross-validation.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    alpha_ : float
        The chosen strength.
    alphas_ : ndarray of shape (n_alphas,)
        All strengths, in increasing order.
    scores_ : ndarray of shape (n_folds, n_alphas)
        The score of each fold's network on the rows outside of the fold.
    mean_scores_, standard_errors_ : ndarray of shape (n_alphas,)
        Their means over the folds, and the standard errors of these.
    best_score_ : float
        The mean score at `alpha_`.
    estimators_ : list of CGESClassifier
        The final networks, fitted.
    module_ : torch.nn.Module
        The network, or one that holds all of them and returns the means.
    feature_importances_ : ndarray of shape (n_features,)
        Means over the networks; 0 means that none of them uses a feature.
    sparsity_ : float
        Fraction of exact zeros among the penalised weights.
    n_parameters_, n_nonzero_parameters_ : int
        Those of all networks.
    net_, history_, n_iter_, regularizers_
        Those of the first network.
    classes_, multilabel_, n_features_in_, feature_names_in_, input_shape_
        As in :class:`~sklearn_structreg.core.StructuredClassifier`.

    See Also
    --------
    CGESRegressorCV : The same for numbers.
    cges_path : A path of strengths without folds.

    Notes
    -----
    There is a training of `max_epochs` for each strength and fold, and for each final
    network: with an average ``1 + 1 / n_alphas`` per strength and fold. A warm path
    costs about half as much, but with Adam at a high rate it can end in empty networks:
    next to a perfect fit the gradients are small, and so the first steps of a fresh
    optimizer are long.

    There is no `partial_fit`, no warm start and no `checkpoint`.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn_structreg import CGESClassifierCV
    >>> X, y = load_wine(return_X_y=True)
    >>> net = CGESClassifierCV(alphas=[0.3, 1], cv=3, random_state=0).fit(X, y)
    >>> net.scores_.shape, bool(net.best_score_ > 0.95)
    ((3, 2), True)
    """

    _plain_class = CGESClassifier
    optimizer: str | type[Optimizer] = parameter_of(
        StructuredClassifier, "optimizer", default="adam"
    )
    learning_rate: float | str = parameter_of(
        StructuredClassifier, "learning_rate", default=1e-3
    )
    penalty: str = parameter_of(CGESClassifier, "penalty", default="group")


@component
class CGESRegressorCV(CrossValidated, StructuredRegressor):
    """A `CGESRegressor` whose strength is chosen by cross-validation.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    alpha_, alphas_, scores_, mean_scores_, standard_errors_, best_score_
    module_, feature_importances_, sparsity_, n_parameters_, n_nonzero_parameters_
    net_, history_, n_iter_, regularizers_
        As in :class:`CGESClassifierCV`.
    estimators_ : list of CGESRegressor
        The final networks, fitted.
    target_mean_, target_scale_, n_features_in_, feature_names_in_, input_shape_
        As in :class:`~sklearn_structreg.core.StructuredRegressor`. All folds share the
        scale of the targets.

    See Also
    --------
    CGESClassifierCV : The same for classes, with its cost.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn_structreg import CGESRegressorCV
    >>> X, y = load_diabetes(return_X_y=True)
    >>> net = CGESRegressorCV(alphas=[0.3, 1], cv=3, max_epochs=30, random_state=0)
    >>> net.fit(X, y).score(X, y) > 0.4
    True
    """

    _plain_class = CGESRegressor
    learning_rate: float | str = parameter_of(
        StructuredRegressor, "learning_rate", default=1e-3
    )
    penalty: str = parameter_of(CGESRegressor, "penalty", default="group")
