"""From linear layers to Blockout's, and back."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sklearn_structreg.blockout.chain import linear_chain, normalized_outputs
from sklearn_structreg.blockout.initialisation import initial_scales
from sklearn_structreg.blockout.layer import BlockoutLinear, NodeSet
from sklearn_structreg.core.modules import run_once
from sklearn_structreg.core.randomness import seeded

__all__ = [
    "DropoutLinear",
    "blockout_layers",
    "convert",
    "ends_at_outputs",
    "fold",
    "insert_dropout",
    "node_sets",
]


def convert(
    module: nn.Module,
    sample_batch: Tensor,
    *,
    layers: str | Sequence[str] = "auto",
    n_clusters: int = 6,
    assignment: str = "hard",
    learn_probabilities: bool = True,
    init_probability: float = 0.5,
    mask_per: str = "batch",
) -> nn.Module:
    """Replace a network's chain of linear layers by Blockout layers, in place.

    The layers keep their weights and biases. m layers share m + 1 node sets, from the
    inputs of the first to the outputs of the last.

    Parameters
    ----------
    module : torch.nn.Module
        Any network with a fully-connected part.
    sample_batch : torch.Tensor of shape (n, ...)
        A few samples, to find out which layers follow each other.
    layers : "auto" or sequence of str, default="auto"
        As in `linear_chain`.
    n_clusters, assignment, learn_probabilities, init_probability
        As in `NodeSet`.
    mask_per : {"batch", "sample"}, default="batch"
        As in `BlockoutLinear`.

    Returns
    -------
    torch.nn.Module
        `module`; what replaces it where it was a linear layer itself.

    Raises
    ------
    ValueError
        If there is no such chain, the module uses its weights other than by calling
        its layers, or a parameter is out of range.

    Examples
    --------
    A skorch net of your own, with no weight decay on the logits:

    >>> import torch
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_structreg.blockout import convert
    >>> from sklearn_structreg.core import make_mlp
    >>> X, y = load_digits(return_X_y=True)
    >>> X = (X / 16).astype("float32")
    >>> net = NeuralNetClassifier(
    ...     convert(make_mlp(64, 10), torch.from_numpy(X[:2])),
    ...     criterion=torch.nn.CrossEntropyLoss, lr=0.1, max_epochs=20, verbose=0,
    ...     optimizer__weight_decay=1e-4,
    ...     optimizer__param_groups=[("*logits", {"weight_decay": 0.0})])
    >>> net.fit(X, y).score(X, y) > 0.8
    True
    """
    names = linear_chain(module, sample_batch, layers)
    linears = [_linear(module, name) for name in names]
    like = linears[0].weight
    sizes = [linears[0].in_features, *(linear.out_features for linear in linears)]
    sets = [
        NodeSet(
            size,
            n_clusters,
            assignment=assignment,
            learn_probabilities=learn_probabilities,
            init_probability=init_probability,
            device=like.device,
            dtype=like.dtype,
        )
        for size in sizes
    ]
    scales = initial_scales(
        linears,
        n_clusters,
        init_probability,
        assignment,
        normalized_outputs(module, sample_batch, names),
    )
    for i, (name, linear, scale) in enumerate(zip(names, linears, scales, strict=True)):
        layer = BlockoutLinear(
            sets[i],
            sets[i + 1],
            mask_per=mask_per,
            scale=scale,
            device="meta",  # nothing is drawn: the parameters come with the layer
        )
        _move_parameters(linear, layer)
        module = _replace(module, name, layer)
    _check_that_layers_are_called(module, sample_batch, names)
    return module


def blockout_layers(module: nn.Module) -> list[BlockoutLinear]:
    """Return a network's Blockout layers, those of a chain in forward order."""
    layers = [part for part in module.modules() if isinstance(part, BlockoutLinear)]
    fed_by = {id(layer.outputs): layer for layer in layers}
    ordered: list[BlockoutLinear] = []
    for layer in layers:
        chain = [layer]
        while (before := fed_by.get(id(chain[0].inputs))) and before not in chain:
            chain.insert(0, before)
        ordered += [link for link in chain if link not in ordered]
    return ordered


def node_sets(module: nn.Module) -> list[NodeSet]:
    """Return the node sets of a network's Blockout layers, from inputs to outputs."""
    sets: dict[int, NodeSet] = {}
    for layer in blockout_layers(module):
        for nodes in (layer.inputs, layer.outputs):
            sets.setdefault(id(nodes), nodes)
    return list(sets.values())


def ends_at_outputs(module: nn.Module, input_shape: Sequence[int]) -> bool:
    """Tell whether the outputs of the last Blockout layer are those of the module.

    They may pass through something that keeps the largest largest, such as a softmax.

    Parameters
    ----------
    module : torch.nn.Module
        With Blockout layers.
    input_shape : sequence of int
        Of one sample.

    Returns
    -------
    bool
    """
    last = blockout_layers(module)[-1]
    n = last.out_features
    single = 10 * torch.eye(n, dtype=last.weight.dtype, device=last.weight.device)

    def light_one(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        inner = [1] * (output.ndim - 2)
        return single.reshape(n, *inner, n).expand_as(output).clone()

    handle = last.register_forward_hook(light_one)
    try:
        outputs = run_once(module, last.weight.new_zeros(n, *input_shape))
    finally:
        handle.remove()
    if outputs.shape != (n, n):
        return False
    return torch.equal(outputs.argmax(0), torch.arange(n, device=outputs.device))


class DropoutLinear(nn.Linear):
    """A linear layer whose inputs are dropped at random while training.

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As in `torch.nn.Linear`.
    drop_rate : float in [0, 1), default=0.5
        Probability that an input is zeroed; the others are divided by the rest.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        drop_rate: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.drop_rate = drop_rate

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to x of shape (..., in_features)."""
        if self.training and self.drop_rate > 0:
            x = functional.dropout(x, self.drop_rate)
        return super().forward(x)


def insert_dropout(
    module: nn.Module,
    sample_batch: Tensor,
    drop_rate: float = 0.5,
    *,
    layers: str | Sequence[str] = "auto",
) -> nn.Module:
    """Put dropout between the layers of a network's linear chain, in place.

    Parameters
    ----------
    module, sample_batch, layers
        As in `convert`.
    drop_rate : float in [0, 1), default=0.5
        Probability of dropping a node. The inputs of the chain are never dropped.

    Returns
    -------
    torch.nn.Module
        `module`.
    """
    for name in linear_chain(module, sample_batch, layers)[1:]:
        linear = _linear(module, name)
        layer = DropoutLinear(
            linear.in_features, linear.out_features, drop_rate=drop_rate, device="meta"
        )
        _move_parameters(linear, layer)
        module = _replace(module, name, layer)
    return module


def fold(module: nn.Module) -> nn.Module:
    """Return a copy with plain linear layers that computes the same in inference.

    Parameters
    ----------
    module : torch.nn.Module
        With Blockout layers, or the dropout of `insert_dropout`.

    Returns
    -------
    torch.nn.Module
        In evaluation mode; every weight is the mean of its masked weights (Eq. 5).

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.blockout import BlockoutLinear, NodeSet, fold
    >>> fold(BlockoutLinear(NodeSet(4), NodeSet(3)))
    Linear(in_features=4, out_features=3, bias=True)
    """
    folded = copy.deepcopy(module).eval()
    for name, layer in list(folded.named_modules()):
        if isinstance(layer, BlockoutLinear):
            folded = _replace(folded, name, _plain(layer.mean_weight(), layer.bias))
        elif isinstance(layer, DropoutLinear):
            folded = _replace(folded, name, _plain(layer.weight, layer.bias))
    return folded


def _check_that_layers_are_called(
    module: nn.Module, sample_batch: Tensor, names: Sequence[str]
) -> None:
    """Raise where predictions would use the weights of the chain without its mask."""
    probe = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for nodes in node_sets(probe):
            if nodes.learn_probabilities:
                other = torch.randn(nodes.logits.shape, generator=generator)
                nodes.logits.copy_(other)
    outputs = []
    for part in (probe, fold(probe)):
        with torch.inference_mode(), seeded(0, sample_batch.device):
            outputs.append(run_once(part, sample_batch))
    masked, folded = outputs
    if isinstance(masked, Tensor) and not torch.allclose(
        masked, folded, rtol=1e-2, atol=1e-4, equal_nan=True
    ):
        raise ValueError(
            f"The module uses the weights of {list(names)} other than by calling these "
            "layers, as torch.nn.TransformerEncoderLayer does for predictions; its "
            "masks would be passed over, so name other layers."
        )


def _plain(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Make a linear layer of copies of these."""
    linear = nn.Linear(1, 1, bias=bias is not None, device="meta")
    linear.out_features, linear.in_features = weight.shape
    linear.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear


def _move_parameters(linear: nn.Linear, layer: BlockoutLinear | DropoutLinear) -> None:
    """Give a linear layer's own parameters to the layer in its place."""
    for name in ("weight", "bias"):
        setattr(layer, name, getattr(linear, name))


def _linear(module: nn.Module, name: str) -> nn.Linear:
    layer = module.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"{name!r} is no torch.nn.Linear.")
    return layer


def _replace(module: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Put a layer in the place of that name, and wherever the same one stands."""
    layer.train(module.get_submodule(name).training)
    if not name:
        return layer
    old = module.get_submodule(name)
    for parent in list(module.modules()):
        for child, part in list(parent.named_children()):
            if part is old:
                setattr(parent, child, layer)
    return module
