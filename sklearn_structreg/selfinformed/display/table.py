"""A table of groups with their class names, as the paper's Table 1."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

__all__ = ["GroupTable"]


class _Row(NamedTuple):
    number: str
    size: str
    inside: str
    members: str


class GroupTable:
    """The groups of a partition, as text and, in a notebook, as HTML.

    Parameters
    ----------
    clusters : sequence of array-like
        The names of each group's classes, those to show first in front.
    inside : sequence of float of shape (n_clusters,), in [0, 1], default=None
        For each group the share of its classes' confusions that stay inside of it.
    max_classes : int, default=12
        How many names to show of a group.

    See Also
    --------
    ConfusionPartitionDisplay : The confusions that the groups were found from.

    Examples
    --------
    >>> from sklearn_structreg.selfinformed import GroupTable
    >>> print(GroupTable([["cat", "dog", "fox"], ["bus", "car"]], max_classes=2))
    group  classes  members
        0        3  cat, dog, ...
        1        2  bus, car
    """

    def __init__(
        self,
        clusters: Sequence[ArrayLike],
        *,
        inside: Sequence[float] | None = None,
        max_classes: int = 12,
    ) -> None:
        self.clusters = clusters
        self.inside = inside
        self.max_classes = max_classes

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        display_labels: ArrayLike | None = None,
        max_classes: int = 12,
    ) -> Self:
        """Make the table of a fitted estimator's groups.

        The classes that are confused most within their group come first.

        Parameters
        ----------
        estimator : SelfInformedClassifier or ConfusionSpectralPartitioner
            Fitted, with groups.
        display_labels : array-like of shape (n_classes,), default=None
            Class names; None takes `classes_`.
        max_classes : int, default=12
            How many names to show of a group.

        Returns
        -------
        GroupTable

        Raises
        ------
        ValueError
            If the estimator was fitted without groups.
        """
        check_is_fitted(estimator)
        partition = getattr(estimator, "partition_", estimator)
        if partition is None:
            raise ValueError(
                f"This {type(estimator).__name__} was fitted with n_clusters=0 and has "
                "no groups; fit it with some."
            )
        names = partition.classes_ if display_labels is None else display_labels
        names, labels = np.asarray(names), partition.labels_
        together, total = _confusions_inside(partition.confusion_, labels)
        clusters, inside = [], []
        for group in range(partition.n_clusters_):
            members = np.flatnonzero(labels == group)
            by_confusion = np.argsort(-together[members], kind="stable")
            clusters.append(names[members[by_confusion]])
            inside.append(together[members].sum() / max(total[members].sum(), 1e-300))
        return cls(clusters, inside=inside, max_classes=max_classes)

    def _rows(self) -> list[_Row]:
        rows = []
        shares = [] if self.inside is None else [f"{x:.0%}" for x in self.inside]
        for number, cluster in enumerate(self.clusters):
            names = [str(name) for name in np.asarray(cluster)]
            shown = ", ".join(names[: self.max_classes])
            more = ", ..." if len(names) > self.max_classes else ""
            share = shares[number] if shares else ""
            rows.append(_Row(str(number), str(len(names)), share, shown + more))
        return rows

    def _header(self) -> _Row:
        return _Row(
            "group", "classes", "" if self.inside is None else "inside", "members"
        )

    def __str__(self) -> str:
        rows = [self._header(), *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = []
        for row in rows:
            cells = [
                cell.rjust(width)
                for cell, width in zip(row[:3], widths, strict=True)
                if width
            ]
            start = "  ".join(cells) + "  "
            lines += textwrap.wrap(
                row.members,
                width=max(88, len(start) + 20),
                initial_indent=start,
                subsequent_indent=" " * len(start),
            )
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the table as HTML."""
        columns = [0, 1, 3] if self.inside is None else [0, 1, 2, 3]

        def line(row: _Row, tag: str) -> str:
            cells = "".join(
                f'<{tag} style="text-align: {"left" if column == 3 else "right"}">'
                f"{html.escape(row[column])}</{tag}>"
                for column in columns
            )
            return f"<tr>{cells}</tr>"

        body = "".join(line(row, "td") for row in self._rows())
        return (
            f"<table><thead>{line(self._header(), 'th')}</thead>"
            f"<tbody>{body}</tbody></table>"
        )


def _confusions_inside(
    confusion: Any, labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum each class's confusions, both ways: those within its group, and all."""
    pairs = confusion.tocoo()
    row, column = pairs.coords
    wrong = row != column
    row, column, value = row[wrong], column[wrong], pairs.data[wrong]
    same = labels[row] == labels[column]
    n_classes = labels.size
    sums = [
        np.bincount(row[kept], value[kept], n_classes)
        + np.bincount(column[kept], value[kept], n_classes)
        for kept in (same, np.ones_like(same))
    ]
    return np.asarray(sums[0], float), np.asarray(sums[1], float)
