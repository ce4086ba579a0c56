"""Networks that several of the reproductions share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

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


def paper_convnet(
    input_shape: Sequence[int],
    n_outputs: int,
    *,
    widths: Sequence[int] = (32, 64),
    n_hidden: int = 1024,
) -> nn.Sequential:
    """Build the network of the CGES thesis for MNIST: two 5 x 5 convolutions.

    Parameters
    ----------
    input_shape : sequence of int
        ``(C, H, W)``.
    n_outputs : int
        Number of classes.
    widths : sequence of int, default=(32, 64)
        Output channels of the convolutions; maps are halved after each.
    n_hidden : int, default=1024
        Units of the fully-connected layer, with dropout of a half.

    Returns
    -------
    torch.nn.Sequential
    """
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    for n_filters in widths:
        layers += [nn.Conv2d(channels, n_filters, 5, padding=2), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        channels, height, width = n_filters, height // 2, width // 2
    hidden = nn.Linear(channels * height * width, n_hidden)
    layers += [nn.Flatten(), hidden, nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(n_hidden, n_outputs))


class Residual(nn.Module):
    """A residual block: two 3 x 3 convolutions, or a bottleneck of three.

    Parameters
    ----------
    n_in, width : int
        Channels that come in, and of the convolutions.
    stride : int, default=1
        Of the 3 x 3 convolution that halves the map.
    expansion : int, default=1
        1 is the basic block; 4 is the bottleneck, whose output has four widths.
    """

    def __init__(
        self, n_in: int, width: int, stride: int = 1, expansion: int = 1
    ) -> None:
        super().__init__()
        n_out = width * expansion
        kernels = [(n_in, width, 3, stride), (width, n_out, 3, 1)]
        if expansion > 1:
            kernels = [(n_in, width, 1, 1), (width, width, 3, stride)]
            kernels.append((width, n_out, 1, 1))
        layers: list[nn.Module] = []
        for a, b, kernel, step in kernels:
            layers += [
                nn.Conv2d(a, b, kernel, step, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(inplace=True),
            ]
        self.branch = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Sequential()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to the shortcut."""
        result: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return result


def small_resnet(
    input_shape: Sequence[int],
    n_outputs: int,
    *,
    widths: Sequence[int] = (32, 64, 128),
    n_blocks: int = 2,
) -> nn.Sequential:
    """Build a residual network with global average pooling.

    Parameters
    ----------
    input_shape : sequence of int
        ``(C, H, W)``.
    n_outputs : int
        Number of classes.
    widths : sequence of int, default=(32, 64, 128)
        Channels of each stage; maps are halved between them.
    n_blocks : int, default=2
        Residual blocks per stage.

    Returns
    -------
    torch.nn.Sequential
    """
    channels = widths[0]
    stem = nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(channels), nn.ReLU()]
    for stage, width in enumerate(widths):
        for block in range(n_blocks):
            stride = 2 if stage and not block else 1
            layers.append(Residual(channels, width, stride))
            channels = width
    head = nn.Linear(channels, n_outputs)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


class ResNet(nn.Module):
    """A residual network for 32 x 32 images, with the stem of the DropCluster paper.

    The stem of ImageNet's networks, a 7 x 7 convolution of stride 2, makes of 32 x 32
    pixels the 64 maps of 16 x 16 that the paper clusters; a pooling halves them again.

    Parameters
    ----------
    n_outputs : int
        Number of classes.
    depths : sequence of int
        Blocks in each of the groups; maps are halved between them.
    width : int, default=64
        Channels of the stem and of the first group; doubled from group to group.
    expansion : int, default=1
        Of the blocks, see `Residual`.
    """

    def __init__(
        self,
        n_outputs: int,
        depths: Sequence[int],
        width: int = 64,
        expansion: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        n_in, groups = width, []
        for group, depth in enumerate(depths):
            blocks = []
            for block in range(depth):
                stride = 2 if group and not block else 1
                blocks.append(Residual(n_in, width << group, stride, expansion))
                n_in = (width << group) * expansion
            groups.append(nn.Sequential(*blocks))
        self.groups = nn.Sequential(*groups)
        self.fc = nn.Linear(n_in, n_outputs)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.fc(self.groups(x).mean((2, 3)))
        return logits


def resnet50(n_outputs: int) -> ResNet:
    """Build ResNet-50, as the DropCluster paper trains it."""
    return ResNet(n_outputs, (3, 4, 6, 3), expansion=4)
