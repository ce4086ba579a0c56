"""The augmented network: what is old stays, what is new adds up."""

import copy

import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional

from sklearn_structreg.compaction import compact
from sklearn_structreg.core import count_multiply_adds, make_convnet, make_mlp
from sklearn_structreg.selfinformed import batched as room
from sklearn_structreg.selfinformed.batched import BatchedConvolutions
from sklearn_structreg.selfinformed.conditional import ConditionalNet, PredictingNet
from sklearn_structreg.selfinformed.heads import AugmentedNet
from sklearn_structreg.selfinformed.places import find_attachment_point
from sklearn_structreg.selfinformed.widths import head_cost

GROUPS = [[0, 3], [1, 2, 4]]


@pytest.fixture
def base():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.5),
        *make_mlp(16, 5, (7,)),
    ).eval()


@pytest.fixture
def x():
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def augmented(base, x, rounds=1):
    net = AugmentedNet(base, find_attachment_point(base, x, 5, "auto"))
    for seed in range(rounds):
        net.add_heads(GROUPS, [(3,), (4, 2)], seed=seed)
    return net.eval()


def test_without_heads_it_is_the_old_network_bit_for_bit(base, x):
    net = augmented(base, x, rounds=0).eval()
    assert torch.equal(net(x), base(x))
    assert count_multiply_adds(net, x) == count_multiply_adds(base, x)


def test_the_logits_are_the_sum_written_out_by_hand(base, x):
    net = augmented(base, x)
    flat = base[:6](x)
    hidden = functional.relu(functional.linear(flat, base[6].weight, base[6].bias))
    expected = functional.linear(hidden, net.classifier.weight, net.classifier.bias)
    for group, head in zip(GROUPS, net.rounds[0].heads, strict=True):
        units = flat
        for layer in head.hidden[::2]:
            units = functional.relu(functional.linear(units, layer.weight, layer.bias))
        expected[:, group] += units @ head.output.weight.T
    torch.testing.assert_close(net(x), expected)


def test_with_the_heads_outputs_zeroed_it_is_base_features_and_classifier(base, x):
    net = augmented(base, x, rounds=2)
    for heads in net.rounds:
        for head in heads.heads:
            nn.init.zeros_(head.output.weight)
    assert torch.equal(net(x), net.classifier(base[:8](x)))


def test_old_weights_and_buffers_survive_training_bit_for_bit(base, x):
    old = copy.deepcopy(base.state_dict())
    net = augmented(base, x).train()
    assert not net.trunk[1].training  # batch normalization
    assert not net.trunk[5].training  # dropout
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(net(x), torch.arange(6) % 5).backward()
        optimizer.step()
    after = net.state_dict()
    for name, value in after.items():
        is_old = name.startswith("trunk") or name.endswith("columns")
        assert torch.equal(value, before[name]) == is_old, name
    for name, value in old.items():
        assert torch.equal(base.state_dict()[name], value)


def test_a_second_round_freezes_the_first_ones_stacks_and_renews_their_outputs(base, x):
    net = augmented(base, x)
    first = net.rounds[0].heads[1]
    stack, output = copy.deepcopy(first.hidden), first.output.weight.clone()
    classifier = net.classifier
    net.add_heads([[4, 3, 2], [0, 1]], [(2,), (2,)], seed=9)
    assert net.classifier is not classifier
    assert not torch.equal(first.output.weight, output)
    assert torch.equal(first.hidden[0].weight, stack[0].weight)
    learning = {name for name, p in net.named_parameters() if p.requires_grad}
    assert {name.rsplit(".", 1)[0] for name in learning} == {
        "classifier",
        *(f"rounds.0.heads.{i}.output" for i in (0, 1)),
        *(f"rounds.1.heads.{i}.output" for i in (0, 1)),
        *(f"rounds.1.heads.{i}.hidden.0" for i in (0, 1)),
    }
    net.unfreeze()
    assert all(p.requires_grad for p in net.parameters())
    assert net.train().trunk[1].training


@pytest.mark.parametrize("layer", ["auto", "2", "6"])
def test_kept_features_give_the_same_logits(base, x, layer):
    net = AugmentedNet(base, find_attachment_point(base, x, 5, layer))
    net.add_heads(GROUPS, [(3,), ()], seed=0)
    net.eval()
    rows = net.join(x)
    with net.reading_features():
        kept = net(rows)
    torch.testing.assert_close(kept, net(x))


def test_weights_are_drawn_from_the_seed_alone(base, x):
    state = torch.get_rng_state()
    one, two, other = (augmented(base, x) for _ in range(3))
    assert torch.equal(torch.get_rng_state(), state)
    other = AugmentedNet(base, one.point)
    other.add_heads(GROUPS, [(3,), (4, 2)], seed=1)
    assert torch.equal(one(x), two(x))
    assert not torch.equal(one(x), other.eval()(x))


def test_the_extra_multiply_adds_are_the_heads_own(base, x):
    extra = 16 * 3 + 3 * 2 + 16 * 4 + 4 * 2 + 2 * 3
    before = count_multiply_adds(base, x)
    assert count_multiply_adds(augmented(base, x), x) == before + extra


def test_double_precision_stays(base, x):
    net = AugmentedNet(
        base.double(), find_attachment_point(base, x.double(), 5, "auto")
    )
    net.add_heads(GROUPS, [(3,), (4, 2)], seed=0)
    assert {p.dtype for p in net.parameters()} == {torch.float64}


# ---- conditional evaluation ----------------------------------------------------


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_heads_decide_over_what_the_old_network_holds_likely(
    base, x, top_k, multilabel
):
    net = AugmentedNet(base, find_attachment_point(base, x, 5, "auto"))
    rounds = [GROUPS, [[0, 1, 2], [3, 4]]]
    for groups in rounds:
        net.add_heads(groups, [(3,), (4, 2)], seed=0)
    net.eval()
    with torch.inference_mode():
        old, new = base(x), net(x)
        got = ConditionalNet(net, base[8], top_k, multilabel).eval()(x)
    for row in range(len(x)):
        best = set(old[row].topk(top_k).indices.tolist())
        refined = [
            label
            for label in range(5)
            if all(
                best & set(next(group for group in groups if label in group))
                for groups in rounds
            )
        ]
        rest = sorted(set(range(5)) - set(refined))
        if multilabel:
            torch.testing.assert_close(got[row, refined], new[row, refined])
            torch.testing.assert_close(got[row, rest], old[row, rest])
            continue
        p, before = got[row].softmax(0), old[row].softmax(0)
        shares = new[row, refined].softmax(0)
        torch.testing.assert_close(p[rest], before[rest])
        torch.testing.assert_close(p[refined], before[refined].sum() * shares)


def test_a_large_convnet_can_be_augmented_anywhere():
    net, x = make_convnet((3, 16, 16), 4), torch.randn(2, 3, 16, 16)
    for name, _ in net.named_children():
        if name not in ("7", "8", "9"):
            point = find_attachment_point(net, x, 4, name)
            module = AugmentedNet(net, point)
            module.add_heads([[0, 1], [2, 3]], [(3,), (3,)], seed=0)
            assert module(x).shape == (2, 4)


def test_it_trains_in_a_skorch_net_of_ones_own(base, x):
    net = augmented(base, x)
    old = copy.deepcopy(net.trunk.state_dict())
    head = net.rounds[0].heads[0].output.weight.clone()
    wrapper = NeuralNetClassifier(
        net,
        criterion=nn.CrossEntropyLoss,
        train_split=None,
        max_epochs=2,
        lr=0.1,
        verbose=0,
    )
    wrapper.fit(x.repeat(5, 1, 1, 1), torch.arange(30) % 5)
    trained = wrapper.module_
    assert all(torch.equal(v, old[k]) for k, v in trained.trunk.state_dict().items())
    assert not torch.equal(trained.rounds[0].heads[0].output.weight, head)


# ---- a plain network -----------------------------------------------------------


@pytest.mark.parametrize("layer", ["auto", "2", "6"])
def test_compaction_gives_a_smaller_network_with_the_same_outputs(base, x, layer):
    net = AugmentedNet(base, find_attachment_point(base, x, 5, layer))
    for seed in range(2):
        net.add_heads(GROUPS, [(3,), ()], seed=seed)
    with torch.no_grad():
        net.trunk[6].weight[2:5] = net.trunk[6].bias[2:5] = 0
        net.rounds[0].heads[0].hidden[0].weight[1] = 0
    net.eval()
    plain = net.simplified()
    torch.testing.assert_close(plain(x), net(x))
    smaller = compact(net, x)
    torch.testing.assert_close(smaller(x), net(x))
    sizes = [sum(p.numel() for p in n.parameters()) for n in (plain, smaller)]
    assert sizes[1] < sizes[0]


def test_a_classifier_layer_listed_twice_is_one_layer(x):
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.out = nn.Linear(64, 7), nn.Linear(7, 5)
            self.all = nn.ModuleList([self.stem, self.out])

        def forward(self, x):
            return self.out(self.stem(x.flatten(1)).relu())

    old = Listed().eval()
    net = AugmentedNet(old, find_attachment_point(old, x, 5, "all.0"))
    assert torch.equal(net(x), old(x))
    net.add_heads(GROUPS, [(3,), ()], seed=0)
    assert net(x).shape == (6, 5)


# ---- places of one's own, and convolutions ----------------------------------------


@pytest.mark.parametrize("layers", [["auto", "2"], ["6", "auto"], ["2", "0"]])
def test_each_round_reads_a_place_of_its_own(base, x, layers):
    def reads(layer):
        parts = list(base)[: 6 if layer == "auto" else int(layer) + 1]
        parts = [nn.ReLU() if isinstance(part, nn.ReLU) else part for part in parts]
        return nn.Sequential(*parts)(x).flatten(1)

    net = AugmentedNet(base, find_attachment_point(base, x, 5, layers))
    for seed in range(2):
        net.add_heads(GROUPS, [(3,), (2,)], seed=seed)
    net.eval()
    expected = net.classifier(base[:8](x))
    for layer, heads in zip(layers, net.rounds, strict=True):
        expected = expected + heads(reads(layer))
    torch.testing.assert_close(net(x), expected)
    torch.testing.assert_close(net.simplified()(x), expected)
    torch.testing.assert_close(PredictingNet(net)(x), expected)
    with net.reading_features():
        torch.testing.assert_close(net(net.join(x)), expected)
    gate = nn.Linear(7, 5)
    both = [
        ConditionalNet(net, gate, 1, counted=counted)(x) for counted in (False, True)
    ]
    torch.testing.assert_close(*both)


def test_places_may_lie_inside_of_each_other(x):
    torch.manual_seed(0)
    old = nn.Sequential(
        nn.Flatten(), nn.Sequential(nn.Linear(64, 9), nn.ReLU()), nn.Linear(9, 5)
    )
    net = AugmentedNet(old, find_attachment_point(old, x, 5, ["1", "1.0"]))
    for seed in range(2):
        net.add_heads(GROUPS, [(3,), (2,)], seed=seed)
    torch.testing.assert_close(net.simplified()(x), net(x))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("sizes", [[(3,), (2,)], [(3, 2), (2, 4)], [(), ()]])
@pytest.mark.parametrize("calling", [0, 1e18])
def test_heads_of_convolutions(axes, sizes, calling, monkeypatch):
    monkeypatch.setattr(room, "SORTING", 0)
    monkeypatch.setattr(room, "CALLING", calling)
    torch.manual_seed(0)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    apply = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    old = nn.Sequential(
        conv(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4**axes, 5)
    ).eval()
    x = torch.randn(6, 1, *[4] * axes)
    point = find_attachment_point(old, x, 5, "auto", 3)
    assert (point.places[0].layer, point.places[0].shape) == ("1", (4, *[4] * axes))
    net = AugmentedNet(old, point)
    net.add_heads(GROUPS, sizes, seed=0, kernel_size=3)
    net.eval()
    expected = old[:3](x) @ net.classifier.weight.T + net.classifier.bias
    extra = 0
    for group, head, widths in zip(GROUPS, net.rounds[0].heads, sizes, strict=True):
        maps, n = old[:2](x), 4
        convolutions = [part for part in head.hidden if isinstance(part, conv)]
        for part, width in zip(convolutions, widths, strict=True):
            maps = apply(maps, part.weight, part.bias, padding=1).relu()
            extra, n = extra + 4**axes * 3**axes * n * width, width
        extra += n * len(group)
        expected[:, group] += maps.flatten(2).mean(2) @ head.output.weight.T
    torch.testing.assert_close(net(x), expected)
    torch.testing.assert_close(PredictingNet(net)(x), expected)
    assert isinstance(PredictingNet(net).added[0][1], BatchedConvolutions)
    assert count_multiply_adds(net, x) - count_multiply_adds(old, x) == extra
    assert extra == sum(
        head_cost(point.places[0], s, len(g), 3)
        for s, g in zip(sizes, GROUPS, strict=True)
    )
    gate = nn.Linear(old[3].in_features, 5)
    both = [
        ConditionalNet(net, gate, 1, counted=counted)(x) for counted in (False, True)
    ]
    torch.testing.assert_close(*both)
    torch.testing.assert_close(net.simplified()(x), expected)
    torch.testing.assert_close(compact(net, x)(x), expected)
