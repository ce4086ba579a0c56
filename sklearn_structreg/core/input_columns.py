"""The columns of a table that the file of a pipeline takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import check_array

from sklearn_structreg.core.messages import explaining

__all__ = ["InputColumns"]

NO_NUMBERS = (
    "A file takes numbers alone, and rows of check hold others ({}); leave these out, "
    "or fit on a DataFrame with names, of which a file takes the columns in use."
)


@dataclass(frozen=True)
class InputColumns:
    """The columns of a table that the file of a pipeline takes.

    Attributes
    ----------
    positions : ndarray of int
        Ascending.
    n_features : int
        Columns that the pipeline takes.
    names : ndarray of str or None
        Names of all columns, where the pipeline finds its own by them.
    """

    positions: NDArray[np.intp]
    n_features: int
    names: NDArray[Any] | None = None

    def of(self, X: Any) -> NDArray[np.float64]:
        """Return rows for the file from those for the pipeline."""
        dense: Any = X.toarray() if issparse(X) else X  # type: ignore[attr-defined]
        if self.names is not None and hasattr(X, "columns"):
            dense = X[self.names[self.positions].tolist()]
        elif len(self.positions) < self.n_features:
            dense = np.asarray(dense)[:, self.positions]
        with explaining(NO_NUMBERS):
            rows: NDArray[np.float64] = check_array(
                dense, dtype=np.float64, ensure_all_finite=False
            )
        return rows

    def around(self, rows: NDArray[np.float64]) -> Any:
        """Return rows for the pipeline; zero in the columns that are not taken."""
        table = np.zeros((len(rows), self.n_features))
        table[:, self.positions] = rows
        if self.names is None:
            return table
        import pandas as pd  # a ColumnTransformer finds names in a table alone

        return pd.DataFrame(table, columns=self.names)
