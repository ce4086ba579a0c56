"""CGES for skorch users: the proximal step as a callback of their own net."""

from __future__ import annotations

from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from skorch.utils import to_tensor
from torch.optim import Optimizer

from sklearn_structreg.cges.layers import SparsityRecorder
from sklearn_structreg.cges.regularizer import CGESRegularizer, LayerScale

__all__ = ["CGESProx"]


class CGESProx(Callback):
    """Train any skorch net with a CGES penalty.

    The proximal operators run right after every step of ``net.optimizer_``, with the
    learning rate of that step. The history gets ``sparsity`` and ``layer_sparsity``
    per epoch.

    Parameters
    ----------
    alpha, penalty, exclusivity, groups, prox, prox_every, layer_scale
        As in `CGESClassifier`; skorch can set and search them as
        ``callbacks__<name>__alpha``.

    Attributes
    ----------
    regularizer_ : CGESRegularizer
        What does the work, once training has begun.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.cges import CGESProx
    >>> from sklearn_structreg.core import make_mlp
    >>> X, y = load_digits(return_X_y=True)
    >>> net = NeuralNetClassifier(
    ...     make_mlp(64, 10), criterion=torch.nn.CrossEntropyLoss, lr=0.1,
    ...     max_epochs=20, callbacks=[("cges", CGESProx(alpha=0.02))], verbose=0)
    >>> net = net.fit((X / 16).astype("float32"), y)
    >>> 0 < net.history[-1, "sparsity"] < 1
    True
    """

    def __init__(
        self,
        alpha: float = 1e-4,
        penalty: str = "cges",
        *,
        exclusivity: float = 0.2,
        groups: str = "feature",
        prox: str = "exact",
        prox_every: int = 1,
        layer_scale: LayerScale = "auto",
    ) -> None:
        self.alpha = alpha
        self.penalty = penalty
        self.exclusivity = exclusivity
        self.groups = groups
        self.prox = prox
        self.prox_every = prox_every
        self.layer_scale = layer_scale

    def initialize(self) -> CGESProx:
        """Make the regularizer of the parameters."""
        self.regularizer_ = CGESRegularizer(**self.get_params())
        self.attached_ = False
        return self

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Follow the optimizer's steps."""
        self._unhook()  # a training that broke off left its hook

        def after_step(optimizer: Optimizer, *_: Any) -> None:
            lr = optimizer.param_groups[0]["lr"]
            self.regularizer_.after_step(net.module_, lr)

        self._hook = net.optimizer_.register_step_post_hook(after_step)

    def on_batch_begin(
        self, net: NeuralNet, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        """Find the layers by the first batch; settle before validation."""
        if not self.attached_:
            X, _ = unpack_data(batch)
            self.regularizer_.attach(net.module_, to_tensor(X, device=net.device))
            self.attached_ = True
        if not training:
            self.regularizer_.after_training_epoch(net.module_)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Settle and record."""
        self.regularizer_.after_training_epoch(net.module_)
        recorder = SparsityRecorder(self.regularizer_.names)
        recorder.on_train_begin(net)
        recorder.on_epoch_end(net)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Leave the optimizer as it was."""
        self._unhook()

    def _unhook(self) -> None:
        hook = self.__dict__.pop("_hook", None)
        if hook is not None:
            hook.remove()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_hook"}
