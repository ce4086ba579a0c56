"""Networks whose channels are shuffled, attended to or remembered."""

import pickle

import pytest
import torch
from compaction.networks import (
    Recurrent,
    ShuffleNet,
    Transformer,
    assert_same_outputs,
    count,
    randomize,
)
from torch import nn
from torch.nn import functional

from sklearn_structreg.compaction import compact, size_report

generator = torch.Generator().manual_seed(0)
IMAGES = torch.randn(5, 2, 8, 8, generator=generator, dtype=torch.float64)


def dense(network):
    return randomize(network, generator.manual_seed(0), 0.0, 0.0)


def compare(network, batch=IMAGES):
    smaller = compact(network, batch)
    assert_same_outputs(network, smaller, batch)
    assert_same_outputs(smaller, compact(smaller, batch), batch)
    assert count(compact(smaller, batch)) == count(smaller)
    assert_same_outputs(network, pickle.loads(pickle.dumps(smaller)), batch)
    return smaller


@torch.no_grad()
def zero(layer, name="weight", rows=(), columns=()):
    getattr(layer, name)[list(rows)] = 0.0
    getattr(layer, name)[:, list(columns)] = 0.0


# ---- ShuffleNet ------------------------------------------------------------------


def widths(network):
    """Count the channels that the branches of three units give."""
    names = "0.branch1.2", "0.branch2.5", "1.branch2.5", "2.branch2.5"
    layers = [network.get_submodule(f"stage.{name}") for name in names]
    return [layer.out_channels for layer in layers]


def test_shuffled_channels_that_nobody_reads_go():
    network = dense(ShuffleNet())
    zero(network.last, columns=[0, 1, 2])
    smaller = compare(network)
    # behind a shuffle channels 0, 2, ... are those of the first half in order
    assert smaller.last.in_channels == 9
    assert widths(smaller) == [5, 6, 5, 5]
    zero(network.stage[1].branch2[0], columns=range(6))
    zero(network.stage[2].branch2[0], columns=range(6))
    smaller = compare(network)  # 1, 1, 2 and a placeholder for each branch not read
    assert widths(smaller)[:3] == [2, 2, 2]
    report = size_report(network, IMAGES, n_repeats=0)
    assert report.n_compact == count(smaller)


def test_a_rewritten_network_trains_and_takes_other_sizes():
    network = dense(ShuffleNet())
    zero(network.last, columns=[0, 5])
    smaller = compare(network)
    larger = torch.randn(3, 2, 12, 10, dtype=torch.float64)
    assert_same_outputs(network, smaller, larger)
    assert type(smaller).__name__ == "ShuffleNet"
    smaller.train()(IMAGES).sum().backward()
    assert all(p.grad is not None for p in smaller.parameters())
    assert smaller.state_dict().keys() >= network.state_dict().keys()


def test_a_network_without_dead_channels_is_not_rewritten():
    network = dense(ShuffleNet())
    assert type(compare(network)) is ShuffleNet


class Halves(nn.Module):
    """Reads its channels by number."""

    def __init__(self, mix):
        super().__init__()
        self.first, self.last, self.mix = nn.Linear(4, 6), nn.LazyLinear(2), mix

    def forward(self, x):
        return self.last(self.mix(torch.tanh(self.first(x))))


MIXES = [
    (lambda x: torch.cat([x[:, 3:], x[:, :3]], dim=1), [3, 4, 5, 0, 1, 2]),
    (
        lambda x: torch.cat([x.split(2, 1)[1], x[:, 4:], x[:, :2]], 1),
        [2, 3, 4, 5, 0, 1],
    ),
    (lambda x: x.view(-1, 2, 3).transpose(1, 2).reshape(-1, 6), [0, 3, 1, 4, 2, 5]),
    (lambda x: x.unflatten(1, (3, 2)).swapaxes(2, 1).flatten(1), [0, 2, 4, 1, 3, 5]),
    (lambda x: functional.channel_shuffle(x[..., None], 3)[..., 0], [0, 2, 4, 1, 3, 5]),
    (lambda x: x.narrow(1, 2, 3), [2, 3, 4]),
    (lambda x: torch.cat([x, x[:, 1:2]], 1), [0, 1, 2, 3, 4, 5, 1]),
]


@pytest.mark.parametrize(("mix", "order"), MIXES)
def test_channels_by_number(mix, order):
    batch = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    network = Halves(mix).double()
    network(batch)
    network = dense(network)
    for dead in (1, 4):
        readers = [i for i, channel in enumerate(order) if channel == dead]
        zero(network.last, columns=readers)
        smaller = compare(network, batch)
        alive = {c for i, c in enumerate(order) if network.last.weight[0, i] != 0}
        assert smaller.first.out_features == len(alive)


# ---- attention -------------------------------------------------------------------


@torch.no_grad()
def with_attention(network):
    dense(network)
    for layer in network.modules():
        if isinstance(layer, nn.MultiheadAttention):
            for parameter in layer.parameters():
                parameter.normal_(generator=generator)
    return network


@pytest.mark.parametrize("settings", [{}, {"norm_first": True}, {"activation": "gelu"}])
def test_heads_and_units_of_a_transformer(settings):
    network = with_attention(Transformer(n_heads=3, **settings))
    first, second = network.encoder.layers
    zero(first.self_attn.out_proj, columns=range(4, 8))
    zero(second.self_attn.out_proj, columns=[0, 1, 2])  # not the whole head
    zero(first.linear2, columns=[2, 3])
    zero(second.linear1, rows=[5])  # a constant
    smaller = compare(network)
    first, second = smaller.encoder.layers
    assert (first.self_attn.num_heads, second.self_attn.num_heads) == (2, 3)
    assert first.self_attn.in_proj_weight.shape == (3 * 8, 12)
    assert type(second.self_attn) is nn.MultiheadAttention
    assert (first.linear1.out_features, second.linear1.out_features) == (8, 9)
    assert_same_outputs(network, smaller.train(), IMAGES)
    report = size_report(network, IMAGES, n_repeats=0)
    assert report.n_compact == count(smaller)


class Causal(Transformer):
    """Looks at earlier patches only."""

    def __init__(self):
        super().__init__(n_heads=2)
        self.register_buffer("mask", torch.ones(4, 4).triu(1).bool())

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(x, mask=self.mask)[:, -1])


def test_a_transformer_with_a_mask():
    network = with_attention(Causal())
    zero(network.encoder.layers[1].self_attn.out_proj, columns=range(4))
    smaller = compare(network)
    assert smaller.encoder.layers[1].self_attn.num_heads == 1


class Attending(nn.Module):
    """Attention with everything that its call may have."""

    def __init__(self, weights=False, mask=None, **settings):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 3, **settings)
        self.last, self.weights, self.mask = nn.Linear(6, 2), weights, mask

    def forward(self, x):
        key = torch.tanh(x)
        out, weights = self.attention(x, key, key + 1, attn_mask=self.mask)
        return self.last(out) + (weights.sum() if self.weights else 0)


CAUSAL = torch.ones(4, 4).triu(1).bool()
CALLS = [
    ({}, 2),
    ({"batch_first": True}, 2),
    ({"bias": False}, 2),
    ({"kdim": 6, "vdim": 6, "batch_first": True}, 2),
    ({"mask": CAUSAL, "batch_first": True}, 2),
    ({"mask": CAUSAL.double() * -9, "batch_first": True}, 2),
    ({"mask": CAUSAL[None].expand(9, 4, 4)}, 3),
    ({"weights": True, "batch_first": True}, 3),
    ({"add_bias_kv": True}, 3),
    ({"add_zero_attn": True}, 3),
]


@pytest.mark.parametrize(("settings", "n_heads"), CALLS)
def test_heads_that_go_and_heads_that_stay(settings, n_heads):
    network = with_attention(Attending(**settings))
    zero(network.attention.out_proj, columns=[2, 3])
    shape = (3, 4, 6) if settings.get("batch_first") else (4, 3, 6)
    batch = torch.randn(shape, generator=generator, dtype=torch.float64)
    smaller = compare(network, batch)
    assert smaller.attention.num_heads == n_heads


def test_a_head_with_constant_values_is_folded():
    network = with_attention(Attending(batch_first=True))
    zero(network.attention, "in_proj_weight", rows=[14, 15])
    batch = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    assert compare(network, batch).attention.num_heads == 2


class Written(nn.Module):
    """Attention that is written out, with one map for queries, keys and values."""

    def __init__(self, fused):
        super().__init__()
        self.first, self.qkv = nn.Linear(6, 6), nn.Linear(6, 18)
        self.out, self.last = nn.Linear(6, 5), nn.Linear(5, 2)
        self.fused = fused

    def forward(self, x):
        n, length, width = x.shape
        q, k, v = self.qkv(torch.relu(self.first(x))).split(width, dim=2)
        q, k, v = (y.view(n, length, 3, width // 3).transpose(1, 2) for y in (q, k, v))
        if self.fused:
            y = functional.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q @ k.transpose(-2, -1)) * k.size(-1) ** -0.5).softmax(-1) @ v
        y = y.transpose(1, 2).contiguous().view(n, length, width)
        return self.last(torch.tanh(self.out(y)))


@pytest.mark.parametrize("fused", [False, True])
def test_attention_that_is_written_out_stays_whole(fused):
    network = dense(Written(fused))
    zero(network.out, columns=[0, 1])
    zero(network.qkv, columns=[3])
    zero(network.last, columns=[2])
    batch = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    smaller = compare(network, batch)
    assert smaller.first.out_features == 5
    assert smaller.qkv.out_features == 18
    assert smaller.last.in_features == 4


# ---- recurrent layers ------------------------------------------------------------

KINDS = [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)]


@torch.no_grad()
def with_memory(network):
    dense(network)
    for parameter in network.memory.parameters():
        parameter.normal_(generator=generator)
    return network


@pytest.mark.parametrize(("kind", "n_gates"), KINDS)
@pytest.mark.parametrize("last", [False, True])
def test_units_that_nobody_remembers(kind, n_gates, last):
    network = with_memory(Recurrent(kind, last=last))
    zero(network.head, columns=[1, 3])
    assert compare(network).memory.hidden_size == 5  # the others read them
    zero(network.memory, "weight_hh_l0", columns=[1])
    assert compare(network).memory.hidden_size == 4
    with torch.no_grad():  # of 3, which is read by itself and by nobody else
        gates = network.memory.weight_hh_l0.view(n_gates, 5, 5)
        gates[:, [0, 1, 2, 4], 3] = 0.0
    zero(network.memory, "weight_ih_l0", columns=[2])
    smaller = compare(network)
    assert (smaller.memory.hidden_size, smaller.memory.input_size) == (3, 5)
    assert smaller.rows.out_features == 5
    assert smaller.memory.weight_hh_l0.shape == (3 * n_gates, 3)


@pytest.mark.parametrize(("kind", "n_gates"), KINDS)
def test_units_without_news_are_zero(kind, n_gates):
    network = with_memory(Recurrent(kind))
    memory, row = network.memory, {4: 2, 3: 2, 1: 0}[n_gates] * 5 + 1
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter[row] = 0.0
    assert compare(network).memory.hidden_size == 4


@pytest.mark.parametrize(("kind", "n_gates"), KINDS)
def test_all_sides_keep_equally_many_units(kind, n_gates):
    network = with_memory(Recurrent(kind, num_layers=2, bidirectional=True, last=False))
    for name in ("l0", "l0_reverse", "l1", "l1_reverse"):
        zero(network.memory, f"weight_hh_{name}", columns=[0, 1])
    zero(network.head, columns=[0, 1, 5, 6])
    for name in ("l1", "l1_reverse"):
        zero(network.memory, f"weight_ih_{name}", columns=[1, 5])
    smaller = compare(network)
    assert smaller.memory.hidden_size == 4
    assert smaller.memory.weight_ih_l1.shape == (4 * n_gates, 8)
    assert smaller.head.in_features == 8


def test_constant_inputs_go_into_the_bias():
    network = with_memory(Recurrent(nn.LSTM))
    zero(network.rows, rows=[0, 4])
    assert compare(network).memory.input_size == 4


class Words(nn.Module):
    """Reads words."""

    def __init__(self):
        super().__init__()
        self.table, self.memory = nn.Embedding(9, 6), nn.GRU(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        _, state = self.memory(self.table(x).transpose(0, 1))
        return self.head(state[-1])


def test_embeddings():
    network, words = with_memory(Words()), torch.randint(9, (4, 7))
    zero(network.memory, "weight_ih_l0", columns=[2])
    with torch.no_grad():
        network.table.weight[:, 0] = 2.0
    smaller = compare(network, words)
    assert smaller.table.weight.shape == (9, 4)
    assert smaller.memory.input_size == 4


def test_a_recurrent_layer_with_a_projection_stays_whole():
    network = Recurrent(nn.LSTM, proj_size=2)
    network.head = nn.Linear(2, 3)
    with_memory(network)
    zero(network.head, columns=[0])
    assert compare(network).memory.hidden_size == 5


class Stateful(Recurrent):
    """Gives its memory a state."""

    def forward(self, x):
        x = self.rows(x.transpose(1, 2).flatten(2))
        state = x.new_zeros(1, x.shape[0], 5)
        return self.head(self.memory(x, state)[0][:, -1])


def test_a_recurrent_layer_with_a_state_of_its_own_is_named():
    network = with_memory(Stateful(nn.GRU))
    zero(network.head, columns=[0])
    zero(network.memory, "weight_hh_l0", columns=[0])
    with pytest.raises(ValueError, match=r"'memory' \(GRU\) is called with something"):
        compact(network, IMAGES)
    smaller = compact(network, IMAGES, unsupported="keep")
    assert_same_outputs(network, smaller, IMAGES)
    assert smaller.memory.hidden_size == 5
