"""A network with heads in a file: with the estimator inside of it, groups and gate."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.frozen import FrozenEstimator
from torch import nn

from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.modules import ModuleLike
from sklearn_structreg.core.plain_values import from_plain, known_classes
from sklearn_structreg.core.recipe import TensorSpec
from sklearn_structreg.core.sequence import RegularizerSequence
from sklearn_structreg.core.training import SAMPLE_ROWS
from sklearn_structreg.selfinformed.attachment import AttachmentPoint, point_of
from sklearn_structreg.selfinformed.augmentation import attach
from sklearn_structreg.selfinformed.ends import Rescaling
from sklearn_structreg.selfinformed.heads import AugmentedNet
from sklearn_structreg.selfinformed.network import (
    network_of,
    unwrap,
)
from sklearn_structreg.selfinformed.partition import ClassPartition
from sklearn_structreg.selfinformed.places import find_attachment_point
from sklearn_structreg.selfinformed.widths import Sizes, head_sizes

if TYPE_CHECKING:
    from sklearn_structreg.core import StructuredClassifier as Base
else:
    Base = object

__all__ = ["MultiplyAdds", "SavableHeads"]


class MultiplyAdds(NamedTuple):
    """Multiply-adds that one sample costs, before and after heads were added."""

    base: int
    augmented: int


class SavableHeads(Base):
    """Mixin: all that a file holds of a `SelfInformedClassifier`."""

    estimator: Any
    estimator_: Any
    partitions_: list[ClassPartition]
    multiply_adds_: MultiplyAdds
    layer: Any
    head_kernel_size: int | None
    fresh_classifier: bool
    head_layer_sizes: Any
    head_allocation: str
    head_layer_sizes_: list[Sizes]
    input_shape_: tuple[int, ...]
    classes_: NDArray[Any]
    budget: float
    _point: AttachmentPoint
    _gate: nn.Linear | Rescaling
    _frozen: bool

    def _plain_parameters(self, *left_out: str) -> dict[str, Any]:
        """Leave the estimator to the fitted attributes."""
        return super()._plain_parameters("estimator", *left_out)

    def _plain_fitted(self) -> dict[str, Any]:
        """Return the attributes, with estimators, groups and gate as plain values."""
        network, kind = self.estimator_, type(self.estimator_)
        if known_classes().get(kind.__name__) is not kind:
            raise TypeError(
                f"estimator_ is a {kind.__name__}, which a file cannot hold; "
                "pickle the estimator, or add heads to a classifier of this package."
            )
        return super()._plain_fitted() | {
            "estimator_": network._to_state(),
            "given": self._plain_given(),
            "partitions_": [plain_partition(each) for each in self.partitions_],
            "multiply_adds_": [*self.multiply_adds_],
            "_gate": {
                name: getattr(self._gate, name).detach()
                for name in ("weight", "bias")
                if getattr(self._gate, name) is not None
            },
            "_point": asdict(self._point),
            "head_layer_sizes_": [[*map(list, one)] for one in self.head_layer_sizes_],
        }

    def _plain_given(self) -> str | dict[str, Any] | None:
        """Return the parameter `estimator`: how it came fitted, or its parameters."""
        given = unwrap(self.estimator)
        if given is self.estimator_:
            return "fitted" if given is self.estimator else "frozen"
        return None if given is None else given._plain_parameters()

    def _restore(self, fitted: dict[str, Any], module: ModuleLike | None) -> None:
        """Make estimators, groups and gate again."""
        saved, given, gate = (fitted.pop(n) for n in ("estimator_", "given", "_gate"))
        kind: Any = known_classes()[saved["estimator"]]
        own = module if saved["own_module"] else None
        self.estimator_ = kind._from_state(saved, own)
        if isinstance(given, str):
            frozen = given == "frozen"
            fitted_one = self.estimator_
            self.estimator = FrozenEstimator(fitted_one) if frozen else fitted_one
        elif given is not None:
            self.estimator = kind(**from_plain(given))
            if own is not None:
                self.estimator.module = own
        super()._restore(fitted, module)
        self.multiply_adds_ = MultiplyAdds(*self.multiply_adds_)
        partitions = fitted["partitions_"]
        self.partitions_ = [partition_of(each, self.classes_) for each in partitions]
        # Files of before 0.1 have neither place nor sizes, which had other rules.
        point = fitted.get("_point")
        self._point = point_of(point) if point else self._first_point()
        sizes = fitted.get("head_layer_sizes_") or [
            head_sizes(self, partition) for partition in self.partitions_
        ]
        self.head_layer_sizes_ = [[(*each,) for each in one] for one in sizes]
        weight, bias = gate["weight"], "bias" in gate
        self._gate = (
            Rescaling(len(weight))
            if weight.ndim == 1
            else nn.Linear(weight.shape[1], len(weight), bias=bias, device="meta")
        )
        self._gate.load_state_dict(gate, assign=True)

    def _own_module(self) -> ModuleLike | None:
        """Return the user's own module, if the inner network was built of one."""
        module: ModuleLike | None = self.estimator_._own_module()
        return module

    def _fresh_network(
        self,
        data: TrainingData,
        spec: TensorSpec,
        regularizers: RegularizerSequence,
        seed: int,
    ) -> nn.Module:
        """Add all heads to the network, with new weights."""
        sample = data.first_rows(SAMPLE_ROWS, spec)
        module = AugmentedNet(network_of(self.estimator_).to(sample), self._point)
        for partition, sizes in zip(
            self.partitions_, self.head_layer_sizes_, strict=True
        ):
            groups = [group.tolist() for group in partition.groups_]
            module.add_heads(
                *(groups, sizes),
                seed=seed,
                fresh=self.fresh_classifier,
                kernel_size=self.head_kernel_size,
            )
        if not self._frozen:
            module.unfreeze()
        return attach(module, regularizers, sample, seed)

    def _first_point(self) -> AttachmentPoint:
        """Find the first fully-connected layer."""
        network = network_of(self.estimator_)
        sample = torch.zeros(SAMPLE_ROWS, *self.input_shape_)
        sample = sample.to(next(network.parameters()))
        n_classes = len(self.classes_)
        return find_attachment_point(network, sample, n_classes, None)

    @classmethod
    def _from_state(cls, state: dict[str, Any], module: ModuleLike | None) -> Self:
        """Make the fitted estimator again, without parameters of before 0.1."""
        state["parameters"].pop("holdout_fraction", None)
        return super()._from_state(state, module)


def plain_partition(partition: ClassPartition) -> dict[str, Any]:
    """Return groups of classes as arrays."""
    counts = partition.confusion_
    return {
        "labels_": partition.labels_,
        "confusion_": [counts.data, counts.indices, counts.indptr],
        "miss_rate_": partition.miss_rate_,
        "top_k_": partition.top_k_,
    }


def partition_of(saved: dict[str, Any], classes: NDArray[Any]) -> ClassPartition:
    """Return the groups that `plain_partition` was given."""
    size = len(classes), len(classes)
    counts = sparse.csr_array(tuple(saved["confusion_"]), shape=size)
    return ClassPartition(**saved | {"confusion_": counts, "classes_": classes})
