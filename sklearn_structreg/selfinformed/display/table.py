"""A table of groups with their class names, as the paper's Table 1."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from sklearn_structreg.core.checks import check_integer
from sklearn_structreg.selfinformed.labels import check_names

__all__ = ["GroupTable"]


@dataclass(eq=False, repr=False)
class GroupTable:
    """The groups of a partition, as text and, in a notebook, as HTML.

    Parameters
    ----------
    clusters : sequence of array-like
        The names of each group's classes, in the order to show them.
    inside : sequence of float of shape (n_clusters,), in [0, 1], default=None
        For each group the share of its classes' confusions that stay inside of it.
    max_classes : int, default=12
        Number of names to show of a group.

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

    clusters: Sequence[ArrayLike]
    _: KW_ONLY
    inside: Sequence[float] | None = None
    max_classes: int = 12

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_integer("max_classes", self.max_classes)
        if self.inside is not None and len(self.inside) != len(self.clusters):
            raise ValueError(
                f"inside holds {len(self.inside)} shares for {len(self.clusters)} "
                "clusters; give one for each."
            )

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
            Number of names to show of a group.

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
        names, labels = check_names(names, partition.classes_), partition.labels_
        together, total = _confusions_inside(partition.confusion_, labels)
        clusters, inside = [], []
        for group in range(partition.n_clusters_):
            members = np.flatnonzero(labels == group)
            by_confusion = np.argsort(-together[members], kind="stable")
            clusters.append(names[members[by_confusion]])
            inside.append(together[members].sum() / max(total[members].sum(), 1e-300))
        return cls(clusters, inside=inside, max_classes=max_classes)

    def _cells(self) -> list[list[str]]:
        """Write the header and a row for each group."""
        rows = [["group", "classes", "inside", "members"]]
        inside = [0.0] * len(self.clusters) if self.inside is None else self.inside
        for cluster, share in zip(self.clusters, inside, strict=True):
            names = [str(name) for name in np.asarray(cluster)]
            shown = ", ".join(names[: self.max_classes])
            more = ", ..." if len(names) > self.max_classes else ""
            number = str(len(rows) - 1)
            rows.append([number, str(len(names)), f"{share:.0%}", shown + more])
        if self.inside is None:
            rows = [[number, size, members] for number, size, _, members in rows]
        return rows

    def __str__(self) -> str:
        rows = self._cells()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for *cells, members in rows:
            pairs = zip(cells, widths, strict=False)
            start = "".join(cell.rjust(width) + "  " for cell, width in pairs)
            lines += textwrap.wrap(
                members,
                width=max(88, len(start) + 20),
                initial_indent=start,
                subsequent_indent=" " * len(start),
            )
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Write the table as HTML."""

        def line(row: list[str], tag: str) -> str:
            sides = ["right"] * (len(row) - 1) + ["left"]
            cells = "".join(
                f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
                for cell, side in zip(row, sides, strict=True)
            )
            return f"<tr>{cells}</tr>"

        header, *rows = self._cells()
        body = "".join(line(row, "td") for row in rows)
        return (
            f"<table><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>"
        )


def _confusions_inside(
    confusion: Any, labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum the confusions of each class, both ways: within its group, and all."""
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
