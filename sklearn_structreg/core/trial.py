"""Try a network on a few samples, so that a fit fails before its work and not after."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sklearn_structreg.core.inspection import run_once
from sklearn_structreg.core.losses import WeightedLoss
from sklearn_structreg.core.messages import explaining
from sklearn_structreg.core.task import Task

__all__ = ["check_parameters", "try_prediction", "try_training"]


def check_parameters(network: nn.Module) -> None:
    """Refuse parameters that hold no real numbers."""
    for name, parameter in network.named_parameters():
        if parameter.is_meta or parameter.is_complex():
            kind = "on the meta device" if parameter.is_meta else "complex"
            raise ValueError(
                f"The module's parameter {name!r} is {kind}; give a module of real "
                "numbers in memory."
            )


def try_prediction(
    network: nn.Module, sample: Tensor, n_outputs: int, task: Task
) -> None:
    """Check the outputs in evaluation mode; lazy layers get their shapes."""
    outputs = run_once(network, sample)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError("The module has no parameter to train; give one that has.")
    _check_outputs(outputs, (len(sample), n_outputs), task)


def try_training(
    network: nn.Module,
    sample: Tensor,
    target: Tensor,
    n_outputs: int,
    loss: WeightedLoss,
) -> None:
    """Check outputs and gradients in training mode; the network stays as it is."""
    buffers = [
        (part, name, buffer, buffer.clone())
        for part in network.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    try:
        outputs = run_once(network, sample, training=True)
        _check_outputs(outputs, (len(sample), n_outputs), loss.task, " in training")
        _check_gradients(network, outputs, loss(outputs, target), loss)
    finally:
        for part, name, buffer, value in buffers:
            part._buffers[name] = buffer.copy_(value)


def _check_outputs(
    outputs: Any, shape: tuple[int, ...], task: Task, when: str = ""
) -> None:
    """Check for one finite number per sample and output."""
    wanted = f"it must return one {task.output}, shape {shape}"
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"The module returns a {type(outputs).__name__}, which is no tensor, for "
            f"{shape[0]} samples{when}; {wanted}."
        )
    dense = outputs.layout is torch.strided and not outputs.is_meta
    if not (dense and outputs.is_floating_point()):
        kind = "meta" if outputs.is_meta else str(outputs.dtype).split(".")[1]
        kind = kind if outputs.layout is torch.strided else "sparse"
        raise ValueError(
            f"The module returns a {kind} tensor{when}; it must be a dense one of "
            "floating-point numbers."
        )
    if outputs.shape != shape:
        raise ValueError(
            f"The module returns an output of shape {tuple(outputs.shape)} for "
            f"{shape[0]} samples{when}; {wanted}."
        )
    if not outputs.isfinite().all():
        raise ValueError(
            f"The module's outputs are not finite before the first step{when}; look "
            "at its initial weights, or scale the features."
        )


def _check_gradients(
    network: nn.Module, outputs: Tensor, loss: Tensor, criterion: WeightedLoss
) -> None:
    """Check that the loss depends on some weight, and takes such outputs."""
    weights = [p for p in network.parameters() if p.requires_grad]
    cause = f"criterion={criterion.name}" if outputs.requires_grad else "The module"
    found: Any = [None]
    if loss.requires_grad:
        with explaining(f"{cause} fails: {{}}."):
            found = torch.autograd.grad(loss, weights, allow_unused=True)
    if all(gradient is None for gradient in found):
        raise ValueError(
            f"{cause} gives no gradient to train by; do not detach its result, or "
            "compute it in numpy."
        )
    if not loss.isfinite():
        raise ValueError(
            f"{cause} returns a loss that is not finite before the first step; look at "
            "its arguments."
        )
    usual = criterion.task is Task.CLASSES and criterion.criterion is None
    if usual and outputs.shape[1] > 1 and _are_probabilities(outputs):
        raise ValueError(
            "The module ends in a softmax, which the cross entropy would apply once "
            "more; take Softmax off its end and return the logits, or give a criterion "
            "for probabilities."
        )
    logarithms = isinstance(criterion.criterion, nn.NLLLoss)
    if logarithms and not _are_probabilities(outputs.exp()):
        raise ValueError(
            "NLLLoss takes logarithms of probabilities, which the module does not "
            "return; end it in LogSoftmax, or leave criterion=None, which takes logits."
        )


def _are_probabilities(outputs: Tensor) -> bool:
    """Whether every row is at least 0 and sums to 1."""
    sums = outputs.double().sum(dim=1)
    return bool((outputs >= 0).all() and ((sums - 1).abs() < 1e-3).all())
