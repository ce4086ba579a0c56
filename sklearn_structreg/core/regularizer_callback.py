"""A regularizer in any skorch net."""

from __future__ import annotations

from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from skorch.utils import to_tensor
from torch.optim import Optimizer

from sklearn_structreg.core.checks import check_integer
from sklearn_structreg.core.optimizers import regroup, with_rates
from sklearn_structreg.core.randomness import derive_seed, seeded
from sklearn_structreg.core.regularizer import Regularizer
from sklearn_structreg.core.sequence import RegularizerSequence, name_of

__all__ = ["RegularizerCallback"]


class RegularizerCallback(Callback):
    """Train a skorch net of your own with a regularizer.

    The regularizer is attached when the training begins, by the first mini-batch. It
    acts after every step of ``net.optimizer_``, at the learning rate of each parameter
    group; a penalty of its own adds its gradient to that of the loss. The parameter
    groups of the net stay as they are, but for parameters that the regularizer gives
    settings of their own. Frozen parameters are left alone.

    Parameters
    ----------
    regularizer : Regularizer
        It is cloned. skorch can set and search it as
        ``callbacks__<name>__regularizer``.
    random_state : int, default=0
        Seeds the regularizer's draws when it is attached.

    Attributes
    ----------
    regularizer_ : Regularizer
        The fitted regularizer.

    See Also
    --------
    StructuredClassifier : A whole estimator with regularizers.

    Notes
    -----
    List callbacks that freeze parameters, or stop early, as usual: their order beside
    this one does not matter. ``train_loss`` does not include the penalty.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.cges import CGES
    >>> from sklearn_structreg.core import RegularizerCallback, make_mlp
    >>> X, y = load_digits(return_X_y=True)
    >>> net = NeuralNetClassifier(
    ...     make_mlp(64, 10), criterion=torch.nn.CrossEntropyLoss, lr=0.1, verbose=0,
    ...     max_epochs=20, callbacks=[("cges", RegularizerCallback(CGES(0.3)))])
    >>> net = net.fit((X / 16).astype("float32"), y)
    >>> 0 < net.history[-1, "sparsity"] < 1
    True
    """

    attaches_regularizer = True

    def __init__(self, regularizer: Regularizer, *, random_state: int = 0) -> None:
        self.regularizer = regularizer
        self.random_state = random_state

    def initialize(self) -> RegularizerCallback:
        """Check the regularizer and its parameters."""
        if not isinstance(self.regularizer, Regularizer):
            raise ValueError(
                f"regularizer={self.regularizer!r} is no regularizer; give an instance "
                "such as CGES(alpha=0.05)."
            )
        check_integer("random_state", self.random_state, 0)
        self.regularizer.check_parameters()
        name = name_of(type(self.regularizer))
        self.sequence_ = RegularizerSequence([(name, self.regularizer)])
        self.callbacks_: list[Callback] | None = None
        self.hook_: Any = None
        return self

    @property
    def regularizer_(self) -> Regularizer:
        """The fitted regularizer."""
        return next(iter(self.sequence_.values()))

    # ---- acting ----------------------------------------------------------------

    def on_train_begin(self, net: NeuralNet, X: Any = None, **kwargs: Any) -> None:
        """Attach the regularizer, once, and follow the optimizer's steps."""
        if self.callbacks_ is None:
            self._attach(net, X, kwargs.get("y"))
        self._unhook()  # a training that broke off left its hook

        def after_step(optimizer: Optimizer, *_: Any) -> None:
            self.sequence_.after_step(net.module_, optimizer)

        self.hook_ = net.optimizer_.register_step_post_hook(after_step)
        self._notify("on_train_begin", net, X=X, **kwargs)

    def on_grad_computed(
        self, net: NeuralNet, training: bool = True, **kwargs: Any
    ) -> None:
        """Add the penalty's gradient to the loss's."""
        penalty = self.sequence_.penalty(net.module_) if training else None
        if penalty is not None:
            penalty.backward()  # type: ignore[no-untyped-call]
        self._notify("on_grad_computed", net, training=training, **kwargs)

    def on_batch_begin(
        self, net: NeuralNet, training: bool = False, **kwargs: Any
    ) -> None:
        """Settle the network before it is validated."""
        if not training:
            self.sequence_.before_validation(net.module_)
        self._notify("on_batch_begin", net, training=training, **kwargs)

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Pass on."""
        self._notify("on_batch_end", net, **kwargs)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Pass on."""
        self._notify("on_epoch_begin", net, **kwargs)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Settle the network, also where nothing is validated."""
        self.sequence_.before_validation(net.module_)
        self._notify("on_epoch_end", net, **kwargs)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Leave the optimizer as it was."""
        self._unhook()
        self._notify("on_train_end", net, **kwargs)

    def _notify(self, event: str, net: NeuralNet, **kwargs: Any) -> None:
        for callback in self.callbacks_ or []:
            getattr(callback, event)(net, **kwargs)

    def _unhook(self) -> None:
        if self.hook_ is not None:
            self.hook_.remove()
            self.hook_ = None

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        return state | {"hook_": None} if "hook_" in state else state

    # ---- attaching -------------------------------------------------------------

    def _attach(self, net: NeuralNet, X: Any, y: Any) -> None:
        """Attach to the net's module, and let its optimizer know."""
        seed, device = derive_seed(self.random_state), torch.device(net.device)
        with seeded(seed, device):
            dataset = net.get_dataset(X, y)
            batch = next(iter(net.get_iterator(dataset, training=False)))
        sample = to_tensor(unpack_data(batch)[0], device=net.device)
        module = self.sequence_.attach(net.module_, sample, seed)
        net.module_ = module
        rate = net.optimizer_.defaults["lr"]
        groups = with_rates(
            self.sequence_.param_groups(module), rate, type(net.optimizer_)
        )
        regroup(net.optimizer_, module, groups)
        self.callbacks_ = [
            callback.initialize() for _, callback in self.sequence_.callbacks()
        ]
