"""The package's version, and a warning where an estimator comes from another one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import sklearn
import torch
from sklearn.exceptions import InconsistentVersionWarning

__all__ = ["VersionedPickle", "__version__", "versions", "warn_of_other_versions"]

__version__ = "0.1.0"
KEY = "_versions"


class OtherVersionWarning(InconsistentVersionWarning):
    """scikit-learn's warning, with the versions that differ."""

    def __init__(self, name: str, saved: Mapping[str, str]) -> None:
        current = versions()
        self.differing = [
            f"{package} {saved.get(package, 'of an unknown version')} (now {now})"
            for package, now in current.items()
            if saved.get(package) != now
        ]
        super().__init__(
            estimator_name=name,
            current_sklearn_version=current["scikit-learn"],
            original_sklearn_version=saved.get("scikit-learn", "unknown"),
        )

    def __str__(self) -> str:
        return (
            f"This {self.estimator_name} was saved with {', '.join(self.differing)}; "
            "compare its predictions with those of then, or fit it anew."
        )


def versions() -> dict[str, str]:
    """Return the versions that a saved estimator may depend on, builds left out."""
    return {
        "sklearn-structreg": __version__,
        "torch": torch.__version__.partition("+")[0],
        "scikit-learn": sklearn.__version__,
    }


def warn_of_other_versions(name: str, saved: Mapping[str, str]) -> None:
    """Warn once of all versions that are not those of now."""
    if saved != versions():
        warnings.warn(OtherVersionWarning(name, saved), stacklevel=3)


class VersionedPickle:
    """Mixin: pickles carry versions, and warn where these are others."""

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {**state, KEY: versions()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        warn_of_other_versions(type(self).__name__, state.pop(KEY, {}))
        vars(self).update(state)
