"""L2-SP: keep the weights close to those that the training starts from."""

from collections.abc import Iterator
from numbers import Real

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn, optim

from sklearn_structreg.core.parameters import component, parameter
from sklearn_structreg.core.regularizer import Regularizer, learning_rates

LIMITS = Interval(Real, 0, None, closed="left")
HOW = StrOptions({"penalty", "proximal"})


@component
class L2SP(Regularizer):
    """Penalize half the squared distance to the initial weights (Li et al., 2018).

    Parameters
    ----------
    {parameters}

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.core import StructuredClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = StructuredClassifier(max_epochs=5).fit(X / 16, y).module_
    >>> tuned = StructuredClassifier(net, regularizers=[L2SP(1.0)]).fit(X / 16, y)
    >>> bool((net[0].weight - tuned.module_[0].weight).abs().max() < 0.1)
    True
    """

    alpha: float = parameter(0.01, [LIMITS], "float", "Strength, or 0.", kw_only=False)
    how: str = parameter("penalty", [HOW], "str", "A loss, or a proximal step.")

    def attach(self, module: nn.Module, sample: Tensor) -> nn.Module:
        """Keep the initial weights; a training that goes on takes them over."""
        self.initial_ = {n: p.detach().clone() for n, p in module.named_parameters()}
        return module

    def penalty(self, module: nn.Module) -> Tensor | None:
        """Return alpha / 2 times the squared distance to the initial weights."""
        terms = [(w - v).square().sum() for w, v in self._pairs(module, "penalty")]
        return self.alpha / 2 * torch.stack(terms).sum() if terms else None

    def after_step(self, module: nn.Module, optimizer: optim.Optimizer) -> None:
        """Move w to the minimum over u of (u - w)^2 + lr alpha (u - v)^2."""
        groups = learning_rates(optimizer)
        for w, v in self._pairs(module, "proximal"):
            step = groups.get(id(w), {"lr": 0})["lr"] * self.alpha
            w.detach().lerp_(v, step / (1 + step))

    def _pairs(self, module: nn.Module, how: str) -> Iterator[tuple[Tensor, Tensor]]:
        for name, w in module.named_parameters():
            v = self.initial_.get(name)
            if v is not None and w.requires_grad and how == self.how and self.alpha > 0:
                yield w, v.to(w)
