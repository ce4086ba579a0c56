"""Several regularizers as one, in the order of a list, with names as in a Pipeline."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from sklearn.base import clone
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from sklearn_structreg.core.randomness import derive_seed, seeded
from sklearn_structreg.core.regularizer import Regularizer, same_value

__all__ = ["RegularizerSequence", "name_of", "named_regularizers"]


def named_regularizers(regularizers: Any) -> list[tuple[str, Regularizer]]:
    """Check a `regularizers` parameter and name its entries as `make_pipeline` does.

    Raises
    ------
    ValueError
        If an entry is no regularizer, or a name is not unique or holds ``"__"``.
    """
    if regularizers is None:
        return []
    if not isinstance(regularizers, list | tuple):
        raise ValueError(
            f"regularizers={regularizers!r} must be a list of regularizers, or of "
            "(name, regularizer) pairs."
        )
    pairs: list[tuple[str, Regularizer]] = []
    for entry in regularizers:
        pair = entry if isinstance(entry, tuple) and len(entry) == 2 else ("", entry)
        if not isinstance(pair[1], Regularizer) or not isinstance(pair[0], str):
            raise ValueError(
                f"regularizers holds {entry!r}, which is no regularizer; give "
                "instances such as CGES(alpha=0.05), or (name, regularizer) pairs."
            )
        pairs.append(pair)
    names = _unique([name or name_of(type(r)) for name, r in pairs], pairs)
    for name in names:
        if "__" in name or names.count(name) > 1:
            raise ValueError(
                f"regularizers holds the name {name!r} more than once, or with a "
                "double underscore; give each a name of its own."
            )
    return [(name, pair[1]) for name, pair in zip(names, pairs, strict=True)]


def name_of(kind: type[Regularizer]) -> str:
    """Return the automatic name of a regularizer."""
    return kind.__name__.lower()


def _unique(names: list[str], pairs: Sequence[tuple[str, Any]]) -> list[str]:
    """Add numbers to automatic names that occur more than once: cges-1, cges-2."""
    result = list(names)
    for name in set(names):
        at = [i for i, n in enumerate(names) if n == name and not pairs[i][0]]
        if len(at) > 1:
            for number, i in enumerate(at, start=1):
                result[i] = f"{name}-{number}"
    return result


class RegularizerSequence(Mapping[str, Regularizer]):
    """Regularizers by name; every hook runs in order, each on the last one's result.

    Parameters
    ----------
    pairs : sequence of (str, Regularizer)
        They are cloned: results of a training stay here.
    """

    def __init__(self, pairs: Sequence[tuple[str, Regularizer]] = ()) -> None:
        self._by_name = {name: clone(regularizer) for name, regularizer in pairs}

    def __getitem__(self, name: str) -> Regularizer:
        regularizer: Regularizer = self._by_name[name]
        return regularizer

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._by_name})"

    def has_parameters_of(self, other: RegularizerSequence) -> bool:
        """Whether both are the same regularizers with the same parameters."""
        return self._kinds() == other._kinds() and all(
            same_value(value, other[name].get_params(deep=False)[key])
            for name, regularizer in self.items()
            for key, value in regularizer.get_params(deep=False).items()
        )

    def _kinds(self) -> list[tuple[str, type]]:
        return [(name, type(regularizer)) for name, regularizer in self.items()]

    def attach(self, module: nn.Module, sample: Any, seed: int) -> nn.Module:
        """Attach all to a fresh network; their draws come from `seed`."""
        for regularizer in self.values():
            regularizer.check_parameters()
        # (seed, e) is epoch e's; zeros at the end would not tell two seeds apart.
        with seeded(derive_seed(seed, 0, 1), _device(module)):
            for regularizer in self.values():
                module = regularizer.attach(module, sample)
        return module

    def resume(
        self, previous: RegularizerSequence, module: nn.Module, seed: int
    ) -> nn.Module:
        """Take over from the regularizers that the network was trained with."""
        if self._kinds() != previous._kinds():
            before, now = (list(r) or "none" for r in (previous, self))
            raise ValueError(
                f"A warm start goes on with the network's own regularizers, {before}, "
                f"but now there are {now}; set them back, or set warm_start=False to "
                "fit anew."
            )
        for regularizer in self.values():
            regularizer.check_parameters()
        with seeded(derive_seed(seed, 0, 1), _device(module)):
            for name, regularizer in self.items():
                module = regularizer.resume(previous[name], module)
        return module

    def param_groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """Collect the parameter groups."""
        return [group for r in self.values() for group in r.param_groups(module)]

    def penalty(self, module: nn.Module) -> Tensor | None:
        """Add up the penalties; None without any."""
        terms = [r.penalty(module) for r in self.with_hook("penalty")]
        present = [term for term in terms if term is not None]
        return torch.stack(present).sum() if present else None

    @property
    def has_penalty_value(self) -> bool:
        """Whether there is a penalty that losses leave out."""
        return bool(self.with_hook("penalty_value"))

    def penalty_value(self, module: nn.Module) -> float:
        """Add up the penalties that losses leave out."""
        return sum(r.penalty_value(module) for r in self.with_hook("penalty_value"))

    def after_step(self, module: nn.Module, optimizer: Optimizer) -> None:
        """Let each act after an optimizer step."""
        for regularizer in self.with_hook("after_step"):
            regularizer.after_step(module, optimizer)

    def before_validation(self, module: nn.Module) -> None:
        """Let each settle the network after an epoch."""
        for regularizer in self.with_hook("before_validation"):
            regularizer.before_validation(module)

    def callbacks(self) -> list[tuple[str, Callback]]:
        """Collect the callbacks under unique names."""
        several = len(self) > 1
        return [
            (f"{name}_{key}" if several else key, callback)
            for name, regularizer in self.items()
            for key, callback in regularizer.callbacks()
        ]

    def schedule_starts(self, module: nn.Module, max_epochs: int) -> set[int]:
        """Collect the epochs at which a schedule begins anew."""
        each = (r.schedule_starts(module, max_epochs) for r in self.values())
        return {epoch for starts in each for epoch in starts}

    def simplify(self, module: nn.Module) -> nn.Module:
        """Return a plain network with the same outputs, made of a copy."""
        module = copy.deepcopy(module).eval()
        for regularizer in reversed(list(self.values())):
            module = regularizer.simplify(module)
        return module.eval()

    def with_hook(self, hook: str) -> list[Regularizer]:
        """Return those that override a hook: it is asked for at every step."""
        default = getattr(Regularizer, hook)
        return [r for r in self.values() if getattr(type(r), hook) is not default]


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
