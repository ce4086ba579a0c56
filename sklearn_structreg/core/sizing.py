"""Smaller networks out of fitted estimators, and reports on their size."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.utils.data import Dataset

from sklearn_structreg.compaction import SizeReport, compact, size_report
from sklearn_structreg.core.checks import is_integer
from sklearn_structreg.core.insertion import insert_layer, simplify_inserted
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.regularizer import Regularizer
from sklearn_structreg.core.standardization import (
    Standardize,
    fold_standardization,
    take_standardization,
)
from sklearn_structreg.core.training import make_net

__all__ = ["Compactable"]


class Compactable:
    """Mixin of estimators: `simplified_module`, `compact` and `size_report`."""

    net_: StructuredNet
    module_: Any
    regularizers_: Any
    history_: Any
    input_shape_: tuple[int, ...]
    _make_regularizers: Any
    _make_recipe: Any
    _samples_to_predict: Any

    def simplified_module(self) -> nn.Module:
        """Return a plain network with the same outputs as the trained one.

        Masks are folded into weights, and layers that act in training only are gone.

        Returns
        -------
        torch.nn.Module
            A copy, in evaluation mode.
        """
        module, first = self._simplify()
        if first is not None:
            insert_layer(module, *first, before=True)
        return fold_standardization(module)

    def _simplify(self) -> tuple[nn.Module, tuple[str, Standardize] | None]:
        """Copy and simplify the network; take the standardizing layer out of it."""
        check_is_fitted(self, "net_")
        module = copy.deepcopy(self.module_)
        first = take_standardization(module)
        return simplify_inserted(self.regularizers_.simplify(module)), first

    def compact(
        self, *, in_place: bool = False, unsupported: str = "raise"
    ) -> torch.nn.Module:
        """Return a physically smaller network with the same outputs.

        Units and channels that no layer reads go, and those that are constant are
        folded into biases: see :func:`~sklearn_structreg.compaction.compact`.

        Parameters
        ----------
        in_place : bool, default=False
            Whether the estimator takes up the smaller network, too. It predicts as
            before, `module_` and all figures of it are smaller, and `partial_fit` and
            warm starts go on with the smaller network and a new optimizer.
        unsupported : {"raise", "keep"}, default="raise"
            Whether layers without a rule of compaction are an error, or stay as they
            are.

        Returns
        -------
        torch.nn.Module
            On the device of `module_`, in evaluation mode.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the network cannot be compacted, by the layer's name; and with `in_place`
            if a regularizer has layers in the network.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from sklearn_structreg import CGESClassifier
        >>> X, y = load_digits(return_X_y=True)
        >>> net = CGESClassifier(
        ...     alpha=0.7, penalty="group", max_epochs=20, random_state=0
        ... ).fit(X, y)
        >>> smaller = net.compact()
        >>> smaller[0].out_features < net.module_[0].out_features
        True
        >>> bool(net.score(X, y) > 0.95)
        True
        """
        network, first = self._simplify()
        smaller = compact(network, self._sample(), unsupported=unsupported).eval()
        if first is not None:
            insert_layer(smaller, *first, before=True)
        if in_place:
            self._check_simple()
            self._take_up(copy.deepcopy(smaller), unsupported)
        return fold_standardization(smaller)

    def _take_up(self, smaller: nn.Module, unsupported: str) -> None:
        """Go on with a smaller network, and `unsupported` layers as before."""
        regularizers = self._make_regularizers()
        module = regularizers.resume(self.regularizers_, smaller, self.net_.seed)
        self.net_ = make_net(
            module,
            regularizers,
            self._make_recipe(),
            seed=self.net_.seed,
            history=self.history_,
        )

    def _check_simple(self) -> None:
        """Refuse to go on training where simplifying has taken layers away."""
        for name, regularizer in self.regularizers_.items():
            if type(regularizer).simplify is not Regularizer.simplify:
                raise ValueError(
                    f"in_place=True cannot go on with the layers of {name!r}, which a "
                    "compacted network no longer has; take the network that compact() "
                    "returns."
                )

    def size_report(
        self,
        X: ArrayLike | Dataset[Any],
        *,
        batch_size: int = 128,
        n_repeats: int = 21,
        unsupported: str = "raise",
    ) -> SizeReport:
        """Report how large the network is: weights not zero, compacted, and latency.

        Parameters
        ----------
        X : as in `fit`
            Samples to run the network on.
        batch_size : int, default=128
            Latency is measured on the first so many samples at once.
        n_repeats : int, default=21
            How often the network and the compacted one are timed, in turns; 0 leaves
            latency out.
        unsupported : {"raise", "keep"}, default="raise"
            As in `compact`.

        Returns
        -------
        SizeReport
            Prints as a table; see :func:`~sklearn_structreg.compaction.size_report`.
        """
        data, spec = self._samples_to_predict(X)
        if not is_integer(batch_size):
            raise ValueError(f"batch_size={batch_size!r} must be a positive integer.")
        left_out = [r.left_out() for r in self.regularizers_.values()]
        return size_report(
            self.simplified_module(),
            data.first_rows(int(batch_size), spec).to(spec.dtype),
            n_repeats=n_repeats,
            unsupported=unsupported,
            left_out=list(dict.fromkeys(itertools.chain(*left_out))),
        )

    def _sample(self) -> Tensor:
        """Return a few random samples on the network's device."""
        parameter = next(self.module_.parameters())
        generator = torch.Generator().manual_seed(0)
        return torch.randn(4, *self.input_shape_, generator=generator).to(parameter)
