"""CGES for skorch users: the proximal step as a callback of their own net."""

from __future__ import annotations

from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from skorch.utils import to_tensor
from torch.optim import Optimizer

from sklearn_structreg.cges.layers import SparsityRecorder, penalised_weights
from sklearn_structreg.cges.pruning import Pruner, restart_early_stopping
from sklearn_structreg.cges.regularizer import CGESRegularizer, LayerScale

__all__ = ["CGESProx"]


class StepCallback(Callback):
    """A callback that acts right after every step of ``net.optimizer_``."""

    def after_step(self, net: NeuralNet, lr: float) -> None:
        """Act; `lr` is the learning rate that the step used."""
        raise NotImplementedError  # abstract: the subclasses below say what to do

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Follow the optimizer's steps."""
        self._unhook()  # a training that broke off left its hook

        def after_step(optimizer: Optimizer, *_: Any) -> None:
            self.after_step(net, optimizer.param_groups[0]["lr"])

        self._hook = net.optimizer_.register_step_post_hook(after_step)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Leave the optimizer as it was."""
        self._unhook()

    def _unhook(self) -> None:
        hook = self.__dict__.pop("_hook", None)
        if hook is not None:
            hook.remove()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_hook"}


class CGESProx(StepCallback):
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
        """Check the parameters; make the regularizer of them."""
        self.regularizer_ = CGESRegularizer(**self.get_params())
        self.regularizer_.check()
        self.attached_ = False
        return self

    def after_step(self, net: NeuralNet, lr: float) -> None:
        """Apply the proximal operators."""
        self.regularizer_.after_step(net.module_, lr)

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


class IterativePruning(StepCallback):
    """Prune any skorch net while it trains, down to a given density.

    At the start of some epochs the smallest weights of all linear and convolutional
    layers together are set to zero and held there, exactly, after every later step of
    the optimizer. Each round keeps the same share of the weights that are left.

    Parameters
    ----------
    target_density : float in (0, 1], default=0.1
        Share of the weights that is left in the end; 1 prunes nothing.
    pruning_rounds : int, default=5
        Number of rounds.
    pruning_start : float in [0, 1), default=0.4
        Share of ``net.max_epochs`` before the first round; the other epochs are shared
        out equally between the rounds, for fine-tuning.

    Attributes
    ----------
    pruner_ : Pruner
        Holds the masks: ``pruner_.pruned_`` is True where a weight is pruned.

    See Also
    --------
    CGESProx : A penalty beside it; list it after this callback.

    Notes
    -----
    Until the last round `skorch.callbacks.EarlyStopping` starts anew with every epoch.

    References
    ----------
    S. Han, J. Pool, J. Tran, W. J. Dally, "Learning both weights and connections for
    efficient neural networks", NIPS 2015.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.cges import IterativePruning
    >>> from sklearn_structreg.core import make_mlp
    >>> X, y = load_digits(return_X_y=True)
    >>> net = NeuralNetClassifier(
    ...     make_mlp(64, 10), criterion=torch.nn.CrossEntropyLoss, lr=0.1, max_epochs=5,
    ...     callbacks=[("pruning", IterativePruning(0.1))], verbose=0)
    >>> net = net.fit((X / 16).astype("float32"), y)
    >>> sum(int((net.module_[i].weight != 0).sum()) for i in (0, 2))
    740
    """

    def __init__(
        self,
        target_density: float = 0.1,
        *,
        pruning_rounds: int = 5,
        pruning_start: float = 0.4,
    ) -> None:
        self.target_density = target_density
        self.pruning_rounds = pruning_rounds
        self.pruning_start = pruning_start

    def initialize(self) -> IterativePruning:
        """Check the parameters."""
        self.pruner_ = Pruner(
            self.target_density, self.pruning_rounds, self.pruning_start
        )
        self.pruner_.check()
        self.attached_, self.begun_ = False, False
        return self

    def after_step(self, net: NeuralNet, lr: float) -> None:
        """Set the pruned weights back to zero."""
        self.pruner_.apply(net.module_)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Note that an epoch has begun."""
        self.begun_ = True

    def on_batch_begin(
        self, net: NeuralNet, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        """Find the layers by the first batch; prune where a round is due."""
        if not self.attached_:
            X, _ = unpack_data(batch)
            names = penalised_weights(net.module_, to_tensor(X, device=net.device))
            self.pruner_.attach(net.module_, names)
            self.pruner_.plan(net.module_, net.max_epochs)
            self.attached_ = True
        if self.begun_ and training:
            self.begun_ = False
            if self.pruner_.begin_epoch(net.module_):
                restart_early_stopping(net)
