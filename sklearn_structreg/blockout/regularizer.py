"""Blockout as a regularizer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from sklearn_structreg.blockout.conversion import (
    blockout_layers,
    convert_layers,
    fold_in_place,
    node_sets,
)
from sklearn_structreg.blockout.layer import BlockoutLinear
from sklearn_structreg.blockout.parameters import BlockoutParameters
from sklearn_structreg.blockout.recorder import ProbabilityRecorder
from sklearn_structreg.core.parameters import component
from sklearn_structreg.core.regularizer import Regularizer, check_unchanged

__all__ = ["Blockout"]

FACTOR, ADAPTIVE_FACTOR = 100.0, 20.0  # of the logits' rate, without SGD the second
NAMES_SHOWN = 20
MANY_NODES = 100  # from here on the gradient of one is small

_attached: WeakKeyDictionary[nn.Module, ReferenceType[Blockout]] = WeakKeyDictionary()
"""The regularizer that trains each Blockout layer; copies of a layer have none."""


@component
class Blockout(BlockoutParameters, Regularizer):
    r"""Let a network learn a hierarchical architecture while it trains.

    Every node of a chain of fully-connected layers, inputs and outputs included,
    belongs to each of k clusters with a probability that is learned. Each training step
    draws the memberships :math:`C_j \sim B(1, P_j)` and keeps the weights between nodes
    that share clusters,

    .. math:: W_j = \frac{s_j}{k} \tilde W_j \odot C_j C_{j-1}^T ,
              \qquad P_j = \mathrm{logistic}(\mathrm{logits}_j) ;

    inference takes :math:`P_j` in place of :math:`C_j`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    left_out_ : list of str
        Matrices that `layers` asks for and that cannot be converted.

    See Also
    --------
    BlockoutClassifier : A classifier with this regularizer and its parameters.
    BlockoutRegressor : The same for numbers.

    Notes
    -----
    A network that has `BlockoutLinear` layers already keeps them as they are.

    The constants :math:`s_j` let the activations of training start at the plain net's
    scale. The paper has none (s = 1), so that a layer starts at 0.31 of that scale for
    its probability of one half. They are factors of the mask, as dropout's
    1 / (1 - rate) is one of the activations. With them in the first weights instead, a
    step of the same learning rate would change the masked weights about ten times less;
    with them in the mask, the highest rate that suits a plain net is too high.

    The paper is ``Blockout(gradient="paper", init_probability=0.5)``.

    Weight decay spares the logits, which it would pull to a probability of one half. A
    warm start goes on with the clusters that there are.

    References
    ----------
    C. Murdock, Z. Li, H. Zhou and T. Duerig, "Blockout: Dynamic Model Selection for
    Hierarchical Deep Networks", CVPR 2016: sections 4 to 6, Eqs. 3-10, Algorithm 1.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.blockout import Blockout
    >>> from sklearn_structreg.core import StructuredClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = StructuredClassifier(
    ...     max_epochs=20, regularizers=[Blockout(4)], random_state=0)
    >>> net.fit(X, y).score(X, y) > 0.9
    True
    """

    def attach(self, module: nn.Module, sample: Any) -> nn.Module:
        """Convert the chain; a network with Blockout layers stays as it is."""
        layers = blockout_layers(module)
        for layer in layers:
            other = _attached.get(layer, lambda: None)()
            if other is not None and other is not self:
                raise ValueError(
                    "A second Blockout came to a network that has one already; give "
                    "only one of them in regularizers."
                )
        self.left_out_: list[str] = []
        if not layers:
            module, self.left_out_ = convert_layers(module, sample, self)
            if self.left_out_:
                warnings.warn(
                    "Only layers that run once and act node by node are converted to "
                    f"Blockout's, not {', '.join(self.left_out_[:NAMES_SHOWN])}; name "
                    "the layers to convert in layers.",
                    UserWarning,
                    stacklevel=2,
                )
        for layer in blockout_layers(module):
            _attached[layer] = ref(self)
        return module

    def resume(self, previous: Any, module: nn.Module) -> nn.Module:
        """Go on with the network's clusters, at another rate or price if set."""
        free = "logit_rate_factor", "block_penalty"
        fixed = [name for name in self._get_param_names() if name not in free]
        check_unchanged(previous, self, fixed)
        return super().resume(previous, module)

    def param_groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """Return the logits: a learning rate of their own, and no weight decay."""
        groups: dict[float, dict[str, Any]] = {}
        for nodes in node_sets(module):
            if nodes.learn_probabilities:
                rates = self._rates(nodes.n_nodes)
                group = {"params": [], "weight_decay": 0.0} | rates
                groups.setdefault(rates["lr_factor"], group)["params"].append(
                    nodes.logits
                )
        return list(groups.values())

    def _rates(self, n_nodes: int) -> dict[str, float]:
        """Return the factors of the learning rate for so many nodes."""
        if not isinstance(self.logit_rate_factor, str):
            return {"lr_factor": self.logit_rate_factor}
        # A node's part in the loss, and so its gradient, is one of so many.
        factor = FACTOR * max(1.0, n_nodes / MANY_NODES)
        return {"lr_factor": factor, "adaptive_lr_factor": ADAPTIVE_FACTOR}

    def penalty(self, module: nn.Module) -> Tensor | None:
        """Return the price of the mean multiply-adds in branches, one for each cluster.

        A weight between nodes that share several clusters counts in each: counted once
        for all, it would have no slope while it is in nearly all draws.
        """
        if self.block_penalty == 0:
            return None
        layers = [part for part in module.modules() if isinstance(part, BlockoutLinear)]
        sets = {nodes for layer in layers for nodes in (layer.inputs, layer.outputs)}
        sizes = {nodes: nodes.probabilities.sum(0) for nodes in sets}  # of each branch
        total = sum(layer.n_multiply_adds for layer in layers)
        prices = []
        for layer in layers:
            pairs = layer.inputs.n_nodes * layer.outputs.n_nodes
            factor = self.block_penalty * layer.n_multiply_adds / total / pairs
            prices.append(sizes[layer.outputs] @ sizes[layer.inputs] * factor)
        price = torch.stack(prices).sum()
        return price if price.requires_grad else None

    def after_step(self, module: nn.Module, optimizer: Optimizer) -> None:
        """Refuse optimizers that compare losses of different draws."""
        if isinstance(optimizer, torch.optim.LBFGS) and any(
            nodes.is_drawn for nodes in node_sets(module)
        ):
            raise ValueError(
                "LBFGS compares several losses within a step, but Blockout draws new "
                "memberships for each; use another optimizer, or assignment='soft'."
            )

    @classmethod
    def after_stacked_step(cls, members: Sequence[Any], optimizer: Any) -> bool:
        """Do nothing: there are no stacks with LBFGS."""
        return True

    def callbacks(self) -> list[tuple[str, Callback]]:
        """Record the probabilities in the history."""
        return [("probabilities", ProbabilityRecorder())]

    def left_out(self) -> list[str]:
        """Name the matrices that are not converted."""
        return list(getattr(self, "left_out_", []))  # a file from before has none

    def remedy(self) -> str | None:
        """Keep more of the weights in every draw."""
        if self.block_penalty > 0:
            return f"lower block_penalty={self.block_penalty:g}"
        start = self.init_probability
        return f"raise init_probability={start:g}" if start < 1 else None

    def simplify(self, module: nn.Module) -> nn.Module:
        """Fold the masks into the weights of plain linear layers."""
        return fold_in_place(module)
