"""The controls of self-informed structure, all on the networks of one comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, check_random_state, indexable

from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.core.convergence import warn_once
from sklearn_structreg.core.processes import draw_seed
from sklearn_structreg.selfinformed.classifier import SelfInformedClassifier
from sklearn_structreg.selfinformed.network import epochs_of_folds, unwrap
from sklearn_structreg.selfinformed.partition import ClassPartition
from sklearn_structreg.selfinformed.widths import head_cost

__all__ = ["ControlTable", "compare_controls"]

CONTROLS = ("base", "base for as long", "one wide head", "random groups")


@dataclass(eq=False, repr=False)
class ControlTable:
    """Scores of heads and their controls on the same splits.

    Attributes
    ----------
    names : tuple of str
        The heads first.
    scores : ndarray of shape (n_names, n_splits)
        Held-out scores.
    multiply_adds : ndarray of shape (n_names,)
        Cost of a prediction, the mean over splits.
    """

    names: tuple[str, ...]
    scores: NDArray[np.float64]
    multiply_adds: NDArray[np.float64]

    @property
    def differences(self) -> NDArray[np.float64]:
        """The mean of the heads' score less that of each, (n_names,)."""
        return np.asarray((self.scores[0] - self.scores).mean(axis=1))

    @property
    def errors(self) -> NDArray[np.float64]:
        """The standard errors of the differences, NaN with one split, (n_names,)."""
        n_splits = self.scores.shape[1]
        if n_splits < 2:
            return np.full(len(self.names), np.nan)
        spread = (self.scores[0] - self.scores).std(axis=1, ddof=1)
        return np.asarray(spread / np.sqrt(n_splits))

    def __str__(self) -> str:
        width = max(map(len, self.names))
        lines = [f"{'':{width}}   score  heads' gain     multiply-adds"]
        for i, name in enumerate(self.names):
            gain = f"{self.differences[i]:+.4f} ± {self.errors[i]:.4f}" if i else ""
            score, cost = self.scores[i].mean(), self.multiply_adds[i]
            lines.append(f"{name:{width}}  {score:.4f}  {gain:17}  {cost:12,.0f}")
        return "\n".join(lines)

    __repr__ = __str__


def compare_controls(
    estimator: SelfInformedClassifier,
    X: Any,
    y: Any,
    *,
    cv: Any = 5,
    scoring: Any = None,
) -> ControlTable:
    """Compare heads for confused classes with what may do as well.

    On every split the estimator is fitted; then on the same network heads for groups
    of the same sizes with classes drawn by lot, and one head for all classes that costs
    as much, are trained alike; and a network without heads is trained for as many
    epochs as all of that together took. If a control scores as well, it is
    the capacity that helps, or the time, and not the groups.

    Parameters
    ----------
    estimator : SelfInformedClassifier
        The heads to judge. It is cloned; a fitted network inside of it has to be in a
        `FrozenEstimator`, and should not know the samples.
    X : array-like of shape (n_samples, ...)
        Samples.
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Labels, or an indicator of several.
    cv : int, splitter or iterable, default=5
        The splits, as in scikit-learn; take several for an error.
    scoring : str, callable or None, default=None
        The score; None is accuracy.

    Returns
    -------
    ControlTable
        ``names``, ``scores`` of shape (n_names, n_splits), ``multiply_adds``, and the
        heads' ``differences`` with their standard ``errors``, all printed as a table.

    Raises
    ------
    ValueError
        If the estimator adds no heads.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg import SelfInformedClassifier
    >>> from sklearn_structreg.selfinformed import compare_controls
    >>> X, y = load_digits(return_X_y=True)
    >>> heads = SelfInformedClassifier(max_epochs=5, budget=0.3, random_state=0)
    >>> table = compare_controls(heads, X[:400], y[:400], cv=2)
    >>> table.names
    ('heads', 'base', 'base for as long', 'one wide head', 'random groups')
    >>> table.scores.shape
    (5, 2)
    """
    if estimator.n_clusters == 0:
        raise ValueError("n_clusters=0 adds no heads to compare; ask for some groups.")
    scorer = check_scoring(estimator, scoring)
    X, y = indexable(X, y)
    rng = check_random_state(estimator.random_state)
    splits = list(check_cv(cv, y, classifier=True).split(X, y))
    scores, costs = np.zeros((2, 1 + len(CONTROLS), len(splits)))
    for column, (train, test) in enumerate(splits):
        seed = draw_seed(rng)
        given = _safe_indexing(X, train), _safe_indexing(y, train)
        for row, model in enumerate(_contestants(estimator, *given, seed)):
            held_out = _safe_indexing(X, test), _safe_indexing(y, test)
            scores[row, column] = scorer(model, *held_out)
            costs[row, column] = model.multiply_adds_.augmented
    return ControlTable(("heads", *CONTROLS), scores, costs.mean(axis=1))


def _contestants(
    estimator: SelfInformedClassifier, X: Any, y: Any, seed: int
) -> list[SelfInformedClassifier]:
    """Fit the heads and the controls."""
    heads = clone(estimator).set_params(random_state=seed).fit(X, y)
    network = FrozenEstimator(heads.estimator_)
    others = clone(heads).set_params(estimator=network)
    base = clone(others).set_params(n_clusters=0).fit(X, y)
    longer = clone(base).set_params(estimator=_for_as_long(heads)).fit(X, y)
    lots = np.random.default_rng(seed)
    random = [
        replace(each, labels_=lots.permutation(each.labels_))
        for each in heads.partitions_
    ]
    one = [
        replace(each, labels_=np.zeros_like(each.labels_)) for each in heads.partitions_
    ]
    return [
        heads,
        base,
        longer,
        _on(others, X, y, one, heads),
        _on(others, X, y, random, heads),
    ]


def _on(
    estimator: SelfInformedClassifier,
    X: Any,
    y: Any,
    partitions: list[ClassPartition],
    heads: SelfInformedClassifier,
) -> SelfInformedClassifier:
    """Fit with given groups, in heads that cost as much."""
    model: SelfInformedClassifier = clone(estimator)
    sizes = heads.head_layer_sizes_
    if partitions[0].n_clusters_ == 1:
        sizes = [[_one_head(heads, index)] for index in range(len(sizes))]
    with model._attempt(X, y, {}) as attempt, warn_once():
        attempt._fit(X, y, heads=(partitions, sizes))
    return model


def _one_head(heads: SelfInformedClassifier, index: int) -> tuple[int, ...]:
    """Return the hidden layers of one head that costs as much as those of a round."""
    place, kernel_size = heads._point.place(index), heads.head_kernel_size
    sizes, groups = heads.head_layer_sizes_[index], heads.partitions_[index].groups_
    budget = sum(
        head_cost(place, layers, group.size, kernel_size)
        for layers, group in zip(sizes, groups, strict=True)
    )
    average = np.mean(sizes, axis=0)
    wide: tuple[int, ...] = tuple(1 for _ in average)
    for factor in np.linspace(0, len(groups), 1 + 16 * len(groups)):
        tried = tuple(max(1, round(n)) for n in (factor * average).tolist())
        if head_cost(place, tried, len(heads.classes_), kernel_size) <= budget:
            wide = tried
    return wide


def _for_as_long(heads: SelfInformedClassifier) -> Any:
    """Return the network without heads, to be trained for as many epochs in all."""
    given = unwrap(heads.estimator)
    if given is None:
        known = StructuredClassifier().get_params(deep=False)
        given = StructuredClassifier(**{name: getattr(heads, name) for name in known})
    network = clone(given)
    n_epochs = network.max_epochs + heads.n_iter_
    if heads.n_folds_:  # of which each has left out its share of the rows
        n_epochs += (heads.n_folds_ - 1) * epochs_of_folds(network.max_epochs)
    return network.set_params(max_epochs=n_epochs)
