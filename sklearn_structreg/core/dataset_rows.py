"""A `Dataset` as rows that scikit-learn can index: for searches and validation."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, Subset

from sklearn_structreg.core.dataset_items import dataset_targets

__all__ = ["DatasetRows", "as_rows", "dataset_of"]


class Row(NamedTuple):
    """A row of a dataset, not loaded."""

    dataset: Dataset[Any]
    number: int

    def __repr__(self) -> str:
        return f"Row({self.number})"


class DatasetRows(list[Row]):
    """The rows of a dataset, none of them loaded: see `as_rows`."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        n_rows = len(dataset)  # type: ignore[arg-type]
        super().__init__(Row(dataset, number) for number in range(n_rows))
        self.dataset = dataset

    @property
    def targets(self) -> NDArray[Any]:
        """The labels, read from the dataset without its samples where possible."""
        return dataset_targets(self.dataset)


def as_rows(dataset: Dataset[Any]) -> DatasetRows:
    """Turn a torch `Dataset` into a list of its rows, which scikit-learn can index.

    `GridSearchCV`, `cross_val_predict`, `learning_curve` and all that takes parts of X
    can then take parts of it; samples are loaded by the estimators, in mini-batches.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Map-style: with a length, and items by number.

    Returns
    -------
    list
        One entry per row. Its attribute `targets` holds the labels.

    Raises
    ------
    TypeError
        If the dataset has no length or is iterable only.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.model_selection import cross_val_score
    >>> from torch.utils.data import TensorDataset
    >>> from sklearn_structreg import StructuredClassifier
    >>> from sklearn_structreg.core import as_rows
    >>> rows = as_rows(TensorDataset(*map(torch.tensor, load_wine(return_X_y=True))))
    >>> net = StructuredClassifier(max_epochs=20, random_state=0)
    >>> bool(cross_val_score(net, rows, rows.targets, cv=3).mean() > 0.9)
    True
    """
    if not hasattr(dataset, "__len__") or isinstance(dataset, IterableDataset):
        raise TypeError(
            f"{type(dataset).__name__} cannot be indexed; pass a map-style torch "
            "Dataset, one with __len__ and __getitem__."
        )
    return DatasetRows(dataset)


def dataset_of(X: Any) -> Any:
    """Return the dataset of a list of rows; anything else as it is."""
    if isinstance(X, DatasetRows):
        return X.dataset
    if not (isinstance(X, list) and X and isinstance(X[0], Row)):
        return X
    return Subset(X[0].dataset, [row.number for row in X])
