"""Torch layers of Blockout: node sets with memberships, and the layers between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.blockout._compiled import MIN_WEIGHTS, fused_linear
from sklearn_structreg.blockout.draws import Draws
from sklearn_structreg.blockout.masks import (
    masked_linear,
    masked_weight,
    with_gradient,
)
from sklearn_structreg.blockout.stacked import StackedBlockout
from sklearn_structreg.core.checks import check_integer, is_number
from sklearn_structreg.core.messages import shown

__all__ = ["BlockoutLinear", "NodeSet"]

SOFT_SPREAD = 0.1  # standard deviation of the first logits, so that clusters differ


class NodeSet(nn.Module):
    r"""Nodes between two layers, and the clusters that they belong to.

    Parameters
    ----------
    n_nodes : int
        Number of nodes d, at least 1.
    n_clusters : int, default=6
        Number of clusters k, at least 1; the same for all sets of a network.
    assignment : {"hard", "soft"}, default="hard"
        "hard" draws memberships while training; "soft" uses the probabilities.
    learn_probabilities : bool, default=True
        Whether the logits are parameters, trained with the weights.
    gradient : {"paper", "straight_through"}, default="paper"
        Of a drawn membership: as in Eq. 9, zero where the draw is zero, or the
        gradient in C itself.
    init_probability : float in (0, 1], default=0.5
        The first probability of each membership. With 1 every node is in every
        cluster for good. A soft assignment that is learned starts from a small random
        spread around it: clusters that are all alike would stay so.
    device, dtype
        Of the logits.

    Attributes
    ----------
    logits : torch.Tensor of shape (d, k)
        A parameter where it is learned. They take no weight decay, which would pull
        every probability to one half.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from sklearn_structreg.blockout import NodeSet
    >>> NodeSet(3, 2).probabilities
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000],
            [0.5000, 0.5000]], grad_fn=<SigmoidBackward0>)
    """

    logits: Tensor
    gradient: str = "paper"  # pickles from before have none of their own

    def __init__(
        self,
        n_nodes: int,
        n_clusters: int = 6,
        *,
        assignment: str = "hard",
        learn_probabilities: bool = True,
        gradient: str = "paper",
        init_probability: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check(n_nodes, n_clusters, assignment, gradient, init_probability)
        self.n_nodes, self.n_clusters = n_nodes, n_clusters
        self.assignment, self.init_probability = assignment, init_probability
        self.gradient = gradient
        # The logistic function has no slope at one: nothing could be learned there.
        self.learn_probabilities = learn_probabilities and init_probability < 1
        logits = torch.empty(n_nodes, n_clusters, device=device, dtype=dtype)
        if self.learn_probabilities:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits)
        self.draws = Draws()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the logits to where they start."""
        p = self.init_probability
        start = math.log(p / (1 - p)) if p < 1 else math.inf
        self.logits.fill_(start)
        if self.learn_probabilities and self.assignment == "soft":
            self.logits.add_(torch.randn_like(self.logits), alpha=SOFT_SPREAD)

    @property
    def probabilities(self) -> Tensor:
        """P, of shape (d, k): the probability of each membership."""
        return torch.sigmoid(self.logits)

    @property
    def is_drawn(self) -> bool:
        """Whether training draws memberships; not if they are soft, or one for good."""
        return self.assignment == "hard" and self.init_probability < 1

    def memberships(self, layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
        """Return C for a layer that has entered a forward pass."""
        P = self.probabilities
        if not self.is_drawn:
            return P
        return with_gradient(self.draws.of(self, layer, P, shape), P, self.gradient)

    def extra_repr(self) -> str:
        """Describe the set."""
        return (
            f"{self.n_nodes}, {self.n_clusters}, assignment={self.assignment!r}, "
            f"learn_probabilities={self.learn_probabilities}"
        )


class BlockoutLinear(nn.Module):
    r"""A linear layer whose weight is masked by the clusters of its nodes.

    .. math:: y = \Big(\frac{s}{k} \tilde W \odot C_{out} C_{in}^T\Big) x + b

    with memberships drawn anew in each training forward, and their probabilities in
    place of them in evaluation mode (Eqs. 4 and 5). The bias is not masked. All layers
    that share a node set, such as the outputs of one and the inputs of the next, share
    its draw in a forward pass; it ends where one of them runs again.

    Parameters
    ----------
    inputs, outputs : NodeSet
        The nodes on both sides.
    bias : bool, default=True
        Whether there is a bias.
    mask_per : {"batch", "sample"}, default="batch"
        One draw for a whole training forward (Algorithm 1), or one for each sample, an
        entry of the first dimension.
    scale : float, default=1.0
        s; `convert` chooses it so that the activations start at the plain layer's
        scale. One is as in the paper. It is part of the state dict.
    device, dtype
        Of weight and bias.

    Attributes
    ----------
    weight : torch.nn.Parameter of shape (d_out, d_in)
        The unconstrained weight :math:`\tilde W`.
    bias : torch.nn.Parameter of shape (d_out,) or None
        The bias.

    Raises
    ------
    ValueError
        If the numbers of clusters differ, or a parameter is out of range.

    Notes
    -----
    Activation checkpointing gives the same gradients as without, if the backward pass
    of one forward comes before the next forward.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.blockout import BlockoutLinear, NodeSet
    >>> features, hidden, classes = NodeSet(64), NodeSet(100), NodeSet(10)
    >>> net = torch.nn.Sequential(
    ...     BlockoutLinear(features, hidden), torch.nn.ReLU(),
    ...     BlockoutLinear(hidden, classes))
    >>> net(torch.zeros(5, 64)).shape
    torch.Size([5, 10])
    """

    has_linear_weight: ClassVar[bool] = True  # for core.inspection.weighted_layers
    _kernel: Any = ()

    def __init__(
        self,
        inputs: NodeSet,
        outputs: NodeSet,
        bias: bool = True,
        *,
        mask_per: str = "batch",
        scale: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, nodes in (("inputs", inputs), ("outputs", outputs)):
            if not isinstance(nodes, NodeSet):
                raise TypeError(f"{name}={shown(nodes)} must be a NodeSet.")
        if inputs.n_clusters != outputs.n_clusters:
            raise ValueError(
                f"The inputs have {inputs.n_clusters} clusters and the outputs "
                f"{outputs.n_clusters}; give both node sets the same n_clusters."
            )
        if mask_per not in ("batch", "sample"):
            raise ValueError(
                f"mask_per={mask_per!r} is unknown; use 'batch' or 'sample'."
            )
        inputs.draws.join(outputs.draws)
        self.inputs, self.outputs = inputs, outputs
        self.mask_per, self.scale = mask_per, scale
        like = torch.empty(0, device=device, dtype=dtype)
        size = outputs.n_nodes, inputs.n_nodes, *self._kernel
        self.weight = nn.Parameter(like.new_empty(size))
        self.bias = nn.Parameter(like.new_empty(size[:1])) if bias else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weight and bias as the plain layer does."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        self.weight.uniform_(-bound, bound)
        if self.bias is not None:
            self.bias.uniform_(-bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to x of shape (..., d_in)."""
        if self.unmasked:
            return self._compute(x, self.weight)
        if not self.training:
            return self._compute(x, self.mean_weight())
        shape = tuple(x.shape[:1]) if self.mask_per == "sample" and x.ndim > 1 else ()
        self.inputs.draws.enter(self)
        c_in = _of_samples(x, self.inputs.memberships(self, shape))
        c_out = c_in
        if self.outputs is not self.inputs:
            c_out = _of_samples(x, self.outputs.memberships(self, shape))
        return self._compute_drawn(x, c_out, c_in)

    def _compute(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.linear(x, weight, self.bias)

    def _compute_drawn(self, x: Tensor, c_out: Tensor, c_in: Tensor) -> Tensor:
        if c_in.ndim > 2:  # a sample's memberships are those of all its rows
            inner = [1] * (x.ndim - 2)
            c_out, c_in = (
                c.reshape(len(c), *inner, *c.shape[1:]) for c in (c_out, c_in)
            )
        arguments = x, self.weight, self.bias, c_out, c_in, self.scale
        y = fused_linear(*arguments)
        return masked_linear(*arguments) if y is None else y

    @property
    def stack_key(self) -> tuple[Any, ...] | None:
        """The properties that layers of a stack share; None has no stack."""
        fits = self.mask_per == "batch" and self.weight.numel() < MIN_WEIGHTS
        if not fits or self.unmasked or type(self) is not BlockoutLinear:
            return None
        sets = self.inputs, self.outputs
        return tuple((repr(nodes), nodes.gradient, nodes.is_drawn) for nodes in sets)

    @staticmethod
    def stacked(layers: Sequence[Any], network: Any, shared: bool) -> StackedBlockout:
        """Return the layers of several networks as one, for `core.stacked_layers`."""
        return StackedBlockout(layers, network, shared)

    @property
    def n_multiply_adds(self) -> int:
        """Multiply-adds per sample of the plain layer."""
        return self.weight.numel()

    def mean_weight(self) -> Tensor:
        """Return the weight of inference (Eq. 5)."""
        if self.unmasked:
            return self.weight
        p_in, p_out = self.inputs.probabilities, self.outputs.probabilities
        return masked_weight(self.weight, p_out, p_in, self.scale)

    def simplified(self) -> nn.Module:
        """Return a plain layer with the same outputs in evaluation mode.

        Returns
        -------
        torch.nn.Module
            Its weight is the mean of the masked weights.
        """
        plain = self._plain_layer()
        for name, value in (("weight", self.mean_weight()), ("bias", self.bias)):
            if value is not None:
                learned = getattr(self, name).requires_grad
                copied = nn.Parameter(value.detach().clone(), requires_grad=learned)
                setattr(plain, name, copied)
        return plain.train(self.training)

    def _plain_layer(self) -> nn.Module:
        """Return the plain layer, with no numbers in it yet."""
        linear = nn.Linear(1, 1, bias=self.bias is not None, device="meta")
        linear.out_features, linear.in_features = self.weight.shape
        return linear

    @property
    def in_features(self) -> int:
        """Number of inputs, as `torch.nn.Linear` calls it."""
        return self.inputs.n_nodes

    @property
    def out_features(self) -> int:
        """Number of outputs, as `torch.nn.Linear` calls it."""
        return self.outputs.n_nodes

    def get_extra_state(self) -> Tensor:
        """Return the scale: without it the same weights would be another layer."""
        return torch.tensor(self.scale, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the scale from a state dict."""
        self.scale = float(state)

    @property
    def unmasked(self) -> bool:
        """Whether this is a plain layer: all nodes in all clusters for good."""
        sets = self.inputs, self.outputs
        return self.scale == 1 and all(nodes.init_probability == 1 for nodes in sets)

    def extra_repr(self) -> str:
        """Describe the layer."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        rest = f"mask_per={self.mask_per!r}, scale={self.scale:.4g}"
        return f"{sizes}, bias={self.bias is not None}, {rest}"


def _of_samples(x: Tensor, memberships: Tensor) -> Tensor:
    """Check that there are as many samples as have memberships of their own."""
    if memberships.ndim > 2 and len(memberships) != len(x):
        raise ValueError(
            f"A layer with mask_per='sample' got {len(x)} samples after one with "
            f"{len(memberships)}; keep samples in the first dimension between the "
            "layers of a chain, or use mask_per='batch'."
        )
    return memberships


def _check(
    n_nodes: int,
    n_clusters: int,
    assignment: str,
    gradient: str,
    init_probability: float,
) -> None:
    check_integer("n_nodes", n_nodes)
    check_integer("n_clusters", n_clusters)
    if assignment not in ("hard", "soft"):
        raise ValueError(
            f"assignment={assignment!r} is unknown; use 'hard', which draws the "
            "memberships, or 'soft', which uses their probabilities."
        )
    if gradient not in ("paper", "straight_through"):
        raise ValueError(
            f"gradient={gradient!r} is unknown; use 'paper' or 'straight_through'."
        )
    if not is_number(init_probability) or not 0 < init_probability <= 1:
        raise ValueError(
            f"init_probability={init_probability!r} is not in (0, 1]; at 0 no node "
            "would ever be in a cluster, and no weight would have any effect."
        )
