import torch
from torch import nn

from sklearn_structreg.core import count_multiply_adds, make_mlp


def test_convolution_and_linear_layer_by_hand():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    )
    net.append(nn.Linear(8 * 4 * 4, 10))
    by_hand = 8 * 3 * 5 * 5 * (8 * 8) + 8 * 4 * 4 * 10
    assert count_multiply_adds(net, torch.zeros(4, 3, 8, 8)) == by_hand


def test_grouped_convolution_counts_only_its_own_channels():
    net = nn.Conv1d(4, 8, 3, groups=2, padding=1)
    assert count_multiply_adds(net, torch.zeros(1, 4, 10)) == 8 * 2 * 3 * 10


def test_modes_are_left_alone():
    net = make_mlp(4, 2).train()
    net[0].eval()
    count_multiply_adds(net, torch.zeros(2, 4))
    assert net.training
    assert not net[0].training
