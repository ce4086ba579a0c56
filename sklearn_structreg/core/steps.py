"""Single steps of a training: outputs, loss, gradient, optimizer, regularizers."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from skorch import NeuralNet
from torch import Tensor, nn

from sklearn_structreg.core.averaging import MovingAverage
from sklearn_structreg.core.batches import Batch
from sklearn_structreg.core.inspection import explaining_training
from sklearn_structreg.core.messages import explaining, shown
from sklearn_structreg.core.optimizers import with_rates
from sklearn_structreg.core.processes import Processes, Share
from sklearn_structreg.core.recipe import Recipe
from sklearn_structreg.core.sequence import RegularizerSequence

__all__ = ["SteppingNet", "compiled"]

ALONE = nullcontext()


def compiled(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Compile a network at its first call; hooks and replaced layers are seen."""

    def forward(x: Tensor) -> Tensor:  # skorch would take a module for one of the net
        outputs: Tensor = module(x)
        return outputs

    function: Callable[[Tensor], Tensor] = torch.compile(
        forward,
        options={"fallback_random": True},  # draws as without compilation
    )
    return function


class SteppingNet(NeuralNet):
    """The part of a `StructuredNet` that works on one mini-batch."""

    regularizers: RegularizerSequence
    recipe: Recipe
    average: MovingAverage | None
    _listened: bool
    _forward: Callable[[Tensor], Tensor] | None
    _processes: Processes | None = None  # that divide the training which runs

    def get_params_for_optimizer(
        self, prefix: str, named_parameters: Iterable[tuple[str, nn.Parameter]]
    ) -> tuple[tuple[list[dict[str, Any]]], dict[str, Any]]:
        """Return parameter groups: the common one, the user's, the regularizers'."""
        special = with_rates(
            self.regularizers.param_groups(self.module_), self.lr, self.optimizer
        )
        if special and issubclass(self.optimizer, torch.optim.LBFGS):
            raise ValueError(
                "LBFGS takes all parameters alike, but a regularizer gives some "
                "of them settings of their own; use another optimizer."
            )
        taken = {id(p) for group in special for p in group["params"]}
        known = dict(named_parameters)
        for pattern, _ in self.recipe.optimizer_settings.get("param_groups", []):
            if not fnmatch.filter(known, pattern):
                raise ValueError(
                    f"param_groups of optimizer_params has {pattern!r}, but the "
                    f"network's parameters are {', '.join(known)}; match one of them."
                )
        learned = [
            (name, parameter)
            for name, parameter in known.items()
            if parameter.requires_grad and id(parameter) not in taken
        ]
        (groups,), settings = super().get_params_for_optimizer(prefix, learned)
        # skorch has the common one last, and only where it is not empty.
        common = (
            groups.pop() if groups[-1:] and len(groups[-1]) == 1 else {"params": []}
        )
        return ([common, *groups, *special],), settings

    def train_step(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Take one optimizer step, then let the regularizers act."""
        X, y, weight = batch
        share = self._share(X)
        groups = self.optimizer_.param_groups
        step: dict[str, Tensor] = {}

        def closure() -> Tensor:
            for group in groups:  # zero_grad(), without its bookkeeping
                for parameter in group["params"]:
                    parameter.grad = None
            try:
                y_pred = self._run(X, share)
            except Exception:
                with explaining_training(X):  # no context in every step: it takes time
                    raise
            loss: Tensor = self.criterion_(y_pred, y, weight)
            penalty = self.regularizers.penalty(self.module_)
            if penalty is not None:
                loss = loss + penalty
            with share or ALONE:  # a layer may run again for its gradients
                loss.backward()  # type: ignore[no-untyped-call]
            if share is not None:
                share.processes.average_gradients(self.module_)
            if self.recipe.clip_grad_norm is not None:
                weights = [p for group in groups for p in group["params"]]
                nn.utils.clip_grad_norm_(weights, self.recipe.clip_grad_norm)
            if not step:  # line searches call this again; the first call counts
                step.update(loss=loss.detach(), y_pred=y_pred.detach())
            if self._listened:
                self.notify(
                    "on_grad_computed",
                    named_parameters=list(self.module_.named_parameters()),
                    batch=(X, y),
                    training=True,
                )
            return loss

        self.optimizer_.step(closure)
        self.regularizers.after_step(self.module_, self.optimizer_)
        if self.average is not None:
            self.average.after_step()
        return step

    def _share(self, X: Tensor) -> Share | None:
        """Return the share of a mini-batch to compute, if there are other processes."""
        return None if self._processes is None else self._processes.share(len(X))

    def _run(self, X: Tensor, share: Share | None) -> Tensor:
        """Run the network in training, in the precision asked for."""
        if share is not None:
            with share:
                outputs = self._run(X[share.rows], None)
            return share.gather(outputs)
        forward = self._forward or self.module_
        if self.recipe.precision == "float32":
            return forward(X)
        with torch.autocast(X.device.type, torch.bfloat16):
            return forward(X).float()

    def _augmented(self, batch: Batch) -> Batch:
        """Return a batch with samples changed at random, of the same shape."""
        X, y, weight = batch
        augment = self.recipe.augment
        assert augment is not None
        with explaining(f"augment={shown(augment)} fails: {{}}."):
            changed = augment(X)
        if not isinstance(changed, Tensor) or changed.shape != X.shape:
            shape = tuple(changed.shape) if isinstance(changed, Tensor) else None
            raise ValueError(
                f"augment={shown(augment)} returns {shape or shown(changed)} for a "
                f"tensor of shape {tuple(X.shape)}; it must return one of that shape."
            )
        return changed.to(X), y, weight

    def validation_step(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Return loss and logits of a batch, without gradients."""
        X, y, weight = batch
        share = self._share(X)
        with torch.no_grad():
            if share is None:
                y_pred = self.module_(X)
            else:
                y_pred = share.gather(self.module_(X[share.rows]))
            return {"loss": self.criterion_(y_pred, y, weight), "y_pred": y_pred}
