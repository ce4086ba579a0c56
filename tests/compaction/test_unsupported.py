"""What cannot be done exactly is refused, and the error names the layer."""

import pytest
import torch
from compaction.networks import assert_same_outputs, randomize
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from sklearn_structreg.compaction import compact

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def perceptron(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), *middle, nn.Linear(6, 2))


class Branches(nn.Module):
    """Looks at the data to decide what to compute."""

    def forward(self, x):
        return x if x.mean() > 0 else -x


class Sorted(nn.Module):
    """Puts channels into an order that depends on the data."""

    def forward(self, x):
        return x.sort(dim=1)[0]


class Scaled(nn.Module):
    """Reads another layer's weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.last = nn.Linear(6, 2)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.last(x) + functional.linear(x, self.first.weight.T)[:, :2]


class Own(nn.Linear):
    """A linear layer that does something else."""

    def forward(self, x):
        return super().forward(x) + 1


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.Sequential(nn.Identity(), Branches()), r"'2\.1' \(Branches\)"),
        (nn.CELU().requires_grad_(False), None),
        (Own(6, 6), r"'2' \(Own\)"),
        (nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 6))), r"'2\.0' \(P"),
        (prune.l1_unstructured(nn.Linear(6, 6), "weight", 0.5), r"'2' \(Linear\) "),
        (nn.RNNCell(6, 6), r"'2' \(RNNCell"),
    ],
)
def test_the_error_names_the_layer(layer, name):
    network = perceptron(layer)
    if name is None:
        compact(network, X)
        return
    with pytest.raises(ValueError, match=rf"The layer {name}"):
        compact(network, X)


def test_masks_of_torch_s_pruning_are_made_permanent_first():
    network = perceptron()
    prune.ln_structured(network[0], "weight", 0.5, n=2, dim=0)
    with pytest.raises(ValueError, match=r"'0' \(Linear\) computes its weight"):
        compact(network, X)
    with torch.no_grad():
        network(X)  # now the weight carries no gradient and can be copied
    with pytest.raises(ValueError, match=r"'0' \(Linear\) has hooks"):
        compact(network, X)
    prune.remove(network[0], "weight")
    smaller = compact(network, X)
    assert_same_outputs(network, smaller, X)
    assert smaller[0].out_features == 3


def test_a_network_that_is_itself_not_followed():
    with pytest.raises(ValueError, match=r"The network \(Branches\) cannot be foll"):
        compact(Branches(), X)


@pytest.mark.parametrize(
    "layer",
    [
        Own(6, 6),
        nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 6))),
        nn.RNNCell(6, 6),
    ],
)
def test_keep_leaves_the_layer_and_what_it_reads(layer):
    network = perceptron(nn.Linear(6, 6), nn.Linear(6, 6), layer, nn.Linear(6, 6))
    with torch.no_grad():
        for i in (3, 5):
            network[i + 1 if i == 5 else i].weight[:, :2] = 0.0
        network[0].weight[4:] = 0.0
    smaller = compact(network, X, unsupported="keep")
    assert_same_outputs(network, smaller, X)
    assert smaller[3].out_features == 6
    assert smaller[2].out_features == 4
    assert smaller[5].out_features == 4


@pytest.mark.parametrize("layer", [Sorted(), nn.Softmax(1), nn.LayerNorm(6)])
def test_what_mixes_channels_keeps_them_without_an_error(layer):
    network = perceptron(nn.Linear(6, 6), layer)
    with torch.no_grad():
        network[4].weight[:, :3] = 0.0
        network[2].weight[:, 0] = 0.0
    smaller = compact(network, X)
    assert_same_outputs(network, smaller, X)
    assert (smaller[0].out_features, smaller[2].out_features) == (5, 6)


def test_a_layer_whose_weight_is_read_elsewhere_stays():
    network = Scaled()
    with torch.no_grad():
        network.first.weight[:3] = 0.0
        network.last.weight[:, 3:] = 0.0
    smaller = compact(network, X)
    assert_same_outputs(network, smaller, X)
    assert smaller.first.out_features == 6
    shared = perceptron(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU())
    shared[4].weight = shared[2].weight
    with torch.no_grad():
        shared[2].weight[:, :3] = 0.0
        shared[6].weight[:, :3] = 0.0
    smaller = compact(shared, X)
    assert_same_outputs(shared, smaller, X)
    assert smaller[4].weight is smaller[2].weight
    assert smaller[2].weight.shape == (6, 6)


class Reader(nn.Module):
    """Uses the weight of its first layer as a function's argument."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.last = nn.Linear(6, 2)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        return self.last(x) + functional.linear(x @ self.first.weight, X[:2])


def test_a_weight_that_a_function_reads_stays():
    network = Reader()
    with torch.no_grad():
        network.last.weight[:, :3] = 0.0
        network.first.weight[3] = 0.0
    smaller = compact(network, X)
    assert_same_outputs(network, smaller, X)
    assert smaller.first.out_features == 6


class Keyword(nn.Module):
    """Calls a layer once more, by a keyword."""

    def __init__(self):
        super().__init__()
        self.network, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = torch.sigmoid(self.network(x))
        return self.last(torch.sigmoid(self.network(input=x)))


def test_a_layer_with_one_call_that_cannot_be_followed():
    network = Keyword()
    with torch.no_grad():
        network.last.weight[:, 0] = 0.0
        network.network.weight[:, 0] = 0.0
        network.network.weight[1] = 0.0
    with pytest.raises(ValueError, match=r"'network' \(Linear\) is called with"):
        compact(network, X)
    smaller = compact(network, X, unsupported="keep")
    assert_same_outputs(network, smaller, X)
    assert smaller.network.weight.shape == (4, 4)


class InPlace(nn.Module):
    """Writes to a tensor that is read again."""

    def __init__(self, method):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.relu, self.method = nn.ReLU(inplace=True), method

    def forward(self, x):
        x = self.first(x)
        if self.method == "layer":
            y = self.relu(x.view(len(x), 3, 2).flatten(1))
        elif self.method == "function":
            y = x.relu_()
        else:
            y = x
            y += 1
        return self.last(x + y)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("layer", "cannot be followed"),  # len() of a proxy
        ("function", "'relu_' works in place"),
        ("operator", "other outputs than when it is called"),
    ],
)
def test_writing_in_place_to_what_is_read_again(method, message):
    with pytest.raises(ValueError, match=message):
        compact(InPlace(method), X)


class Random(nn.Module):
    """Draws random numbers in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.last(functional.dropout(self.first(x)))


def test_random_numbers_in_evaluation_mode():
    with pytest.raises(ValueError, match="draw random numbers"):
        compact(Random(), X)


class Fixed(nn.Module):
    """Depends on the size of a layer in a way that the graph does not show."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.last(x) / self.first.out_features


def test_outputs_that_depend_on_the_size_of_a_layer_are_noticed():
    network = Fixed()
    assert_same_outputs(network, compact(network, X), X)  # nothing to take away
    with torch.no_grad():
        network.last.weight[:, :3] = 0.0
    with pytest.raises(ValueError, match="its smaller copy has other outputs"):
        compact(network, X)


def test_weights_that_are_not_finite_are_named():
    network = perceptron()
    with torch.no_grad():
        network[0].weight[0, 0] = torch.nan
        network[-1].weight[:, 0] = 0.0  # times NaN that is NaN
    with pytest.raises(ValueError, match=r"'0' \(Linear\) holds weights that are not"):
        compact(network, X)


class Views(nn.Module):
    """Reshapes to sizes that are written as numbers."""

    def __init__(self, view):
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 4, 3), nn.Linear(16, 2)
        self.view = view

    def forward(self, x):
        return self.last(self.view(torch.relu(self.conv(x))))


@pytest.mark.parametrize(
    ("view", "width"),
    [
        (lambda x: x.view(-1, 16), 4),
        (lambda x: x.view(x.size(0), 16), 4),
        (lambda x: x.view(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]), 4),
        (lambda x: x.view(x.size(0), -1), 2),
        (lambda x: x.reshape(x.shape[0], -1), 2),
        (lambda x: torch.flatten(x, start_dim=1), 2),
        (lambda x: x.flatten(2).transpose(1, 2).transpose(2, 1).flatten(1), 2),
        (lambda x: x.squeeze().flatten(1), 4),
    ],
)
def test_reshaping(view, width):
    network = randomize(Views(view), torch.Generator().manual_seed(0), 0.0, 0.0)
    with torch.no_grad():
        network.last.weight[:, 4:12] = 0.0
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    smaller = compact(network, x)
    assert_same_outputs(network, smaller, x)
    assert smaller.conv.out_channels == width


def test_len_of_a_tensor_is_named():
    network = Views(lambda x: x.view(len(x), -1))
    with pytest.raises(ValueError, match=r"write x.shape\[0\] in place of len\(x\)"):
        compact(network, torch.zeros(3, 1, 4, 4))


def test_samples_that_do_not_fit():
    with pytest.raises(ValueError, match=r"does not take samples of shape \(2, 5\)"):
        compact(perceptron(), torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"type torch.float64"):
        compact(perceptron(), torch.zeros(2, 4, dtype=torch.float64))


def test_a_lazy_layer_that_has_not_run():
    network = nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"'0' \(LazyLinear\) has no shape yet"):
        compact(network, X)
    network(X)
    assert_same_outputs(network, compact(network, X), X)
