"""Fitted estimators and pipelines as files that run without this package."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.utils.data import Dataset

from sklearn_structreg.compaction.compact import simplified_copy
from sklearn_structreg.core.comparison import compared_rows, largest_difference
from sklearn_structreg.core.deployed import (
    OUTPUTS,
    Deployed,
    FoldedSteps,
    TargetScale,
)
from sklearn_structreg.core.device import dtype_name, resolve_dtype
from sklearn_structreg.core.messages import shown
from sklearn_structreg.core.model_files import FORMATS, INPUT, check_packages
from sklearn_structreg.core.pipelines import Step, fold_steps, take_apart
from sklearn_structreg.core.saving import check_place_to_export
from sklearn_structreg.core.state_files import replacing
from sklearn_structreg.core.versions import __version__

__all__ = ["ExportReport", "Exportable", "export"]

PRECISIONS = ("float32", "float64")
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


@dataclass(frozen=True)
class ExportReport:
    """A file that `export` has written, and how well it agrees with the estimator.

    Attributes
    ----------
    path : str
        The file.
    format : str
        "onnx", "pt2" or "safetensors".
    n_bytes : int
        Its size.
    n_parameters : int
        Parameters of the network in it.
    inputs, outputs : dict of str to str
        The name of the input, and those of the outputs, with their types and shapes.
    n_rows : int
        Rows that were compared.
    max_difference : float
        The largest difference of an output from that of the estimator on these rows:
        of probabilities as it is, of others over their largest value, of predicted
        numbers in standard deviations of the target.
    """

    path: str
    format: str
    n_bytes: int
    n_parameters: int
    inputs: dict[str, str]
    outputs: dict[str, str]
    n_rows: int
    max_difference: float

    def __str__(self) -> str:
        sides = (
            ", ".join(f"{name}: {kind}" for name, kind in side.items())
            for side in (self.inputs, self.outputs)
        )
        return (
            f"{self.path} ({self.format}): {' -> '.join(sides)}\n"
            f"{self.n_parameters:,} parameters, {self.n_bytes:,} bytes, largest "
            f"difference on {self.n_rows} rows {self.max_difference:.1e}"
        )


class Exportable:
    """Mixin of estimators: `export`."""

    def _target_scale(self) -> TargetScale | None:
        """Return what turns outputs into predictions, of a regressor."""
        return None

    _plain_network: Any

    def _exported_network(self, dtype: torch.dtype) -> nn.Module:
        """Return the network in this precision, on the CPU."""
        network: nn.Module = self._plain_network(dtype)
        return network

    def export(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,
        *,
        check: ArrayLike | Dataset[Any] | None = None,
        outputs: Sequence[str] | None = None,
        compact: bool = False,
        dtype: str | None = None,
        tolerance: float | None = None,
    ) -> ExportReport:
        """Write the network to a file that runs without this package.

        The file is loaded again and compared with the estimator before it takes its
        place: see :func:`~sklearn_structreg.export` for the parameters, the result
        and the errors. That function takes pipelines, too.

        Parameters
        ----------
        path : path-like
            The file.
        format : {"onnx", "pt2", "safetensors"} or None, default=None
            None goes by the end of the path.
        check : as X in `fit` or None, default=None
            Rows to compare on.
        outputs : sequence of str or None, default=None
            What the network returns.
        compact : bool, default=False
            Whether to compact the network first.
        dtype : {"float32", "float64"} or None, default=None
            The precision of input, network and outputs; None is that of the network.
        tolerance : float or None, default=None
            The largest difference to accept.

        Returns
        -------
        ExportReport
        """
        how = check, outputs, compact, dtype, tolerance
        return _export(self, path, format, *how)


def export(
    model: Any,
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    check: ArrayLike | Dataset[Any] | None = None,
    outputs: Sequence[str] | None = None,
    compact: bool = False,
    dtype: str | None = None,
    tolerance: float | None = None,
) -> ExportReport:
    """Write a fitted model to a file that runs without this package, and try the file.

    The network in it is simplified: masks are folded into the weights, layers that drop
    are gone, and the standardization of the samples is part of it; so are softmax and
    labels, or the scale of a regressor's targets. It takes batches of any size.

    Parameters
    ----------
    model : estimator, Pipeline or search
        A fitted classifier or regressor of this package; a fitted `Pipeline` that ends
        in one, after scalers, imputers, feature selectors, and a `ColumnTransformer`
        of these; or a search with a ``best_estimator_`` of these.
    path : path-like
        The file. One that is there stays whole until the new one is; one that `save`
        wrote is not replaced.
    format : {"onnx", "pt2", "safetensors"} or None, default=None
        "onnx" is for onnxruntime and many others, "pt2" for
        :func:`torch.export.load`. "safetensors" holds only the weights of the network
        by name, and the list of its layers where they form a chain. None goes by the
        end of the path.
    check : {array-like, sparse matrix, Dataset} or None, default=None
        Rows to compare on, as `model` takes them. None draws random ones with the means
        and scales of the training.
    outputs : sequence of str or None, default=None
        What the network returns: of a classifier some of "probabilities", "label" (the
        position in ``classes_``; an indicator where samples have several labels) and
        "logits", by default the first two; of a regressor "prediction".
    compact : bool, default=False
        Whether to compact the network first, as the method `compact` does.
    dtype : {"float32", "float64"} or None, default=None
        The precision of input, network and outputs; None is that of the network.
    tolerance : float or None, default=None
        The largest difference to accept; None is 1e-4, and 1e-9 where all is in double
        precision.

    Returns
    -------
    ExportReport
        Prints the file, its size and the largest difference.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    ImportError
        If a package for the format is missing.
    TypeError
        If the model is none of these.
    ValueError
        If a step of a pipeline cannot be folded, by its name; if the path is a file of
        `save`; if the network cannot be traced; or if the file differs by more than the
        tolerance. It leaves no file.

    See Also
    --------
    StructuredClassifier.save : Writes the estimator with all that it needs to train on,
        for this package to read.

    Notes
    -----
    The input "X" has the shape ``(batch, n_features)`` for a pipeline, else that in
    which the network sees samples, ``(batch, *input_shape_)``. A `ColumnTransformer`
    that was fitted on a DataFrame may drop columns, of text for instance: the input
    then has the others alone, in the order of the DataFrame. The metadata of the file
    are strings: the ``classes`` and ``feature_names`` (of the columns of the input) as
    JSON, the ``outputs``, the ``estimator`` and the ``version``.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.feature_selection import SelectKBest
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_structreg import CGESClassifier, export
    >>> X, y = load_wine(return_X_y=True)
    >>> net = CGESClassifier(max_epochs=20, random_state=0)
    >>> model = make_pipeline(SelectKBest(k=5), net).fit(X, y)
    >>> with TemporaryDirectory() as folder:
    ...     report = export(model, Path(folder) / "wine.pt2", check=X)
    ...     network = torch.export.load(report.path).module()
    >>> report.outputs
    {'probabilities': 'float32 (batch, 3)', 'label': 'int64 (batch,)'}
    >>> probabilities, label = network(torch.tensor(X, dtype=torch.float32))
    >>> bool((label.numpy() == model.predict(X)).all())
    True
    """
    return _export(model, path, format, check, outputs, compact, dtype, tolerance)


def _export(
    model: Any,
    path: str | os.PathLike[str],
    form: str | None,
    check: Any,
    outputs: Sequence[str] | None,
    compact: bool,
    dtype: str | None,
    tolerance: float | None,
) -> ExportReport:
    """Write, load, compare; then the file takes its place."""
    check_is_fitted(model)
    steps, estimator = take_apart(model)
    ours = isinstance(estimator, Exportable)
    if not ours:
        raise TypeError(
            f"A {type(estimator).__name__} cannot be exported; pass a classifier or "
            "regressor of this package, or a Pipeline or a search around one."
        )
    check_place_to_export(path)
    form = _chosen_format(path, form)
    own = dtype_name(next(estimator.module_.parameters()).dtype)
    precision = resolve_dtype(_chosen(dtype, own, PRECISIONS, "dtype"))
    names = _chosen_outputs(estimator, outputs)
    if tolerance is None:
        tolerance = max(TOLERANCE[own], TOLERANCE[dtype_name(precision)])

    folded = None
    if steps:
        folded = fold_steps(steps, estimator.input_shape_)
    check_packages(form)
    rows, logits = compared_rows(estimator, steps, folded, check, precision)
    small = estimator.compact() if compact else estimator
    module = _deployed(small, names, folded, precision)
    metadata = _metadata(estimator, _feature_names(estimator, steps, folded), names)
    with torch.no_grad(), replacing(path) as file:
        # One row would be traced as no batch of any size, and rows are in the file.
        blank = torch.zeros_like(rows[[0, 0]])
        file.write_bytes(FORMATS[form].write(module, blank, metadata))
        found = [*FORMATS[form].load(file, module)(rows)]
        difference = largest_difference(estimator, names, found, logits)
        if not difference <= tolerance:
            raise ValueError(
                f"The file differs from the estimator by {difference:.1e} on "
                f"{len(rows)} rows, more than tolerance={tolerance:g}, so it was not "
                "kept; features with large offsets need dtype='float64'."
            )
        n_bytes = file.stat().st_size
    return ExportReport(
        path=os.fspath(path),
        format=form,
        n_bytes=n_bytes,
        n_parameters=sum(p.numel() for p in module.parameters()),
        inputs={INPUT: _signature(rows)},
        outputs={n: _signature(x) for n, x in zip(names, found, strict=True)},
        n_rows=len(rows),
        max_difference=difference,
    )


def _deployed(
    estimator: Any,
    names: Sequence[str],
    steps: FoldedSteps | None,
    precision: torch.dtype,
) -> Deployed:
    """Put the simplified network between steps and outputs, on the CPU."""
    network = simplified_copy(estimator._exported_network(precision))
    target = estimator._target_scale()
    module = Deployed(network, estimator._task, names, steps, target)
    module = module.to("cpu", precision).eval()
    return module.requires_grad_(False)


def _chosen(value: Any, default: str, known: Sequence[str], name: str) -> str:
    """Return the default for None, or a known value, or raise."""
    value = default if value is None else value
    if value not in known:
        raise ValueError(
            f"{name}={shown(value)} must be one of {', '.join(map(repr, known))}, or "
            "None."
        )
    chosen: str = value
    return chosen


def _chosen_format(path: str | os.PathLike[str], form: str | None) -> str:
    if form is None and Path(path).suffix[1:] not in FORMATS:
        endings = ", ".join(f"'.{each}'" for each in FORMATS)
        raise ValueError(
            f"The end of {str(path)!r} names no format; end it in {endings}, or pass "
            "format."
        )
    return _chosen(form, Path(path).suffix[1:], [*FORMATS], "format")


def _chosen_outputs(estimator: Any, outputs: Sequence[str] | None) -> list[str]:
    known = OUTPUTS[estimator._task]
    if outputs is None:
        return [*known[:2]]
    names = [outputs] if isinstance(outputs, str) else [*outputs]
    if not names or len({*names}) < len(names) or not {*names} <= {*known}:
        raise ValueError(
            f"outputs={shown(outputs)} must be different ones of "
            f"{', '.join(map(repr, known))}."
        )
    return names


def _feature_names(
    estimator: Any, steps: Sequence[Step], folded: FoldedSteps | None
) -> Any:
    """Return the names of the columns that the file takes, if these have any."""
    first = steps[0][1] if steps else estimator
    names = getattr(first, "feature_names_in_", None)
    if names is None or folded is None:
        return names
    return names[folded.inputs.positions]


def _metadata(
    estimator: Any, feature_names: Any, outputs: Sequence[str]
) -> dict[str, str]:
    """Describe the model in strings."""
    found = {
        "outputs": json.dumps(outputs),
        "estimator": type(estimator).__name__,
        "version": __version__,
    }
    classes = getattr(estimator, "classes_", None)
    for name, values in (("classes", classes), ("feature_names", feature_names)):
        if values is not None:
            found[name] = json.dumps(np.asarray(values).tolist(), default=str)
    return found


def _signature(tensor: Tensor) -> str:
    """Write type and shape of a batch."""
    sizes = ", ".join(map(str, tensor.shape[1:]))
    return f"{dtype_name(tensor.dtype)} (batch,{f' {sizes}' if sizes else ''})"
