"""A grid search that trains candidates of one shape as one network."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from joblib import parallel_config
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, check_cv
from sklearn.utils import get_tags

from sklearn_structreg.core.site import OnSite
from sklearn_structreg.search.plan import Member, NoScore, Plan, RecordedSplits

__all__ = ["StrengthSearchCV"]


class StrengthSearchCV(OnSite, GridSearchCV):
    """`GridSearchCV` that trains all candidates of one shape as one network.

    Candidates that differ only in numbers, such as strengths, drop rates, the learning
    rate, momentum or the weight decay, have networks of one shape. On the rows of a
    split they see the same mini-batches, so that one product serves all of them. Small
    networks, whose training is mostly overhead, so take a fraction of the time; all
    others are fitted one by one, and so are candidates that cannot be stacked. Results
    are those of `GridSearchCV` up to rounding.

    Parameters
    ----------
    estimator : estimator of this package, or Pipeline that ends in one
        The steps before the last are fitted once for a split and their own parameters.
        Any other estimator works, too, and is fitted as in `GridSearchCV`.
    param_grid : dict or list of dict
        As in `GridSearchCV`, like all that follow.
    scoring : str, callable, list, tuple or dict, default=None
        The figures to compare.
    n_jobs : int, default=None
        Splits to train in parallel.
    refit : bool, str or callable, default=True
        Whether to fit the best candidate on all rows, and how it is found.
    cv : int, splitter or iterable, default=None
        The splits.
    verbose : int, default=0
        Messages of the scoring.
    pre_dispatch : int or str, default="2*n_jobs"
        Has no effect here.
    error_score : "raise" or number, default=nan
        The score of a candidate whose fit fails; the others are not touched.
    return_train_score : bool, default=False
        Whether to score the training rows as well.

    Attributes
    ----------
    cv_results_ : dict of str to ndarray
        As in `GridSearchCV`. The time of a stack is shared out among its members.
    best_estimator_, best_score_, best_params_, best_index_ : object
        As in `GridSearchCV`.
    scorer_, n_splits_, refit_time_, multimetric_ : object
        As in `GridSearchCV`.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : The same, one by one.

    Notes
    -----
    What can be stacked: chains (`torch.nn.Sequential`, and the package's own networks)
    trained by those of torch's optimizers that treat each weight by itself, at a
    constant rate or the cosine schedule, with all regularizers that leave the layers in
    place, and with early stopping. Options of `Training`, callbacks and checkpoints
    need a training alone. A stack has as many members as a cache holds. The rows of all
    splits are in memory at once, as are the networks of a split that are stacked.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg import CGESClassifier, StrengthSearchCV
    >>> X, y = load_digits(return_X_y=True)
    >>> net = CGESClassifier(max_epochs=10, random_state=0)
    >>> search = StrengthSearchCV(net, {"alpha": [0.1, 0.3, 1.0, 3.0]}, cv=3)
    >>> bool(search.fit(X, y).best_score_ > 0.9)
    True
    """

    @property
    def n_features_in_(self) -> int:
        """Features seen in `fit`, where the best candidate was fitted anew."""
        n_features: int = super().n_features_in_
        return n_features

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        own = get_tags(self.estimator)
        tags.target_tags, tags.input_tags = own.target_tags, own.input_tags
        return tags

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Train all candidates on all splits, score them, and fit the best.

        Parameters
        ----------
        X, y : as the estimator takes them
            Samples and targets.
        **params : dict of str to object
            For the estimator's `fit`, the splitter and the scorer.

        Returns
        -------
        self : object
            The fitted search.

        Raises
        ------
        ValueError
            As `GridSearchCV` does.
        """
        classifies = is_classifier(self.estimator)
        cv = RecordedSplits(check_cv(self.cv, y, classifier=classifies))
        plan = Plan(cv)
        settings = {**self.get_params(deep=False), "n_jobs": 1, "cv": cv}
        settings["estimator"] = Member(self.estimator, plan)
        scorer = check_scoring(self.estimator, scoring=self.scoring)
        noting = GridSearchCV(
            **{**settings, "scoring": NoScore(scorer), "refit": False, "verbose": 0}
        )
        with parallel_config("sequential"):  # the plan is in this process
            noting.fit(X, y, **params)
        plan.train(self.n_jobs)
        with parallel_config("sequential"):
            scored = GridSearchCV(**settings).fit(X, y, **params)
        for name, value in vars(scored).items():
            if name.endswith("_"):
                setattr(self, name, value)
        if hasattr(self, "best_estimator_"):
            self.best_estimator_: Any = scored.best_estimator_.estimator
        seconds = np.reshape([fit.seconds for fit in plan.fits], (-1, cv.n_splits))
        self.cv_results_["mean_fit_time"] = seconds.mean(axis=1)
        self.cv_results_["std_fit_time"] = seconds.std(axis=1)
        return self
