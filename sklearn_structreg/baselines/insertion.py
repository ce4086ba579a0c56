"""A regularizer that consists of inserted layers."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval
from torch import nn

from sklearn_structreg.core.insertion import (
    InsertionPoint,
    find_insertion_point,
    first_tensor,
    insert_layer,
    inserted_layers,
    remove_layers,
)
from sklearn_structreg.core.parameters import component, parameter
from sklearn_structreg.core.regularizer import Regularizer, check_unchanged

__all__ = ["InsertedLayers", "rate_parameter"]


def rate_parameter(default: float, doc: str) -> Any:
    """Declare the parameter `drop_rate`."""
    return parameter(
        default,
        [Interval(Real, 0, 1, closed="left")],
        "float in [0, 1)",
        f"{doc}; 0 is the plain network, bit for bit.",
        kw_only=False,
    )


@component
class InsertedLayers(Regularizer):
    """Insert a dropping layer at one or several points of a network."""

    drop_rate: float = rate_parameter(0.1, "Share to drop")
    layers: str | Sequence[str] = parameter(
        "auto",
        [str, "array-like"],
        'str, sequence of str, or "auto"',
        """Names of layers, as in ``module_.named_modules()``, whose outputs are
        regularized, or "input". "auto" is the first convolution; without one it is the
        input, flat features being a chain in their order.""",
    )

    _min_pixels: ClassVar[int] = 1  # of the maps that are taken; 0 takes any tensor
    _structure: ClassVar[tuple[str, ...]] = ("layers",)
    _rate: ClassVar[str] = "drop_rate"  # name of a layer's attribute

    def attach(self, module: nn.Module, sample: Any) -> nn.Module:
        """Insert the layers."""
        points = self._find_points(module, sample)
        device = first_tensor(sample).device
        self.inserted_ = [
            insert_layer(
                module,
                point.layer,
                self._make_layer(point).to(device),
                before=point.before,
            )
            for point in points
        ]
        return module

    def resume(self, previous: Any, module: nn.Module) -> nn.Module:
        """Keep the layers, at the new rate."""
        check_unchanged(previous, self, self._structure)
        module = super().resume(previous, module)
        for layer in self._inserted(module):
            setattr(layer, self._rate, float(self.drop_rate))
        return module

    def simplify(self, module: nn.Module) -> nn.Module:
        """Take the layers out, which act in training only."""
        remove_layers(module, self._inserted(module))
        return module

    def _inserted(self, module: nn.Module) -> list[nn.Module]:
        """Return those of the inserted layers that are still there."""
        found = inserted_layers(module)
        return [found[name] for name in self.inserted_ if name in found]

    def _find_points(self, module: nn.Module, sample: Any) -> list[InsertionPoint]:
        names = [self.layers] if isinstance(self.layers, str) else list(self.layers)
        if not names:
            raise ValueError(
                f"layers of {type(self).__name__} is empty; name at least one, or set "
                "layers='auto'."
            )
        if names == ["auto"]:
            return self._find_auto(module, sample)
        return [self._find_point(module, str(name), sample) for name in names]

    def _find_point(self, module: nn.Module, name: str, sample: Any) -> InsertionPoint:
        return find_insertion_point(module, name, sample, self._min_pixels)

    def _find_auto(self, module: nn.Module, sample: Any) -> list[InsertionPoint]:
        return [self._find_point(module, "auto", sample)]

    def _make_layer(self, point: InsertionPoint) -> nn.Module:
        raise NotImplementedError  # abstract: each regularizer has its own layer
