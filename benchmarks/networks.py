"""Networks that several of the reproductions share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sklearn_structreg.core import make_mlp


def compact_convnet(
    input_shape: Sequence[int],
    n_outputs: int,
    *,
    widths: Sequence[int] = (32, 64, 128),
    hidden_layer_sizes: Sequence[int] = (),
) -> nn.Sequential:
    """Build a batch-normalised convolutional net with global average pooling.

    Parameters
    ----------
    input_shape : sequence of int
        ``(C, H, W)``.
    n_outputs : int
        Number of classes.
    widths : sequence of int, default=(32, 64, 128)
        Output channels of each 3 x 3 convolution; maps are halved between them.
    hidden_layer_sizes : sequence of int, default=()
        Units per hidden layer of the fully-connected head; empty is linear.

    Returns
    -------
    torch.nn.Sequential
    """
    channels = input_shape[0]
    layers: list[nn.Module] = []
    for stage, width in enumerate(widths):
        if stage:
            layers.append(nn.MaxPool2d(2))
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    head = make_mlp(channels, n_outputs, hidden_layer_sizes)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)
