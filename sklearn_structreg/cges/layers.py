"""Which weights of a network the penalty falls on, and how sparse they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, PrintLog
from torch import nn

__all__ = [
    "SparsityRecorder",
    "count_parameters",
    "penalised_weights",
    "weight_sparsity",
]

PENALISED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def penalised_weights(module: nn.Module, sample_batch: Any) -> list[str]:
    """Name the weights of linear and convolutional layers in forward order.

    Biases and normalization layers are never penalised (section 4 of the paper), nor
    are weights that are computed from other parameters (`torch.nn.utils.parametrize`)
    or that are frozen (``requires_grad=False``).

    Parameters
    ----------
    module : torch.nn.Module
        Run once on the batch in evaluation mode; its state is left as it was.
    sample_batch : torch.Tensor of shape (n, ...), tuple or dict of tensors
        A few samples: the module's only, positional or keyword arguments.

    Returns
    -------
    list of str
        Parameter names; a weight that several layers share comes once, at its first
        use. Layers that the batch does not reach are left out.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.cges import penalised_weights
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(),
    ...                           torch.nn.Linear(3, 2))
    >>> penalised_weights(net, torch.zeros(1, 4))
    ['0.weight', '2.weight']
    """
    names: dict[int, str] = {}

    def remember(name: str) -> Any:
        def hook(layer: nn.Module, *_: Any) -> None:
            names.setdefault(id(layer.weight), name)

        return hook

    handles = [
        layer.register_forward_pre_hook(remember(f"{name}.weight".lstrip(".")))
        for name, layer in module.named_modules()
        if isinstance(layer, PENALISED)
        and "weight" in layer._parameters
        and layer.weight.requires_grad
    ]
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            if isinstance(sample_batch, Mapping):
                module(**sample_batch)
            elif isinstance(sample_batch, tuple | list):
                module(*sample_batch)
            else:
                module(sample_batch)
    finally:
        for handle in handles:
            handle.remove()
        for part in training:
            part.training = True
    return list(names.values())


def weight_sparsity(
    module: nn.Module, names: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """Return the fraction of exact zeros among the named weights, and in each.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    names : sequence of str
        Parameter names, say from `penalised_weights`.

    Returns
    -------
    total : float
        In [0, 1]; 0 if there are no weights.
    per_weight : dict of str to float
        In [0, 1].
    """
    if not names:
        return 0.0, {}
    weights = [module.get_parameter(name) for name in names]
    zeros = torch.stack([(weight == 0).sum() for weight in weights]).tolist()
    sizes = [weight.numel() for weight in weights]
    shares = [zero / size for zero, size in zip(zeros, sizes, strict=True)]
    return sum(zeros) / sum(sizes), dict(zip(names, shares, strict=True))


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Count a network's learnable parameters, and those of them that are not zero.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Returns
    -------
    n_parameters, n_nonzero : int

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.cges import count_parameters
    >>> layer = torch.nn.Linear(3, 2)
    >>> with torch.no_grad():
    ...     _ = layer.weight[:, 0].zero_()
    >>> count_parameters(layer)
    (8, 6)
    """
    learnable = [p for p in module.parameters() if p.requires_grad]
    n_nonzero = sum(int(torch.count_nonzero(p)) for p in learnable)
    return sum(p.numel() for p in learnable), n_nonzero


class SparsityRecorder(Callback):
    """Write sparsity into a skorch history at the end of every epoch.

    The history gets ``sparsity``, the fraction of zeros among the named weights, and
    ``layer_sparsity``, a dict of the same per weight, which the printed table omits.

    Parameters
    ----------
    names : list of str
        Parameter names of the weights.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Keep the dict out of the printed table."""
        for _, callback in net.callbacks_:
            if isinstance(callback, PrintLog):
                callback.keys_ignored_.add("layer_sparsity")

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record."""
        total, per_weight = weight_sparsity(net.module_, self.names)
        net.history.record("sparsity", total)
        net.history.record("layer_sparsity", per_weight)
