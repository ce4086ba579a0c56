"""Fitted estimators in files: safetensors and JSON, and no code."""

from __future__ import annotations

import copy
import math
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn import config_context
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.device import resolve_dtype
from sklearn_structreg.core.modules import ModuleLike
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.net_state import fill, layers_of, network_state
from sklearn_structreg.core.optimizers import load_exactly
from sklearn_structreg.core.plain_values import from_plain, to_plain
from sklearn_structreg.core.recipe import TensorSpec
from sklearn_structreg.core.sequence import RegularizerSequence
from sklearn_structreg.core.state_files import (
    STATE,
    read_metadata,
    read_state,
    write_state,
)
from sklearn_structreg.core.task import Task
from sklearn_structreg.core.training import make_net
from sklearn_structreg.core.versions import versions, warn_of_other_versions

__all__ = [
    "PlainState",
    "Savable",
    "check_place_to_export",
    "check_place_to_save",
    "read_estimator",
]

FORMAT = 1
# Code of these is not written: their defaults take its place.
MAY_HOLD_CODE = ("callbacks", "criterion", "lr_schedule", "optimizer", "training")
FOR_OTHERS = (".onnx", ".pt2")  # formats of export
REQUESTS = "_metadata_request"
State = dict[str, Any]


class PlainState:
    """Mixin: the parameters and fitted attributes as plain values, and back."""

    get_params: Any
    _get_metadata_request: Any

    def _header(self) -> State:
        """Return the first entries of a file."""
        return {
            "format": FORMAT,
            "estimator": type(self).__name__,
            "versions": versions(),
        }

    def _plain_parameters(self, *left_out: str) -> State:
        """Return the parameters without those that hold code."""
        plain = {}
        for name, value in self.get_params(deep=False).items():
            if name in left_out or not is_written(name, value):
                continue
            try:
                plain[name] = to_plain(value, name)
            except TypeError:
                if name not in MAY_HOLD_CODE:
                    raise
        return plain

    def _plain_fitted(self) -> State:
        """Return the fitted attributes but for the net."""
        others = {"net_", "_built_by", REQUESTS, *self.get_params(deep=False)}
        fitted = {name: v for name, v in vars(self).items() if name not in others}
        if REQUESTS in vars(self):
            fitted[REQUESTS] = self._plain_requests()
        return fitted

    def _plain_requests(self) -> State:
        """Return the metadata that each method requests, if any were set."""
        if REQUESTS not in vars(self):
            return {}
        routing = self._get_metadata_request()
        return {
            method: {**getattr(routing, method).requests}
            for method in ("fit", "partial_fit", "score")
            if hasattr(self, f"set_{method}_request")
        }

    def _restore(self, fitted: State, module: ModuleLike | None) -> None:
        """Take the fitted attributes; `module` is the user's own."""
        self._restore_requests(fitted.pop(REQUESTS, {}))
        vars(self).update(fitted)

    def _restore_requests(self, requests: State) -> None:
        with config_context(enable_metadata_routing=True):
            for method, requested in requests.items():
                getattr(self, f"set_{method}_request")(**requested)


class Savable(PlainState):
    """Mixin of estimators: `save` and `load`."""

    net_: StructuredNet
    input_shape_: tuple[int, ...]
    module: Any
    _structure: ClassVar[tuple[str, ...]]
    _built_by: State
    _task: Any
    _n_outputs: Any
    _fresh_network: Any
    _make_recipe: Any

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a file that holds numbers and names, no code.

        Parameters
        ----------
        path : path-like
            The file. One that is there stays whole until the new one is.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        FileNotFoundError, IsADirectoryError
            If there is no such folder, or if the path is one.
        TypeError
            If a parameter or a regularizer is of a class that a file cannot name.
        ValueError
            If the network is not one that `load` could build, or if the path ends in
            ".onnx" or ".pt2", formats of `export`.

        See Also
        --------
        load : Reads it.

        Notes
        -----
        Functions are not written: a `module` of your own is passed to `load`, and
        `callbacks`, and a `criterion`, `lr_schedule`, `optimizer` or `training` with
        code of your own, are back at their defaults there.

        Examples
        --------
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from sklearn.datasets import load_wine
        >>> from sklearn_structreg import CGESClassifier
        >>> X, y = load_wine(return_X_y=True)
        >>> net = CGESClassifier(max_epochs=20, random_state=0).fit(X, y)
        >>> with TemporaryDirectory() as folder:
        ...     net.save(Path(folder) / "wine.safetensors")
        ...     loaded = CGESClassifier.load(Path(folder) / "wine.safetensors")
        >>> bool((loaded.predict_proba(X) == net.predict_proba(X)).all())
        True
        """
        check_is_fitted(self, "net_")
        check_place_to_save(path)
        with torch.inference_mode(False):  # a step of the training is tried
            write_state(path, self._to_state())

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], module: ModuleLike | None = None
    ) -> Self:
        """Read an estimator from a file that `save` has written.

        Nothing in the file is run as code. Tensors come on the CPU; predictions there
        are those of the saved estimator, bit for bit on the same machine.

        Parameters
        ----------
        path : path-like
            The file.
        module : torch.nn.Module class, instance or factory, default=None
            The saved estimator's parameter `module`, where that was not "auto". The
            weights come from the file.

        Returns
        -------
        self : object
            The fitted estimator. `partial_fit` and warm starts go on with it.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, is one of `export`, holds another class, or has a
            newer format; or if `module` is missing or does not fit.

        Warns
        -----
        InconsistentVersionWarning
            If it was saved with other versions of this package, torch or scikit-learn.
        """
        name, where = cls.__name__, f"The file {str(path)!r}"
        with torch.inference_mode(False):
            state = read_estimator(path, name)
            if state["own_module"] and module is None:
                raise ValueError(
                    f"{where} holds the weights of a module of your own, but not its "
                    f"code; pass it, as in {name}.load(path, module=...)."
                )
            if module is not None and not state["own_module"]:
                raise ValueError(
                    f"{where} holds a network of this package; leave module out."
                )
            warn_of_other_versions(name, state["versions"])
            return cls._from_state(state, module)

    # ---- an estimator as plain values ------------------------------------------

    def _to_state(self) -> State:
        """Return this fitted estimator as nested plain values."""
        parameters, fitted = self._plain_parameters(), self._plain_fitted()
        network = network_state(self.net_)
        skeleton = self._skeleton(self.net_.regularizers, network)
        network["compacted"] = layers_of(skeleton) != network["layers"]
        try:
            fill(skeleton, network)
        except ValueError as error:
            raise ValueError(
                "The network cannot be built again from the parameters, where "
                f"{error}; pickle the estimator instead."
            ) from error
        return self._header() | {
            "own_module": self._own_module() is not None,
            "parameters": parameters,
            "built_by": {
                name: to_plain(value, name)
                for name, value in self._built_by.items()
                if value is not getattr(self, name) and is_written(name, value)
            },
            "fitted": fitted,
            "network": network,
        }

    @classmethod
    def _from_state(cls, state: State, module: ModuleLike | None) -> Self:
        """Make the fitted estimator again."""
        estimator = cls(**from_plain(state["parameters"]))
        if state["own_module"] and "module" not in state["parameters"]:
            estimator.module = module
        estimator._restore(state["fitted"], module)
        built_by = {name: getattr(estimator, name) for name in cls._structure}
        estimator._built_by = built_by | from_plain(state["built_by"])

        saved = state["network"]
        parts = saved["regularizers"]
        regularizers = RegularizerSequence(
            [(name, from_plain(part["object"])) for name, part in parts.items()]
        )
        network = estimator._skeleton(regularizers, saved)
        try:
            fill(network, saved)
        except ValueError as error:
            raise ValueError(
                f"The weights in the file are of another network: {error}; pass the "
                "module that the estimator was fitted with."
            ) from error
        for name, part in parts.items():
            regularizers[name].restore(part["fitted"])
        recipe = replace(estimator._make_recipe(), **from_plain(saved["recipe"]))
        net = make_net(
            network,
            regularizers,
            recipe,
            seed=saved["seed"],
            history=saved["history"],
        )
        net._best_figures = saved["best_figures"]
        if saved["optimizer"] is not None:
            load_exactly(net.optimizer_, saved["optimizer"])
        estimator.net_ = net
        return estimator

    def _own_module(self) -> ModuleLike | None:
        """Return the user's own module, if the network was built of one."""
        module: ModuleLike = self._built_by["module"]
        return None if isinstance(module, str) else module

    def _skeleton(self, regularizers: RegularizerSequence, network: State) -> nn.Module:
        """Build the network as the first fit did, with weights of no meaning."""
        builder = copy.copy(self)
        vars(builder).update(self._built_by)
        dtype, cpu = network["dtype"], torch.device("cpu")
        spec = TensorSpec(self.input_shape_, resolve_dtype(dtype), cpu)
        one_label = self._task is Task.CLASSES
        data = TrainingData.from_arrays(  # two rows of zeros
            np.zeros((2, math.prod(self.input_shape_)), dtype),
            np.zeros(2, int) if one_label else np.zeros((2, self._n_outputs), dtype),
        )
        attached = RegularizerSequence([*regularizers.items()])  # of clones
        with warnings.catch_warnings(action="ignore"):  # they came in the fit
            module: nn.Module = builder._fresh_network(
                data, spec, attached, network["seed"]
            )
        return module


def check_place(path: str | os.PathLike[str]) -> None:
    """Refuse a path to which no file can be written."""
    folder = Path(path).absolute().parent
    if Path(path).is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; name a file in it.")
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {str(folder)!r} to save to; make it first."
        )


def check_place_to_save(path: str | os.PathLike[str]) -> None:
    """Refuse also a path that stands for a format of `export`."""
    check_place(path)
    ending = Path(path).suffix
    if ending.lower() in FOR_OTHERS:
        raise ValueError(
            f"save() writes a safetensors file, and {str(path)!r} ends in {ending!r}; "
            "end it in '.safetensors', or write that format by export()."
        )


def check_place_to_export(path: str | os.PathLike[str]) -> None:
    """Refuse also a file of `save`, as no export can be trained further."""
    check_place(path)
    if STATE in read_metadata(path):
        raise ValueError(
            f"The file {str(path)!r} was written by save(), and an export cannot be "
            "loaded in its place; choose another name, or delete that file first."
        )


def read_estimator(path: str | os.PathLike[str], name: str) -> State:
    """Return the state in a file, which must be of this estimator."""
    where, metadata = f"The file {str(path)!r}", read_metadata(path)
    if STATE not in metadata and "outputs" in metadata:
        raise ValueError(
            f"{where} was written by export() for other programs; load() reads files "
            "of save()."
        )
    state = read_state(path)
    if not isinstance(state, dict) or "estimator" not in state:
        raise ValueError(f"{where} holds no estimator.")
    if state["format"] > FORMAT:
        raise ValueError(
            f"{where} has format {state['format']}, and this version reads formats "
            f"up to {FORMAT}; update sklearn-structreg."
        )
    if state["estimator"] != name:
        other = state["estimator"]
        raise ValueError(f"{where} holds a {other}; use {other}.load.")
    return state


def is_written(name: str, value: Any) -> bool:
    """Whether this is any parameter but a module of the user's own."""
    return name != "module" or isinstance(value, str)
