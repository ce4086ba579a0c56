"""Smaller networks out of fitted estimators, and reports on their size."""

from __future__ import annotations

import copy
import itertools
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.utils.data import Dataset

from sklearn_structreg.compaction import SizeReport, compact, size_report
from sklearn_structreg.core.checks import is_integer
from sklearn_structreg.core.device import dtype_name
from sklearn_structreg.core.insertion import insert_layer, simplify_inserted
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.regularizer import Regularizer
from sklearn_structreg.core.sequence import RegularizerSequence
from sklearn_structreg.core.standardization import (
    Standardize,
    fold_standardization,
    take_standardization,
)
from sklearn_structreg.core.training import make_net

__all__ = ["Compactable"]

# attributes that do not follow from the network
SEEN = ("n_features_in_", "feature_names_in_", "input_shape_", "_metadata_request")


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
    _as_plain: Any
    _skeleton: Any
    _built_by: dict[str, Any]
    # whether its network is another one than the parameters describe
    _composes_networks: ClassVar[bool] = False

    def simplified_module(self) -> nn.Module:
        """Return a plain network with the same outputs as the trained one.

        Masks are folded into weights, and layers that act in training only are gone.

        Returns
        -------
        torch.nn.Module
            A copy, in evaluation mode.
        """
        return self._plain_network()

    def _plain_network(self, dtype: torch.dtype | None = None) -> nn.Module:
        """Simplify the network; with `dtype` in this precision, and on the CPU."""
        module, first = self._simplify()
        if first is not None:
            insert_layer(module, *first, before=True)
        if dtype is not None:
            module = module.to("cpu", dtype)
        return fold_standardization(module)

    def _simplify(self) -> tuple[nn.Module, tuple[str, Standardize] | None]:
        """Copy and simplify the network; take the standardizing layer out of it."""
        check_is_fitted(self, "net_")
        module = copy.deepcopy(self.module_)
        first = take_standardization(module)
        return simplify_inserted(self.regularizers_.simplify(module)), first

    def compact(self, *, unsupported: str = "raise") -> Any:
        """Return a fitted estimator with a physically smaller network.

        It predicts as this one does. Units and channels that no layer reads go, and
        those that are constant are folded into biases: see
        :func:`~sklearn_structreg.compaction.compact`.

        Parameters
        ----------
        unsupported : {"raise", "keep"}, default="raise"
            Whether layers without a rule of compaction are an error, or stay as they
            are.

        Returns
        -------
        estimator
            With the smaller network as `module_`. `partial_fit` and warm starts go on
            with it and a new optimizer; `fit` begins with the whole network again. It
            is of this class, or a `StructuredClassifier` or `StructuredRegressor`
            without regularizers where these have layers in the network, which are gone.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the network cannot be compacted, by the layer's name.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from sklearn_structreg import CGESClassifier
        >>> X, y = load_digits(return_X_y=True)
        >>> net = CGESClassifier(
        ...     alpha=0.7, penalty="group", max_epochs=20, random_state=0
        ... ).fit(X, y)
        >>> smaller = net.compact()
        >>> smaller.module_[0].out_features < net.module_[0].out_features
        True
        >>> smaller.score(X, y) == net.score(X, y) > 0.95
        True
        """
        check_is_fitted(self, "net_")
        self._check_one_network()
        return self._compacted(unsupported)

    def _check_one_network(self) -> None:
        """Refuse predictions that are not those of one network for all samples."""

    def _compacted(self, unsupported: str) -> Any:
        """Return an estimator like this one with the compacted network."""
        network, first = self._simplify()
        network = compact(network, self._sample(), unsupported=unsupported).eval()
        goes_on = self._keeps_its_layers()
        smaller: Any = copy.copy(self) if goes_on else self._as_plain()
        if self._composes_networks and not goes_on:
            smaller.module, smaller.module_params = copy.deepcopy(network), None
            smaller.standardize = first is not None
            smaller._note_structure()
        if first is not None:
            insert_layer(network, *first, before=True)
        regularizers = smaller._make_regularizers()
        if goes_on:
            network = regularizers.resume(self.regularizers_, network, self.net_.seed)
        smaller.net_ = make_net(
            network,
            regularizers,
            smaller._make_recipe(),
            seed=self.net_.seed,
            history=self.history_,
        )
        return smaller

    def _keeps_its_layers(self) -> bool:
        """Whether the regularizers can go on where their own layers are gone."""
        return not self._composes_networks and all(
            type(each).simplify is Regularizer.simplify
            for each in self.regularizers_.values()
        )

    def _copy_as(self, kind: Any, *fitted: str) -> Any:
        """Return an estimator of another class with the parameters and targets."""
        names = {*kind._get_param_names()} - {"regularizers"}
        result = kind(**{name: getattr(self, name) for name in names})
        for name in (*fitted, *SEEN):
            if name in vars(self):
                setattr(result, name, vars(self)[name])
        result._note_structure()
        known = {*result._structure} & {*self._built_by}
        result._built_by |= {name: self._built_by[name] for name in known}
        return result

    def size_report(
        self,
        X: ArrayLike | Dataset[Any],
        *,
        batch_size: int = 128,
        n_repeats: int = 21,
        unsupported: str = "raise",
    ) -> SizeReport:
        """Report the size of the plain, the trained and the compacted network.

        The plain one is as the parameters describe it, without regularizers, and
        without heads. Counted are parameters, operations, the bytes of a file and the
        time of a prediction.

        Parameters
        ----------
        X : as in `fit`
            Samples to run the network on.
        batch_size : int, default=128
            Latency is measured on the first so many samples at once.
        n_repeats : int, default=21
            How often the networks are timed, in turns; 0 leaves latency out.
        unsupported : {"raise", "keep"}, default="raise"
            As in `compact`.

        Returns
        -------
        SizeReport
            Prints as a table; see :func:`~sklearn_structreg.compaction.size_report`.
            :class:`~sklearn_structreg.core.SizeDisplay` draws it.
        """
        data, spec = self._samples_to_predict(X)
        if not is_integer(batch_size):
            raise ValueError(f"batch_size={batch_size!r} must be a positive integer.")
        left_out = [r.left_out() for r in self.regularizers_.values()]
        sample = data.first_rows(int(batch_size), spec).to(spec.dtype)
        return size_report(
            self.simplified_module(),
            sample,
            plain=fold_standardization(self._untrained_network()).to(sample),
            n_repeats=n_repeats,
            unsupported=unsupported,
            left_out=list(dict.fromkeys(itertools.chain(*left_out))),
        )

    def _untrained_network(self) -> nn.Module:
        """Build the network as the first fit did, without regularizers."""
        dtype = dtype_name(next(self.module_.parameters()).dtype)
        settings = {"dtype": dtype, "seed": self.net_.seed}
        network: nn.Module = self._skeleton(RegularizerSequence(), settings)
        return network.eval()

    def _sample(self) -> Tensor:
        """Return a few random samples on the network's device."""
        parameter = next(self.module_.parameters())
        generator = torch.Generator().manual_seed(0)
        return torch.randn(4, *self.input_shape_, generator=generator).to(parameter)
