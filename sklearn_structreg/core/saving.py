"""Fitted estimators in files: safetensors and JSON, and no code."""

from __future__ import annotations

import copy
import os
import warnings
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sklearn_structreg.core.modules import ModuleLike
from sklearn_structreg.core.net import StructuredNet
from sklearn_structreg.core.plain_values import from_plain, to_plain
from sklearn_structreg.core.sequence import RegularizerSequence
from sklearn_structreg.core.state_files import read_state, write_state
from sklearn_structreg.core.training import make_net
from sklearn_structreg.core.versions import versions, warn_of_other_versions

__all__ = ["Savable"]

FORMAT = 1
SAMPLE_ROWS = 2  # zeros, shown to a network that is built again
# Code of these is not written: their defaults take its place.
MAY_HOLD_CODE = ("callbacks", "criterion", "lr_schedule", "optimizer")
WIDTHS = (
    *("in_features", "out_features", "in_channels", "out_channels", "num_features"),
    *("num_channels", "num_parameters", "groups", "num_groups"),
)
State = dict[str, Any]


class Savable:
    """Mixin of estimators: `save` and `load`."""

    net_: StructuredNet
    input_shape_: tuple[int, ...]
    module: Any
    get_params: Any
    _structure: ClassVar[tuple[str, ...]]
    _built_by: State
    _make_recipe: Any
    _rebuild: Any

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
        FileNotFoundError
            If there is no such folder.
        TypeError
            If a parameter or a regularizer is of a class that a file cannot name.
        ValueError
            If the network is not one that `load` could build.

        See Also
        --------
        load : Reads it.

        Notes
        -----
        Functions are not written: a `module` of your own is passed to `load`, and
        `callbacks`, and a `criterion`, `lr_schedule` or `optimizer` of your own, are
        back at their defaults there.
        """
        check_is_fitted(self, "net_")
        folder = Path(path).absolute().parent
        if not folder.is_dir():
            raise FileNotFoundError(
                f"There is no folder {str(folder)!r} to save to; make it first."
            )
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
            If the file is damaged, holds another class, or has a newer format; or if
            `module` is missing or does not fit.

        Warns
        -----
        InconsistentVersionWarning
            If it was saved with other versions of this package, torch or scikit-learn.
        """
        state, where = read_state(path), f"The file {str(path)!r}"
        if not isinstance(state, dict) or "estimator" not in state:
            raise ValueError(f"{where} holds no estimator.")
        if state["format"] > FORMAT:
            raise ValueError(
                f"{where} has format {state['format']}, and this version reads formats "
                f"up to {FORMAT}; update sklearn-structreg."
            )
        name, own = state["estimator"], cls.__name__
        if name != own:
            raise ValueError(f"{where} holds a {name}; use {name}.load.")
        if state["own_module"] and module is None:
            raise ValueError(
                f"{where} holds the weights of a module of your own, but not its code; "
                f"pass it, as in {own}.load(path, module=...)."
            )
        if module is not None and not state["own_module"]:
            raise ValueError(
                f"{where} holds a network of this package; leave module out."
            )
        warn_of_other_versions(name, state["versions"])
        return cls._from_state(state, module)

    # ---- an estimator as plain values ------------------------------------------

    def _to_state(self) -> State:
        """Return all that makes this fitted estimator."""
        parameters = self._plain_parameters()
        network = network_state(self.net_)
        skeleton = self._skeleton(self.net_.regularizers, network)
        before, after = widths(skeleton), network["widths"]
        if list(before) != list(after):
            raise ValueError(
                f"The network has the layers {[*after]}, but those of a new fit would "
                f"be {[*before]}; pickle this estimator instead."
            )
        network["compacted"] = before != after
        fill(skeleton, network)  # now is the time to say that it cannot be loaded
        return {
            "format": FORMAT,
            "estimator": type(self).__name__,
            "versions": versions(),
            "own_module": self._own_module() is not None,
            "parameters": parameters,
            "built_by": {
                name: to_plain(value, name)
                for name, value in self._built_by.items()
                if value is not getattr(self, name) and is_written(name, value)
            },
            "fitted": self._plain_fitted(),
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
        network = fill(estimator._skeleton(regularizers, saved), saved)
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
            net.optimizer_.load_state_dict(saved["optimizer"])
        estimator.net_ = net
        return estimator

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
        others = {"net_", "_built_by", *self.get_params(deep=False)}
        return {name: v for name, v in vars(self).items() if name not in others}

    def _restore(self, fitted: State, module: ModuleLike | None) -> None:
        """Take the fitted attributes; `module` is the user's own."""
        vars(self).update(fitted)

    def _own_module(self) -> ModuleLike | None:
        """Return the user's own module, if the network was built of one."""
        module: ModuleLike = self._built_by["module"]
        return None if isinstance(module, str) else module

    def _skeleton(self, regularizers: RegularizerSequence, network: State) -> nn.Module:
        """Build the network as in the first fit, with weights of no meaning."""
        builder = copy.copy(self)
        vars(builder).update(self._built_by)
        dtype = getattr(torch, network["dtype"])
        sample = torch.zeros(SAMPLE_ROWS, *self.input_shape_, dtype=dtype)
        attached = RegularizerSequence([*regularizers.items()])  # of clones
        with warnings.catch_warnings(action="ignore"):  # they came in the fit
            module: nn.Module = builder._rebuild(sample, attached, network["seed"])
        return module


def is_written(name: str, value: Any) -> bool:
    """Whether this is any parameter but a module of the user's own."""
    return name != "module" or isinstance(value, str)


def network_state(net: StructuredNet) -> State:
    """Return all that makes a trained net, but for its skeleton."""
    module, optimizer = net.module_, net.optimizer_
    recipe = {}
    for field in fields(net.recipe):
        with suppress(TypeError):  # code, or the task, which follows from the targets
            recipe[field.name] = to_plain(getattr(net.recipe, field.name), field.name)
    trained = bool(optimizer.state) and "optimizer" in recipe
    return {
        "tensors": dict(module.state_dict()),
        "frozen": [n for n, p in module.named_parameters() if not p.requires_grad],
        "widths": widths(module),
        "compacted": False,
        "dtype": str(next(module.parameters()).dtype).removeprefix("torch."),
        "regularizers": {
            name: {
                "object": to_plain(regularizer, name),
                "fitted": regularizer.fitted_state(),
            }
            for name, regularizer in net.regularizers.items()
        },
        "recipe": recipe,
        "seed": net.seed,
        "history": list(net.history),
        "best_figures": net._best_figures,
        "optimizer": optimizer.state_dict() if trained else None,
    }


def widths(module: nn.Module) -> dict[str, dict[str, int]]:
    """Return the numbers of inputs, outputs and groups of every layer."""
    return {
        name: {key: getattr(layer, key) for key in WIDTHS if hasattr(layer, key)}
        for name, layer in module.named_modules()
    }


def fill(module: nn.Module, network: State) -> nn.Module:
    """Give a skeleton the saved weights; after compaction its layers are smaller."""
    if network["compacted"]:
        resize(module, network)
    try:
        module.load_state_dict(network["tensors"])
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip().rstrip(". ")
        raise ValueError(
            f"The weights do not fit the network that the parameters make: {reason}."
        ) from error
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in network["frozen"])
    return module.eval()


def resize(module: nn.Module, network: State) -> None:
    """Make layers as wide as in the saved network."""
    for name, layer in module.named_modules():
        for key, value in network["widths"].get(name, {}).items():
            if getattr(layer, key) != value:
                setattr(layer, key, value)
        for key in {*layer._parameters, *layer._buffers}:
            saved = network["tensors"].get(f"{name}.{key}".lstrip("."))
            if saved is None or same_shape(getattr(layer, key), saved):
                continue
            if key in layer._parameters:
                saved = nn.Parameter(saved.clone())
            setattr(layer, key, saved)


def same_shape(one: Tensor | None, two: Tensor) -> bool:
    """Compare a layer's tensor, which may be absent, with a saved one."""
    return one is not None and one.shape == two.shape
