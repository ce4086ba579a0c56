"""Finding a network's linear chain, converting it, and folding it back."""

import pytest
import torch
from torch import nn

from sklearn_structreg.blockout import BlockoutLinear, convert, fold
from sklearn_structreg.blockout.chain import join_layers
from sklearn_structreg.blockout.conversion import blockout_layers, node_sets
from sklearn_structreg.core import insert_layer, make_convnet, make_mlp
from sklearn_structreg.core.insertion import inserted_layers
from sklearn_structreg.core.inspection import weighted_layers


class Net(nn.Module):
    """A head whose activations are functions, behind a convolution."""

    def __init__(self, between=torch.relu):
        super().__init__()
        self.out = nn.Linear(6, 3)  # registered first, runs last
        self.conv = nn.Conv2d(1, 2, 3)
        self.one = nn.Linear(8, 6)
        self.two = nn.Linear(6, 6)
        self.between = between

    def forward(self, x):
        x = self.conv(x).flatten(1)
        return self.out(self.between(self.two(torch.tanh(self.one(x)))))


IMAGES = torch.zeros(2, 1, 4, 4)


def linear_chain(*arguments):
    return join_layers(*arguments).names


def test_the_head_is_found_in_forward_order():
    assert linear_chain(Net(), IMAGES) == ["one", "two", "out"]
    assert linear_chain(make_mlp(4, 3, (8, 8)), torch.zeros(2, 4)) == ["0", "2", "4"]
    assert linear_chain(make_mlp(4, 3, ()), torch.zeros(2, 4)) == ["0"]
    assert linear_chain(make_convnet((1, 8, 8), 10), torch.zeros(2, 1, 8, 8)) == [
        "7",
        "9",
    ]


def test_elementwise_layers_belong_to_the_chain():
    net = nn.Sequential(
        nn.Linear(4, 8),
        nn.BatchNorm1d(8),
        nn.LeakyReLU(),
        nn.Dropout(),
        nn.Linear(8, 3),
    )
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert linear_chain(net, torch.randn(2, 4)) == ["0", "4"]
    assert net.training
    torch.testing.assert_close(net.state_dict(), before)
    assert not any(part._forward_hooks for part in net.modules())


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x.softmax(-1),
        lambda x: nn.functional.layer_norm(x, (6,)),
        lambda x: x.flip(-1),
        lambda x: x - x.mean(-1, keepdim=True),
        lambda x: x.cumsum(-1),
    ],
)
def test_what_mixes_nodes_ends_the_chain(between):
    net = Net(between)
    assert linear_chain(net, IMAGES) == ["out"]
    with pytest.raises(ValueError, match="do not form a chain.*of 'two' node by node"):
        linear_chain(net, IMAGES, ["two", "out"])
    assert linear_chain(net, IMAGES, ["one", "two"]) == ["one", "two"]


def test_a_skip_connection_is_no_chain():
    class Residual(Net):
        def forward(self, x):
            x = self.one(self.conv(x).flatten(1))
            return self.out(x + self.two(x).relu())

    assert linear_chain(Residual(), IMAGES) == ["out"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["one", "out"], "do not form a chain"),
        (["two", "one"], "do not form a chain"),
        (["one", "one"], "do not form a chain"),
        (["three"], "has no layer named 'three'; its layers are 'out', 'conv'"),
        ([], "layers is empty"),
    ],
)
def test_names_that_form_no_chain(layers, message):
    with pytest.raises(ValueError, match=message):
        convert(Net(), IMAGES, layers=layers)


def test_modules_without_a_chain():
    with pytest.raises(ValueError, match=r"runs no torch\.nn\.Linear layer"):
        convert(nn.Sequential(nn.Flatten(), nn.Conv1d(1, 2, 1)), torch.zeros(1, 2))

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x))

    with pytest.raises(ValueError, match="just once"):
        convert(Twice(), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="runs 2 times"):
        convert(Twice(), torch.zeros(1, 4), layers=["layer"])


def test_the_conversion_is_in_place_and_keeps_the_parameters():
    net = Net()
    weight, bias = net.two.weight, net.two.bias
    assert convert(net, IMAGES, n_clusters=4) is net
    assert isinstance(net.two, BlockoutLinear)
    assert net.two.weight is weight
    assert net.two.bias is bias
    assert blockout_layers(net) == [net.one, net.two, net.out]
    assert net.one.outputs is net.two.inputs
    assert net.two.outputs is net.out.inputs
    assert [nodes.n_nodes for nodes in node_sets(net)] == [8, 6, 6, 3]


def test_a_lone_layer_without_bias_converts_too():
    layer = convert(nn.Linear(4, 3, bias=False), torch.zeros(1, 4)).double()
    assert isinstance(layer, BlockoutLinear)
    x = torch.randn(5, 4, dtype=torch.float64)
    folded = fold(layer)
    assert type(folded) is nn.Linear
    torch.testing.assert_close(folded(x), layer.eval()(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", [{}, {"assignment": "soft"}, {"n_clusters": 1}])
def test_folding_computes_the_same_with_plain_layers(settings, dtype):
    torch.manual_seed(0)
    net = convert(Net(), IMAGES, **settings).to(dtype)
    for nodes in node_sets(net):
        nn.init.normal_(nodes.logits)
    net.train()(torch.randn(3, 1, 4, 4, dtype=dtype)).sum().backward()
    folded = fold(net)
    assert net.training
    assert {type(part) for part in folded.modules()} == {Net, nn.Linear, nn.Conv2d}
    assert not any("logits" in name for name in folded.state_dict())
    x = torch.randn(20, 1, 4, 4, dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(folded(x), net.eval()(x), rtol=tolerance, atol=tolerance)
    folded.one.weight.data.zero_()
    assert net.one.weight.any()


def test_inserted_layers_stay_where_linear_layers_are_replaced():
    net = make_mlp(4, 3, (20,))
    after, before = nn.Dropout(), nn.Dropout(0.25)
    insert_layer(net, "0", after)
    insert_layer(net, "2", before, before=True)
    x = torch.randn(6, 4)
    assert linear_chain(net, x) == ["0", "2"]
    convert(net, x)
    assert list(inserted_layers(net).values()) == [after, before]
    assert isinstance(net[0], BlockoutLinear)
    hidden = net[0](x)
    assert 0.2 < (hidden == 0).float().mean() < 0.8
    folded = fold(net)
    assert [type(part) for part in folded] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [type(part) for part in inserted_layers(folded).values()] == [nn.Dropout] * 2
    torch.testing.assert_close(folded(x), net.eval()(x))
    assert 0.2 < (folded.train()[0](x) == 0).float().mean() < 0.8


def test_layers_may_be_called_by_keyword():
    class Keyword(nn.Sequential):
        def forward(self, x):
            return self[2](input=self[1](self[0](input=x)))

    net = Keyword(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    assert linear_chain(net, torch.zeros(2, 4)) == ["0", "2"]


def test_blockout_layers_are_layers_with_weights_to_other_methods():
    net = Net()
    x = torch.randn(3, 1, 4, 4)
    names = list(weighted_layers(net, x))
    assert names == ["conv", "one", "two", "out"]
    found = weighted_layers(convert(net, x), x)
    assert list(found) == names
    assert found["two"] is net.two
    assert found["two"].weight.shape == (6, 6)


def test_a_layer_is_simplified_to_a_plain_one():
    torch.manual_seed(0)
    net = convert(Net(), IMAGES).double()
    for nodes in node_sets(net):
        nn.init.normal_(nodes.logits)
    net.one.weight.requires_grad_(False)
    plain, x = net.one.simplified(), torch.randn(7, 8, dtype=torch.float64)
    assert type(plain) is nn.Linear
    assert plain.training
    assert (plain.in_features, plain.out_features) == (8, 6)
    assert [p.requires_grad for p in plain.parameters()] == [False, True]
    torch.testing.assert_close(plain(x), net.eval().one(x), rtol=1e-12, atol=1e-12)
    plain.bias.data.zero_()
    assert net.one.bias.any()


def test_a_layer_of_two_names_is_replaced_under_both():
    class Aliased(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(5, 4), nn.Linear(4, 3)])
            self.head = self.layers[-1]

        def forward(self, x):
            return self.head(self.layers[0](x).relu())

    x = torch.randn(2, 5)
    net = convert(Aliased(), x)
    assert isinstance(net.head, BlockoutLinear)
    assert net.head is net.layers[1]
    folded = fold(net)
    assert type(folded.head) is nn.Linear
    assert folded.head is folded.layers[1]
    torch.testing.assert_close(folded(x), net.eval()(x))


def test_sizes_are_found_where_linear_has_them():
    class Sized(nn.Sequential):
        def forward(self, x):
            return super().forward(x.reshape(-1, self[0].in_features))

    net = convert(Sized(nn.Linear(6, 4), nn.Linear(4, 3)), torch.zeros(2, 6))
    assert net(torch.zeros(2, 2, 3)).shape == (2, net[1].out_features)


def test_layers_with_computed_weights_are_left_alone():
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    hooked = nn.utils.spectral_norm(nn.Linear(4, 3))
    for last in (normed, hooked):
        net = convert(nn.Sequential(nn.Linear(5, 4), last), torch.zeros(2, 5))
        assert isinstance(net[0], BlockoutLinear)
        assert net[1] is last
        with pytest.raises(ValueError, match="a chain takes plain"):
            linear_chain(nn.Sequential(nn.Linear(5, 4), last), torch.zeros(2, 5), ["1"])


def test_a_state_dict_makes_another_conversion_the_same():
    nets = [convert(make_mlp(6, 3), torch.zeros(2, 6)).eval() for _ in range(2)]
    assert nets[0][2].scale != nets[1][2].scale
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(4, 6)
    assert torch.equal(nets[0](x), nets[1](x))


class Encoder(nn.Module):
    """Predicts by a fast path that reads the weights of its linear layers."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


class Tied(nn.Module):
    """Uses a layer's weight twice, the second time without calling it."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(5, 5)

    def forward(self, x):
        return nn.functional.linear(self.one(x), self.one.weight)


def test_weights_that_are_used_without_their_layer():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8)
    inner = ["encoder.linear1", "encoder.linear2"]
    with pytest.raises(ValueError, match=r"uses the weights of .* other than by"):
        convert(Encoder(), x, layers=inner)
    assert isinstance(convert(Encoder(), x).head, BlockoutLinear)
    with pytest.raises(ValueError, match=r"uses the weights of \['one'\] other than"):
        convert(Tied(), torch.randn(2, 5))


def test_conversion_leaves_the_generator_alone():
    class Noisy(nn.Sequential):
        def forward(self, x):
            return super().forward(x + torch.randn_like(x))

    x = torch.randn(2, 5)
    linear_chain(Noisy(nn.Linear(5, 3)), x)
    assert isinstance(convert(Noisy(nn.Linear(5, 3)), x)[0], BlockoutLinear)
    net = make_mlp(5, 3)
    state = torch.get_rng_state()
    convert(net, x)
    assert torch.equal(torch.get_rng_state(), state)


def test_lazy_layers_get_their_shapes():
    lazy = nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(3))
    net = convert(lazy, torch.zeros(2, 4))
    assert [len(nodes.logits) for nodes in node_sets(net)] == [4, 5, 3]


def test_modules_with_several_outputs_can_be_converted():
    class Two(nn.Sequential):
        def forward(self, x):
            return super().forward(x), x

    assert isinstance(
        convert(Two(nn.Linear(4, 3)), torch.zeros(2, 4))[0], BlockoutLinear
    )
