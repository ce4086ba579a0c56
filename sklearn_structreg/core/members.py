"""Several networks that differ in their seeds alone, as one estimator."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.core.modules import ModuleLike
from sklearn_structreg.core.plain_values import from_plain
from sklearn_structreg.core.saving import Savable
from sklearn_structreg.core.sizing import Compactable
from sklearn_structreg.core.standardization import fold_standardization
from sklearn_structreg.core.task import Task
from sklearn_structreg.core.together import Fit, fit_together

__all__ = ["Ensemble", "Members", "mean_prediction"]

OWN = {"n_members", "random_state"}  # parameters that members do not take over


class Ensemble(nn.Module):
    """Networks side by side, with outputs that stand for their mean prediction.

    Parameters
    ----------
    members : sequence of torch.nn.Module
        They take the same samples.
    task : Task
        The meaning of their outputs.
    """

    def __init__(self, members: Sequence[nn.Module], task: Task) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.task = task

    def forward(self, x: Tensor) -> Tensor:
        """Run all on the same samples."""
        return mean_prediction([member(x) for member in self.members], self.task)


def mean_prediction(outputs: Sequence[Tensor], task: Task) -> Tensor:
    """Return outputs, (n, n_outputs), that stand for the mean prediction of several.

    For classes they are the logarithms of the mean probabilities, for several labels
    the log-odds of these.
    """
    if task is Task.VALUES:
        return torch.stack([*outputs]).mean(dim=0)
    if task is Task.CLASSES:
        return _log_mean([functional.log_softmax(each, dim=1) for each in outputs])
    yes = _log_mean([functional.logsigmoid(each) for each in outputs])
    return yes - _log_mean([functional.logsigmoid(-each) for each in outputs])


def _log_mean(logarithms: Sequence[Tensor]) -> Tensor:
    return torch.stack([*logarithms]).logsumexp(dim=0) - math.log(len(logarithms))


class Members(Compactable, Savable, BaseEstimator):
    """Mixin of estimators: `n_members` networks, each of an estimator of its own."""

    n_members: int
    random_state: Any
    checkpoint: Any
    _of_one_network: ClassVar[tuple[str, ...]] = ()  # fitted attributes
    estimators_: list[Any]
    _check_structure: Any
    _note_structure: Any

    if not TYPE_CHECKING:  # where it would allow any name

        def __getattr__(self, name: str) -> Any:
            """Name the property asked for where it is missing only before `fit`."""
            fitted = not {"net_", "estimators_"}.isdisjoint(vars(self))
            if fitted or not (name.endswith("_") and hasattr(type(self), name)):
                return object.__getattribute__(self, name)  # fails in its own words
            raise NotFittedError(
                f"This {type(self).__name__} has no {name} before it is fitted; call "
                "fit first."
            )

    @property
    def _is_ensemble(self) -> bool:
        """Whether there are several networks."""
        built_by = vars(self).get("_built_by", {})
        return "estimators_" in vars(self) and built_by.get("n_members", 1) > 1

    @property
    def _one_module(self) -> nn.Module:
        """The network, for that which describes a single one."""
        if self._is_ensemble:
            raise AttributeError(
                f"This {type(self).__name__} has {len(self.estimators_)} networks, "
                "each with a structure of its own; look at one of estimators_."
            )
        module: nn.Module = self.net_.module_
        return module

    # ---- fitting ---------------------------------------------------------------

    def _fit_members(self, X: Any, y: Any, **more: Any) -> None:
        """Fit all members, in one training where they can be stacked."""
        if self.checkpoint is not None:
            raise ValueError(
                f"n_members={self.n_members} networks are to be trained, but a "
                "checkpoint is for a single training; set checkpoint=None."
            )
        fits = [Fit(member, X, y, more) for member in self._members()]
        fit_together(fits)
        for fit in fits:
            if fit.error is not None:
                raise fit.error
        self._take_members([fit.estimator for fit in fits])

    def _fit_members_further(self, X: Any, y: Any, weight: Any, **known: Any) -> None:
        """Train every member for an epoch, or none; `known` are fitted attributes."""
        members = self._members()
        with ExitStack() as stack:
            for member in members:
                if hasattr(member, "net_"):
                    stack.enter_context(member.net_.kept_on_failure())
                vars(member).update(known)
            for member in members:
                member._fit_further(X, y, weight)
        self._take_members(members)

    def _members(self) -> list[Any]:
        """Return estimators to fit: copies of the fitted ones, or new ones."""
        names = {*self._get_param_names()} - OWN
        params = {name: getattr(self, name) for name in names}
        if hasattr(self, "net_"):
            self._check_structure()
            members = [copy.copy(member) for member in self.estimators_]
            for member in members:
                vars(member).update(params)
            return members
        draws, largest = check_random_state(self.random_state), 2**31 - 1
        seeds = [int(draws.randint(largest)) for _ in range(self.n_members)]
        return [type(self)(**params, random_state=seed) for seed in seeds]

    def _take_members(self, members: list[Any]) -> None:
        """Become an estimator of these; the net and its history are the first's."""
        names = {*self._get_param_names(), *self._of_one_network}
        seen = {k: v for k, v in vars(members[0]).items() if k not in names}
        self.__dict__.update(seen)
        self.estimators_ = members
        self._note_structure()

    # ---- outputs and files -----------------------------------------------------

    def _drawn_by_members(self, X: Any, n: int) -> Iterator[NDArray[np.float64]]:
        """Return the outputs for all rows under one draw of the masks after another."""
        of_members = [member._drawn_logits(X, n) for member in self.estimators_]
        for outputs in zip(*of_members, strict=True):
            tensors = [torch.from_numpy(each) for each in outputs]
            yield mean_prediction(tensors, self._task).numpy()

    def _simplify(self) -> tuple[nn.Module, Any]:
        """Simplify all networks; each standardizes by itself."""
        if not self._is_ensemble:
            return super()._simplify()
        modules = [member.simplified_module() for member in self.estimators_]
        return Ensemble(modules, self._task), None

    def _compacted(self, unsupported: str) -> Any:
        """Return an estimator of smaller networks."""
        if not self._is_ensemble:
            return super()._compacted(unsupported)
        members = [member._compacted(unsupported) for member in self.estimators_]
        same = type(members[0]) is type(self)
        smaller: Any = copy.copy(self) if same else self._as_plain()
        smaller._take_members(members)
        return smaller

    def _untrained_network(self) -> nn.Module:
        """Build all networks as at first, without regularizers."""
        if not self._is_ensemble:
            return super()._untrained_network()
        modules = [
            fold_standardization(member._untrained_network())
            for member in self.estimators_
        ]
        return Ensemble(modules, self._task)

    def _to_state(self) -> dict[str, Any]:
        """Return this fitted estimator as nested plain values."""
        if not self._is_ensemble:
            return super()._to_state()
        members = [member._to_state() for member in self.estimators_]
        return self._header() | {
            "own_module": members[0]["own_module"],
            "parameters": self._plain_parameters(),
            "requests": self._plain_requests(),
            "members": members,
        }

    @classmethod
    def _from_state(cls, state: dict[str, Any], module: ModuleLike | None) -> Self:
        """Make the fitted estimator again."""
        if "members" not in state:
            return super()._from_state(state, module)
        members = [cls._from_state(each, module) for each in state["members"]]
        params = members[0].get_params(deep=False) | from_plain(state["parameters"])
        estimator = cls(**params)
        estimator._restore_requests(state["requests"])
        n_members, estimator.n_members = estimator.n_members, len(members)
        estimator._take_members(members)
        estimator.n_members = n_members
        return estimator
