"""The fits of a search: noted in one pass of scikit-learn's own, scored in another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import joblib
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import get_routing_for_object

from sklearn_structreg.core.together import Fit, fit_together

__all__ = ["Member", "NoScore", "Plan", "RecordedSplits"]


class Plan:
    """All fits of a search, candidate by candidate, split by split."""

    def __init__(self, cv: RecordedSplits) -> None:
        self.cv = cv
        self.fits: list[Fit] = []
        self._next: int | None = None

    def meet(self, member: Member, X: Any, y: Any, params: dict[str, Any]) -> None:
        """Note a fit, hand its result out, or fit what was not planned: the refit."""
        if self._next is None:
            if len(self.fits) >= self.cv.n_splits:  # one copy of a split's rows will do
                first = self.fits[len(self.fits) % self.cv.n_splits]
                X, y, params = first.X, first.y, first.metadata
            self.fits.append(Fit(member.estimator, X, y, params))
        elif self._next < len(self.fits):
            fit = self.fits[self._next]
            self._next += 1
            if not fit.is_done:
                fit.estimator, fit.X, fit.y, fit.metadata = (
                    member.estimator,
                    X,
                    y,
                    params,
                )
                fit.alone()
            if fit.error is not None:
                raise fit.error
            member.estimator = fit.estimator
            fit.estimator = fit.X = fit.y = None  # nobody else needs the memory
        else:
            member.estimator.fit(X, y, **params)

    def train(self, n_jobs: int | None) -> None:
        """Train what was noted; from here on it is handed out.

        Estimators to be trained alone wait for that, unless they can be in parallel.
        """
        n = self.cv.n_splits
        splits = [self.fits[i::n] for i in range(n)]
        parallel = joblib.Parallel(n_jobs=n_jobs)
        alone = joblib.effective_n_jobs(n_jobs) > 1
        trained = parallel(joblib.delayed(_train_split)(fits, alone) for fits in splits)
        for i, fits in enumerate(trained):
            self.fits[i::n] = fits
        self._next = 0


def _train_split(fits: Sequence[Fit], alone: bool) -> Sequence[Fit]:
    """Fit candidates on the rows of one split, those `alone` or not."""
    lasts: list[Fit] = []
    known: dict[str, Any] = {}
    for fit in fits:
        if isinstance(fit.estimator, Pipeline) and not fit.metadata:
            lasts.append(_last_step(fit, known))
        else:
            lasts.append(fit)
    fit_together([fit for fit in lasts if fit.error is None], alone=alone)
    for fit, last in zip(fits, lasts, strict=True):
        if last is not fit:
            if not last.is_done and last.error is None:  # the steps before it are here
                last.alone()
            fit.error, fit.seconds, fit.is_done = last.error, last.seconds, True
            name, _ = fit.estimator.steps[-1]
            fit.estimator.steps[-1] = name, last.estimator
        fit.X = fit.y = None
    return fits


def _last_step(fit: Fit, known: dict[str, Any]) -> Fit:
    """Return the fit of a pipeline's last step; those before it are fitted once."""
    pipeline = fit.estimator
    if len(pipeline.steps) == 1:
        return Fit(pipeline[-1], fit.X, fit.y)
    key = joblib.hash(pipeline.steps[:-1])
    if key not in known:
        steps = pipeline[:-1]
        try:
            known[key] = steps, steps.fit_transform(fit.X, fit.y)
        except Exception as error:
            known[key] = steps, error
    steps, X = known[key]
    if isinstance(X, Exception):
        return Fit(pipeline[-1], None, None, error=X)
    pipeline.steps[:-1] = steps.steps
    return Fit(pipeline[-1], X, fit.y)


class Member(BaseEstimator):
    """Stands for an estimator in a search, and follows the plan in its place."""

    def __init__(self, estimator: Any, plan: Plan) -> None:
        self.estimator, self.plan = estimator, plan

    def fit(self, X: Any, y: Any = None, **params: Any) -> Member:
        """Do as the plan says."""
        self.plan.meet(self, X, y, params)
        return self

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the estimator's parameters."""
        params: dict[str, Any] = self.estimator.get_params(deep)
        return params

    def set_params(self, **params: Any) -> Member:
        """Set the estimator's parameters."""
        self.estimator.set_params(**params)
        return self

    def get_metadata_routing(self) -> Any:
        """Return the requests of the estimator."""
        return get_routing_for_object(self.estimator)

    def __getitem__(self, step: Any) -> Any:
        """Return a step of a pipeline, for a scorer that looks at it."""
        return self.estimator[step]

    def __sklearn_clone__(self) -> Member:
        return Member(clone(self.estimator), self.plan)

    def __sklearn_tags__(self) -> Any:
        return get_tags(self.estimator)

    def __getattr__(self, name: str) -> Any:
        if name in ("estimator", "plan"):  # not there yet: it is being unpickled
            raise AttributeError(name)
        return getattr(self.estimator, name)


class NoScore:
    """A scorer that asks for what another one asks for, and scores nothing."""

    def __init__(self, scorer: Any) -> None:
        self.scorer = scorer

    def __call__(
        self,
        estimator: Any,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        **more: Any,
    ) -> float:
        """Return 0."""
        return 0.0

    def get_metadata_routing(self) -> Any:
        """Return the requests of the scorer."""
        return get_routing_for_object(self.scorer)


class RecordedSplits:
    """A splitter that splits once."""

    def __init__(self, cv: Any) -> None:
        self.cv = cv
        self._splits: list[Any] | None = None

    @property
    def n_splits(self) -> int:
        """The number of splits that there were."""
        return len(self._splits or [])

    def split(self, X: Any, y: Any = None, **params: Any) -> list[Any]:
        """Return the splits."""
        if self._splits is None:
            self._splits = list(self.cv.split(X, y, **params))
        return self._splits

    def get_n_splits(self, X: Any = None, y: Any = None, **params: Any) -> int:
        """Return the number of splits."""
        n_splits: int = self.cv.get_n_splits(X, y, **params)
        return n_splits

    def get_metadata_routing(self) -> Any:
        """Return the requests of the splitter."""
        return get_routing_for_object(self.cv)
