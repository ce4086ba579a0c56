"""Networks with zeros in them, for the tests of compaction."""

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
BATCH_NORMS[3] = nn.BatchNorm3d


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut, in the style of ResNets."""

    def __init__(self, n_in, n_out, stride=1, inplace=True):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=inplace)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut = None
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x):
        identity = x if self.shortcut is None else self.shortcut(x)
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """A stem, residual blocks, global average pooling and a linear layer."""

    def __init__(self, widths=(6, 6, 8), n_outputs=3, n_inputs=2):
        super().__init__()
        self.stem = nn.Conv2d(n_inputs, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.blocks = nn.ModuleList()
        for before, after in pairwise(widths):
            self.blocks.append(ResidualBlock(before, after, 1 + (before != after)))
        self.head = nn.Linear(widths[-1], n_outputs)

    def forward(self, x, scale=None):
        x = functional.relu(self.norm(self.stem(x)), inplace=True)
        for block in self.blocks:
            x = block(x)
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        x = self.head(functional.dropout(x, training=self.training))
        return x if scale is None else scale * x


class DenseNet(nn.Module):
    """Channels side by side, two readers of each, a layer that is used twice."""

    def __init__(self, width=5, n_outputs=3):
        super().__init__()
        self.first = nn.Conv2d(2, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.third = nn.Conv2d(2 * width, 2 * width, 1)
        self.again = nn.Conv2d(2 * width, 2 * width, 3, groups=2 * width)
        self.gate = nn.Linear(2 * width, 2 * width)
        self.head = nn.Linear(2 * width * 4, n_outputs)

    def forward(self, x):
        a = functional.relu(self.first(x))
        b = functional.relu(self.second(a))
        c = functional.elu(self.third(torch.cat([a, b], dim=1)))
        d = functional.max_pool2d(self.again(torch.tanh(self.third(c))), 3)
        gate = torch.sigmoid(self.gate(c.mean((2, 3))))
        d = 0.5 * d * gate[:, :, None, None] + 1
        return self.head(d.view(d.size(0), -1))


class Gated(nn.Module):
    """Squeeze and excitation: a product of channels with broadcasting."""

    def __init__(self, width=6, n_outputs=3):
        super().__init__()
        self.conv = nn.Conv2d(2, width, 3, padding=1)
        self.squeeze = nn.Conv2d(width, width, 1)
        self.excite = nn.Conv2d(width, width, 1)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, x):
        x = functional.silu(self.conv(x))
        gate = functional.relu(self.squeeze(functional.adaptive_avg_pool2d(x, 1)))
        x = x * torch.sigmoid(self.excite(gate))
        return self.head(torch.flatten(functional.avg_pool2d(x, x.shape[-1]), 1))


class ConvNeXtBlock(nn.Module):
    """Channels last: permute, layer norm and linear layers over the last axis."""

    def __init__(self, width=5, n_outputs=3):
        super().__init__()
        self.stem = nn.Conv2d(2, width, 2, 2)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, x):
        x = self.stem(x)
        out = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        out = self.narrow(functional.gelu(self.widen(out)))
        x = x + out.permute(0, 3, 1, 2)
        return self.head(x.mean(dim=[2, 3]))


def randomize(network, generator, p_feature=0.5, p_filter=0.3, dtype=torch.float64):
    """Draw all parameters and statistics, then zero inputs and outputs of layers.

    A layer loses each of its inputs with probability `p_feature`, each of its outputs
    with `p_filter`; a batch norm loses each of its scales with `p_filter`.
    """
    network.to(dtype).eval()

    def normal(tensor):
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=dtype))

    def some(n, p):
        return torch.rand(n, generator=generator) < p

    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, (nn.Linear, *CONVOLUTIONS.values())):
                normal(layer.weight)
                layer.weight /= layer.weight[0].numel() ** 0.5
                layer.weight[:, some(layer.weight.shape[1], p_feature)] = 0.0
                layer.weight[some(layer.weight.shape[0], p_filter)] = 0.0
                if layer.bias is not None:
                    normal(layer.bias)
                    layer.bias[some(len(layer.bias), 0.2)] = 0.0
            elif getattr(layer, "weight", None) is not None:
                normal(layer.weight)
                layer.weight[some(layer.weight.shape, p_filter)] = 0.0
                if getattr(layer, "bias", None) is not None:
                    normal(layer.bias)
            names = [name for name, _ in layer.named_parameters(recurse=False)]
            for name in names:  # of attention and of recurrent layers
                if "_proj_" in name or name.startswith(("weight_", "bias_")):
                    parameter = getattr(layer, name)
                    normal(parameter)
                    parameter[some(len(parameter), p_filter)] = 0.0
                    if "weight_" in name:
                        parameter[:, some(parameter.shape[1], p_feature)] = 0.0
            if isinstance(layer, nn.MultiheadAttention):
                dead = some(layer.num_heads, p_feature).repeat_interleave(
                    layer.head_dim
                )
                layer.out_proj.weight[:, dead] = 0.0
            if getattr(layer, "running_mean", None) is not None:
                normal(layer.running_mean)
                normal(layer.running_var)
                layer.running_var.abs_().add_(0.1)
    return network


def assert_same_outputs(network, smaller, batch, tolerance=None):
    """Compare two networks in evaluation mode, relative to the largest output.

    Where outputs nearly cancel, no network in single precision is exact to that: then
    the error may be some times the one that `network` itself has.
    """
    exact = tolerance is not None or batch.dtype == torch.float64
    if tolerance is None:
        tolerance = 1e-12 if batch.dtype == torch.float64 else 1e-6
    with torch.no_grad():
        expected, got = network.eval()(batch), smaller.eval()(batch)
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        bound = tolerance * expected.abs().max().item()
        error = (got - expected).abs().max().item()
        if error > bound and not exact:
            double = copy.deepcopy(network).double()(batch.double())
            bound = 4 * (expected - double).abs().max().item()
    assert error <= bound


def count(network):
    """Count parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


class ShuffleUnit(nn.Module):
    """A unit of ShuffleNetV2, as torchvision has it."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.stride, half = stride, n_out // 2
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(
                *self.depthwise(n_in, stride),
                nn.Conv2d(n_in, half, 1, bias=False),
                *(nn.BatchNorm2d(half), nn.ReLU(inplace=True)),
            )
        self.branch2 = nn.Sequential(
            nn.Conv2d(n_in if stride > 1 else half, half, 1, bias=False),
            *(nn.BatchNorm2d(half), nn.ReLU(inplace=True)),
            *self.depthwise(half, stride),
            nn.Conv2d(half, half, 1, bias=False),
            *(nn.BatchNorm2d(half), nn.ReLU(inplace=True)),
        )

    def depthwise(self, width, stride):
        conv = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        return conv, nn.BatchNorm2d(width)

    def forward(self, x):
        if self.stride == 1:
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch2(x2)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return shuffle(out, 2)


def shuffle(x, groups):
    """Mix the channels of groups, as torchvision does."""
    n, channels, height, width = x.size()
    x = x.view(n, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(n, channels, height, width)


class ShuffleNet(nn.Module):
    """A stem, units of ShuffleNetV2, global average pooling and a linear layer."""

    def __init__(self, width=6, n_outputs=3):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        self.stage = nn.Sequential(
            ShuffleUnit(width, 2 * width, 2),
            ShuffleUnit(2 * width, 2 * width, 1),
            ShuffleUnit(2 * width, 2 * width, 1),
        )
        self.last = nn.Conv2d(2 * width, width, 1)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, x):
        x = functional.relu(self.last(self.stage(self.stem(x))))
        return self.head(x.mean([2, 3]))


class Transformer(nn.Module):
    """Patches of images, layers of torch's transformer, and a linear layer."""

    def __init__(self, n_heads=3, n_outputs=3, n_layers=2, **settings):
        super().__init__()
        width = 4 * n_heads
        self.patches = nn.Conv2d(2, width, 4, 4)
        self.place = nn.Parameter(torch.randn(1, 4, width))
        layer = nn.TransformerEncoderLayer(
            width, n_heads, 10, batch_first=True, **settings
        )
        self.encoder = nn.TransformerEncoder(
            layer, n_layers, enable_nested_tensor=False
        )
        self.head = nn.Linear(width, n_outputs)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.encoder(x).mean(1))


class Recurrent(nn.Module):
    """Rows of images through a recurrent network."""

    def __init__(self, kind=nn.LSTM, n_outputs=3, last=True, **settings):
        super().__init__()
        self.rows = nn.Linear(16, 6)
        self.memory = kind(6, 5, batch_first=True, **settings)
        self.last = last
        width = 10 if settings.get("bidirectional") and not last else 5
        self.head = nn.Linear(width, n_outputs)

    def forward(self, x):
        x = torch.relu(self.rows(x.transpose(1, 2).flatten(2)))
        out, state = self.memory(x)
        if self.last:
            hidden = state[0] if isinstance(self.memory, nn.LSTM) else state
            return self.head(hidden[-1])
        return self.head(out[:, -1])
