"""Layers and node sets: sharing, modes, life."""

import copy
import pickle

import pytest
import torch
from torch import nn

from sklearn_structreg.blockout import BlockoutLinear, NodeSet, draws


def chain(k=3, mask_per="batch", **settings):
    sets = [NodeSet(size, k, **settings) for size in (6, 8, 4)]
    return nn.Sequential(
        BlockoutLinear(sets[0], sets[1], mask_per=mask_per),
        nn.ReLU(),
        BlockoutLinear(sets[1], sets[2], mask_per=mask_per),
    )


def effective_weight(layer):
    """The masked weight of one training forward, read off by unit inputs."""
    eye = torch.eye(layer.inputs.n_nodes)
    return (layer(eye) - layer.bias).T.detach()


def test_neighbours_share_a_draw_and_forwards_do_not(path):
    """A hidden node that is in no cluster neither receives nor sends anything."""
    torch.manual_seed(0)
    net = chain(k=1)
    first, second = net[0], net[2]
    patterns = set()
    for _ in range(20):
        receiving = effective_weight(first).any(1)
        sending = effective_weight(second).any(0)
        if sending.any():  # a class is in the cluster
            patterns.add(tuple(sending.tolist()))
        if receiving.any() and sending.any():
            assert torch.equal(receiving, sending)
    assert len(patterns) > 5


def test_evaluation_draws_nothing_and_repeats(path):
    net = chain().eval()
    x = torch.randn(5, 6)
    state = torch.get_rng_state()
    assert torch.equal(net(x), net(x))
    assert torch.equal(torch.get_rng_state(), state)
    net.train()
    assert not torch.equal(net(x), net(x))


def test_inference_follows_every_change():
    net, other, x = chain().eval(), chain().eval(), torch.randn(5, 6)
    before = net(x)
    with torch.no_grad():
        net[0].inputs.logits += 1
    assert not torch.allclose(net(x), before)
    net.load_state_dict(other.state_dict())
    assert torch.equal(net(x), other(x))
    net[0].weight.data.mul_(2)
    assert not torch.allclose(net(x), other(x))


def test_each_sample_has_a_mask_of_its_own():
    torch.manual_seed(0)
    net = chain(mask_per="sample")
    rows = net(torch.ones(50, 6))
    assert len(rows.detach().unique(dim=0)) > 40
    same = chain(mask_per="batch")(torch.ones(50, 6))
    assert len(same.detach().unique(dim=0)) == 1


def test_soft_memberships_are_the_probabilities(path):
    torch.manual_seed(0)
    net = chain(assignment="soft")
    x = torch.randn(5, 6)
    torch.testing.assert_close(net(x), net.eval()(x))
    logits = net[0].inputs.logits
    assert (logits.std(1) > 0).all(), "clusters that start alike stay alike"
    net.train()(x).square().sum().backward()
    assert (logits.grad != 0).all()


@pytest.mark.parametrize("learn_probabilities", [True, False])
def test_probability_one_is_the_plain_layer(learn_probabilities):
    settings = {"init_probability": 1, "learn_probabilities": learn_probabilities}
    net = chain(**settings)
    plain = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    for ours, theirs in zip((net[0], net[2]), (plain[0], plain[2]), strict=True):
        theirs.load_state_dict({"weight": ours.weight, "bias": ours.bias})
    x = torch.randn(5, 6)
    state = torch.get_rng_state()
    assert torch.equal(net(x), plain(x))
    assert torch.equal(torch.get_rng_state(), state)
    assert not any("logits" in name for name, _ in net.named_parameters())


def test_probabilities_that_grew_to_one_leave_the_weight_as_it_is(path):
    net = chain(k=7)
    for nodes in (net[0].inputs, net[0].outputs):
        nn.init.constant_(nodes.logits, 200.0)
    x = torch.randn(5, 6)
    plain = nn.functional.linear(x, net[0].weight, net[0].bias)
    assert torch.equal(net[0](x), plain)
    assert torch.equal(net[0].eval()(x), plain)


def test_a_net_is_copied_and_pickled_between_forwards():
    net = chain()
    net(torch.randn(5, 6)).sum().backward()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin[0].outputs is twin[2].inputs
        assert twin[0].outputs is not net[0].outputs
        torch.testing.assert_close(twin.state_dict(), net.state_dict())
        twin(torch.randn(5, 6))


def test_the_logits_of_a_shared_set_are_one_parameter():
    names = [name for name, _ in chain().named_parameters() if "logits" in name]
    assert names == ["0.inputs.logits", "0.outputs.logits", "2.outputs.logits"]


def test_fixed_probabilities_are_no_parameters_but_part_of_the_state():
    net = chain(learn_probabilities=False, init_probability=0.3)
    assert not any("logits" in name for name, _ in net.named_parameters())
    assert "0.inputs.logits" in net.state_dict()
    torch.testing.assert_close(net[0].inputs.probabilities, torch.full((6, 3), 0.3))


def test_a_forward_that_broke_off_leaves_no_draw_to_the_next(path):
    torch.manual_seed(0)
    net = chain(k=1)
    for _ in range(10):
        net[0](torch.ones(1, 6))  # the second layer never runs
        receiving = effective_weight(net[0]).any(1)
        sending = effective_weight(net[2]).any(0)
        if receiving.any() and sending.any():
            assert torch.equal(receiving, sending)


@pytest.mark.parametrize("between", [lambda h: h.mean(1), lambda h: h[:, 0]])
def test_a_sample_of_several_rows_has_one_draw(between, monkeypatch):
    drawn = []

    def spy(*arguments):
        drawn.append(draw_memberships(*arguments))
        return drawn[-1]

    draw_memberships = draws.draw_memberships
    monkeypatch.setattr(draws, "draw_memberships", spy)
    torch.manual_seed(0)
    one, _, two = chain(mask_per="sample")
    x = torch.randn(5, 3, 6)
    alike = one(x[:, :1].expand(5, 3, 6))
    torch.testing.assert_close(alike, alike[:, :1].expand(alike.shape))
    hidden = between(one(x))
    y = two(hidden)
    *_, c_in, c_out = drawn
    for i in range(5):
        weight = two.weight * (c_out[i] @ c_in[i].T / 3)
        torch.testing.assert_close(y[i], weight @ hidden[i] + two.bias)


def test_samples_that_are_mixed_up_between_layers():
    one, _, two = chain(mask_per="sample")
    with pytest.raises(ValueError, match="got 15 samples after one with 5"):
        two(one(torch.randn(5, 3, 6)).flatten(0, 1))


def test_a_state_dict_carries_the_scale():
    torch.manual_seed(0)
    sets = [NodeSet(size, 3) for size in (6, 4)]
    one, two = BlockoutLinear(*sets, scale=2.5), BlockoutLinear(*sets)
    two.load_state_dict(one.state_dict())
    x = torch.randn(3, 6)
    assert torch.equal(one.eval()(x), two.eval()(x))
    assert (two.in_features, two.out_features) == (6, 4)
