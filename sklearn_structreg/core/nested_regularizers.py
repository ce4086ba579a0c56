"""The regularizers of an estimator: those of its method, and those in a parameter."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar, Self

from sklearn.base import BaseEstimator

from sklearn_structreg.core.options import Training
from sklearn_structreg.core.regularizer import Regularizer
from sklearn_structreg.core.sequence import (
    RegularizerSequence,
    name_of,
    named_regularizers,
)

__all__ = ["NestedRegularizers"]

PREFIX = "regularizers__"


class NestedRegularizers(BaseEstimator):
    """Mixin of estimators: ``regularizers__<name>__<parameter>``, as in a pipeline.

    A method's estimator names its regularizers in `_regularizers` and has their
    parameters as its own.
    """

    regularizers: Any
    training: Training | None
    _regularizers: ClassVar[tuple[type[Regularizer], ...]] = ()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with `deep` also those of the regularizers.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include ``regularizers__<name>`` and their parameters.

        Returns
        -------
        dict
        """
        params: dict[str, Any] = super().get_params(deep)
        pairs: list[tuple[str, Regularizer]] = []
        with suppress(ValueError):  # bad ones are for `fit` to complain about
            pairs = named_regularizers(self.regularizers) if deep else []
        for name, regularizer in pairs:
            params[PREFIX + name] = regularizer
            for key, value in regularizer.get_params().items():
                params[f"{PREFIX}{name}__{key}"] = value
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters of this estimator and of its regularizers.

        Parameters
        ----------
        **params : dict
            ``regularizers__<name>`` replaces one of `regularizers`,
            ``regularizers__<name>__<parameter>`` sets a parameter of it.

        Returns
        -------
        self : object
        """
        nested = {k: v for k, v in params.items() if k.startswith(PREFIX)}
        if self.training is None and any(k.startswith("training__") for k in params):
            self.training = Training()
        super().set_params(**{k: v for k, v in params.items() if k not in nested})
        for key in sorted(nested, key=lambda key: key.count("__")):
            name, _, inner = key.removeprefix(PREFIX).partition("__")
            pairs = named_regularizers(self.regularizers)
            at = next((i for i, pair in enumerate(pairs) if pair[0] == name), None)
            if at is None:
                raise ValueError(
                    f"Invalid parameter {key!r}: regularizers holds "
                    f"{[pair[0] for pair in pairs]}, but no {name!r}."
                )
            if inner:
                pairs[at][1].set_params(**{inner: nested[key]})
            else:
                pairs[at] = (name, nested[key])
                self.regularizers = pairs
        return self

    def _make_regularizers(self) -> RegularizerSequence:
        """Gather the regularizers: the estimator's own, then the added ones."""
        pairs = [
            (
                name_of(kind),
                kind(**{key: getattr(self, key) for key in kind._get_param_names()}),
            )
            for kind in self._regularizers
        ]
        taken = [name for name, _ in pairs]
        for name, regularizer in named_regularizers(self.regularizers):
            pairs.append((f"{name}-2" if name in taken else name, regularizer))
        return RegularizerSequence(pairs)
