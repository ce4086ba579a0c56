"""From linear and convolutional layers to Blockout's, and back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from sklearn.utils._param_validation import validate_parameter_constraints
from torch import Tensor, nn

from sklearn_structreg.blockout.chain import join_layers, normalized_outputs
from sklearn_structreg.blockout.convolution import BlockoutConv2d
from sklearn_structreg.blockout.initialisation import initial_scales
from sklearn_structreg.blockout.layer import BlockoutLinear, NodeSet
from sklearn_structreg.blockout.parameters import BlockoutParameters
from sklearn_structreg.core.checks import check_network
from sklearn_structreg.core.insertion import transfer_layers
from sklearn_structreg.core.inspection import (
    find_layer,
    listening,
    replace_layer,
    run_once,
)
from sklearn_structreg.core.randomness import seeded

__all__ = [
    "blockout_layers",
    "convert",
    "convert_layers",
    "ends_at_outputs",
    "fold",
    "fold_in_place",
    "node_sets",
]


def convert(module: nn.Module, sample: Any, **parameters: Any) -> nn.Module:
    """Replace linear or convolutional layers of a network by Blockout's, in place.

    The layers keep their weights and biases. Those that follow each other share the
    node set between them: m layers in a chain have m + 1 sets, from the inputs of the
    first to the outputs of the last. Layers inserted before or after them stay.

    Parameters
    ----------
    module : torch.nn.Module
        Any network with a fully-connected part.
    sample : torch.Tensor of shape (n, ...)
        A few samples, to find out which layers follow each other.
    **parameters
        As in `Blockout`. `logit_rate_factor` and `block_penalty` have no effect here.

    Returns
    -------
    torch.nn.Module
        `module`, or its replacement if it was a linear layer itself.

    Raises
    ------
    ValueError
        If there is no such chain, the module uses its weights other than by calling
        its layers, or a parameter is out of range.

    See Also
    --------
    sklearn_structreg.core.RegularizerCallback : Trains a skorch net with `Blockout`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.blockout import convert
    >>> from sklearn_structreg.core import make_mlp
    >>> net = convert(make_mlp(64, 10), torch.zeros(1, 64), n_clusters=4)
    >>> [type(layer).__name__ for layer in net]
    ['BlockoutLinear', 'ReLU', 'BlockoutLinear']
    """
    check_network(module=module)
    made = BlockoutParameters(**parameters)
    constraints = BlockoutParameters._parameter_constraints  # type: ignore[attr-defined]
    validate_parameter_constraints(constraints, vars(made), "convert")
    return convert_layers(module, sample, made)[0]


def convert_layers(
    module: nn.Module, sample: Any, parameters: BlockoutParameters
) -> tuple[nn.Module, list[str]]:
    """Replace layers by Blockout's, in place; return the matrices left out, too."""
    joined = join_layers(module, sample, parameters.layers)
    layers: list[Any] = [find_layer(module, name) for name in joined.names]
    k, p = parameters.n_clusters, parameters.init_probability
    settings: Any = {
        "assignment": parameters.assignment,
        "learn_probabilities": parameters.learn_probabilities,
        "gradient": parameters.gradient,
        "init_probability": p,
        "device": layers[0].weight.device,
        "dtype": layers[0].weight.dtype,
    }
    alike = normalized_outputs(module, sample, joined)
    scales = initial_scales(layers, k, p, parameters.assignment, alike, joined.before)
    made: list[BlockoutLinear] = []
    for name, plain, scale, i in zip(
        joined.names, layers, scales, joined.before, strict=True
    ):
        d_out, d_in = plain.weight.shape[:2]
        inputs = NodeSet(d_in, k, **settings) if i is None else made[i].outputs
        # Nothing is drawn on "meta": the parameters come with the plain layer.
        own: Any = {"mask_per": parameters.mask_per, "scale": scale, "device": "meta"}
        kind: Any = BlockoutLinear
        if isinstance(plain, nn.Conv2d):
            kind, own["kernel_size"] = BlockoutConv2d, plain.kernel_size
            own |= {n: getattr(plain, n) for n in ("stride", "padding", "dilation")}
        layer = kind(inputs, NodeSet(d_out, k, **settings), **own)
        layer.weight, layer.bias = plain.weight, plain.bias
        made.append(layer)
        module = _put(module, name, layer)
    _count_positions(module, sample)
    _check_that_layers_are_called(module, sample, joined.names)
    return module, joined.left_out


def _count_positions(module: nn.Module, sample: Any) -> None:
    """Tell convolutions how many pixels their outputs have."""

    def count(layer: Any, args: tuple[Any, ...], output: Tensor) -> None:
        layer.n_positions = output.shape[-2:].numel()

    found = [part for part in module.modules() if isinstance(part, BlockoutConv2d)]
    if found:
        with listening((layer, "output", count) for layer in found):
            run_once(module, sample)


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
    pairs = ((layer.inputs, layer.outputs) for layer in blockout_layers(module))
    return list(dict.fromkeys(nodes for pair in pairs for nodes in pair))


def ends_at_outputs(module: nn.Module, input_shape: Sequence[int]) -> bool:
    """Whether the outputs of the last Blockout layer are those of the module.

    They may pass through functions that keep their order, such as a softmax.
    """
    last = blockout_layers(module)[-1]
    n = last.out_features
    single = 10 * torch.eye(n, dtype=last.weight.dtype, device=last.weight.device)

    def light_one(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        inner = [1] * (output.ndim - 2)
        return single.reshape(n, *inner, n).expand_as(output).clone()

    with listening([(last, "output", light_one)]):
        outputs = run_once(module, last.weight.new_zeros(n, *input_shape))
    if outputs.shape != (n, n):
        return False
    return torch.equal(outputs.argmax(0), torch.arange(n, device=outputs.device))


def fold(module: nn.Module) -> nn.Module:
    """Return a copy with plain linear layers and the same outputs in inference.

    Layers inserted before or after Blockout layers stay.

    Parameters
    ----------
    module : torch.nn.Module
        With Blockout layers.

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
    check_network(module=module)
    return fold_in_place(copy.deepcopy(module)).eval()


def fold_in_place(module: nn.Module) -> nn.Module:
    """Put plain linear layers in the place of Blockout layers."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, BlockoutLinear):
            module = _put(module, name, layer.simplified())
    return module


def _put(module: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Replace a layer; those inserted before and after it stay."""
    transfer_layers(find_layer(module, name), layer)
    return replace_layer(module, name, layer)


def _check_that_layers_are_called(
    module: nn.Module, sample: Any, names: Sequence[str]
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
        with torch.inference_mode(), seeded(0, next(part.parameters()).device):
            outputs.append(run_once(part, sample))
    masked, folded = outputs
    if isinstance(masked, Tensor) and not torch.allclose(
        masked, folded, rtol=1e-2, atol=1e-4, equal_nan=True
    ):
        raise ValueError(
            f"The module uses the weights of {list(names)} other than by calling these "
            "layers, as torch.nn.TransformerEncoderLayer does for predictions, and "
            "would pass over their masks; name other layers."
        )
