"""The invariants of the DropCluster layers."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sklearn_structreg.core import insert_layer
from sklearn_structreg.dropcluster import (
    DropCluster1d,
    DropCluster2d,
    DropCluster3d,
    rena,
)

LAYERS = {1: DropCluster1d, 2: DropCluster2d, 3: DropCluster3d}
SHAPES = {1: (12,), 2: (6, 7), 3: (3, 4, 5)}


def maps_of(n_dims, n_samples=8, n_channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_samples, n_channels, *SHAPES[n_dims], generator=generator)


def with_clusters(sizes, n_channels, structured=None, **params):
    """A layer for signals, whose clusters have the given sizes in every channel."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    layer = DropCluster1d(**params)
    layer.set_clusters(labels.expand(n_channels, -1), structured)
    return layer


def masks(layer, n_draws):
    return torch.stack([layer.draw_mask() for _ in range(n_draws)])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


# ---- what is dropped -----------------------------------------------------------


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_a_mask_drops_whole_clusters_of_the_channel_for_all_samples(n_dims):
    maps = maps_of(n_dims)
    layer = LAYERS[n_dims](5, drop_rate=0.4)
    layer.update_clusters(maps)
    assert torch.equal(layer.cluster_labels, rena(maps, 5).labels)
    for _ in range(20):
        out = layer(torch.ones_like(maps))
        assert torch.equal(out, out[:1].expand_as(out))
        for channel, labels in zip(out[0], layer.cluster_labels, strict=True):
            of_cluster = [channel[labels == k].unique() for k in range(5)]
            assert all(len(values) == 1 for values in of_cluster)
            assert sum(bool(values == 0) for values in of_cluster) == 2


def test_channels_are_drawn_one_by_one():
    layer = with_clusters([1] * 10, 2, drop_rate=0.3)
    first, second = (masks(layer, 200) == 0).unbind(1)
    assert not torch.equal(first, second)
    assert abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("rate", "sizes"),
    [
        (0.1, [1] * 15),
        (0.1, [100, 1, 1, 1, 1, 30, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (0.25, [40, 1, 1]),
        (0.2, [1] * 15),
        (0.6, [5, 1, 2, 4, 9]),
    ],
)
def test_the_mean_rate_is_p_within_its_standard_error(rate, sizes):
    # Also where p n is no integer, and whatever the clusters' sizes.
    n_draws, n_channels = 500, 20
    layer = with_clusters(sizes, n_channels, drop_rate=rate)
    # A channel's share of dropped pixels; all of them are independent draws.
    shares = (masks(layer, n_draws) == 0).double().mean(-1).flatten()
    error = shares.std() / len(shares) ** 0.5
    assert abs(shares.mean() - rate) < 4 * error + 1e-12
    assert error > 0
    # And every cluster goes equally often.
    firsts = np.cumsum([0, *sizes[:-1]])
    rates = (masks(layer, n_draws)[..., firsts] == 0).double().flatten(0, 1).mean(0)
    assert (rates - rate).abs().max() < 5 * (rate * (1 - rate) / 10_000) ** 0.5


@pytest.mark.parametrize(("rate", "n_dropped"), [(0.1, 1), (0.2, 3), (0.25, 3)])
def test_rounding_down_drops_the_papers_number_of_clusters(rate, n_dropped):
    layer = with_clusters([1] * 15, 4, drop_rate=rate, rounding="down")
    assert ((masks(layer, 50) == 0).sum(-1) == n_dropped).all()


def test_rounding_down_is_not_misled_by_rounding():
    assert 0.29 * 100 < 29
    layer = with_clusters([1] * 100, 4, drop_rate=0.29, rounding="down")
    assert ((masks(layer, 5) == 0).sum(-1) == 29).all()


# ---- the gain ------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=10),
    st.floats(0, 0.5),
    st.lists(st.booleans(), min_size=2, max_size=6).filter(any),
)
def test_the_mean_gain_over_structured_channels_is_one(sizes, rate, structured):
    structured = torch.tensor(structured)
    layer = with_clusters(sizes, len(structured), structured, drop_rate=rate)
    mask = layer.draw_mask()
    assert (mask[~structured] == 0).all()
    assert mask[structured].mean().item() == pytest.approx(1, rel=1e-5)
    assert len(mask[mask > 0].unique()) == 1


@pytest.mark.parametrize("dead", [0, 10])
def test_the_expected_gain_is_one_in_training_and_inference(dead):
    # The paper's literal count would give 64 / 54 with 10 dead channels.
    structured = torch.arange(64) >= dead
    layer = with_clusters([9, 1, 3, 3, 2], 64, structured, drop_rate=0.1)
    x = torch.ones(1, 64, 18)
    gains = torch.stack([layer(x)[0] for _ in range(2000)]).double()
    kept = gains[:, structured]
    error = kept.std(0) / len(kept) ** 0.5
    # Of 64 channels the factor differs a little from draw to draw: E[1/x] > 1/E[x].
    assert ((kept.mean(0) - 1).abs() < 5 * error + 1e-3).all()
    layer.eval()
    assert (layer(x)[0, structured] == 1).all()


@pytest.mark.parametrize("n_clusters", [1, 2, 3, 5])
def test_two_clusters_always_stay(n_clusters):
    layer = with_clusters([1] * n_clusters, 4, drop_rate=0.95)
    kept = (masks(layer, 100) > 0).sum(-1)
    assert kept.min() == kept.max() == min(n_clusters, 2)


def test_channels_may_have_different_numbers_of_clusters():
    layer = DropCluster1d(drop_rate=0.5)
    layer.set_clusters(torch.tensor([[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 3]]))
    n_kept = [set((drawn > 0).sum(-1).tolist()) for drawn in masks(layer, 50).unbind(1)]
    assert n_kept == [{3}, {2, 3, 4}]  # two of four, which have one or two pixels
    rates = (masks(layer, 4000) == 0).double().mean(0)
    assert (rates - 0.5).abs().max() < 5 * 0.5 / 4000**0.5


def test_every_sample_has_a_draw_of_its_own_where_asked():
    layer = with_clusters([4, 2, 1, 1], 3, drop_rate=0.5, mask_per="sample")
    out = layer(torch.ones(200, 3, 8))
    assert not torch.equal(out[0], out[1])
    assert ((out == 0).double().mean((0, 1)) - 0.5).abs().max() < 5 * 0.5 / 600**0.5
    assert out.mean().item() == pytest.approx(1, rel=1e-5)
    for labels, pixels in zip(layer.cluster_labels, out.unbind(1), strict=True):
        for k in range(4):
            of_cluster = pixels[:, labels == k]
            assert torch.equal(of_cluster, of_cluster[:, :1].expand_as(of_cluster))


def test_drop_rate_zero_passes_the_very_tensor_on_and_draws_nothing():
    layer = with_clusters([2, 2], 3, drop_rate=0, unstructured=None)
    x = torch.randn(2, 3, 4)
    state = torch.get_rng_state()
    assert layer(x) is x
    assert torch.equal(torch.get_rng_state(), state)


# ---- unstructured channels -----------------------------------------------------


def test_unstructured_channels_are_zero_in_both_modes():
    maps = maps_of(2)
    maps[:, 1] = 3.0
    layer = DropCluster2d(5, drop_rate=0.2, unstructured="auto")
    layer.update_clusters(maps)
    assert layer.structured_channels.tolist() == [True, False, True]
    for mode in (True, False):
        out = layer.train(mode)(maps)
        assert (out[:, 1] == 0).all()
    assert torch.equal(out[:, [0, 2]], maps[:, [0, 2]])


def test_no_channel_is_masked_unless_asked():
    maps = maps_of(2)
    maps[:, 1] = 3.0
    layer = DropCluster2d(5).eval()
    layer.update_clusters(maps)
    assert layer(maps) is maps


def test_unstructured_hopkins_masks_noise():
    ramp = torch.arange(12.0).expand(8, 12, 12) * torch.rand(8, 1, 1)
    maps = torch.stack([ramp, torch.randn(8, 12, 12)], dim=1)
    layer = DropCluster2d(5, unstructured="hopkins", hopkins_threshold=0.6)
    layer.update_clusters(maps, random_state=0)
    assert layer.structured_channels.tolist() == [True, False]
    layer = DropCluster2d(5)
    layer.update_clusters(maps)
    assert layer.structured_channels.all()


def test_a_net_keeps_its_channels_where_none_has_structure():
    layer = DropCluster2d(5, unstructured="auto").eval()
    layer.update_clusters(torch.zeros(4, 3, 6, 6))
    assert layer.structured_channels.all()


# ---- gradients, modes, types ---------------------------------------------------


def test_gradients_are_those_of_the_masked_map():
    maps = maps_of(2).double()
    layer = DropCluster2d(5, drop_rate=0.3)
    layer.update_clusters(maps)
    x = maps.clone().requires_grad_()
    upstream = torch.randn_like(maps)
    torch.manual_seed(1)
    (layer(x) * upstream).sum().backward()
    torch.manual_seed(1)
    mask = layer.draw_mask().double()
    torch.testing.assert_close(x.grad, upstream * mask, rtol=0, atol=0)
    torch.manual_seed(1)
    assert torch.equal(layer(maps), maps * mask)


def test_inactive_until_there_are_clusters():
    layer = DropCluster2d()
    x = torch.randn(2, 3, 4, 4)
    assert layer(x) is x
    assert not layer.is_active
    layer.update_clusters(x)
    assert layer.is_active
    assert layer.cluster_sizes.shape == (3, 4)


def test_flat_rows_are_one_channel():
    x = torch.randn(5, 12)
    layer = DropCluster1d(3, drop_rate=0.34)
    layer.update_clusters(x)
    assert torch.equal(layer.cluster_labels[0], rena(x, 3).labels)
    out = layer(x)
    assert out.shape == x.shape
    assert (out == 0).any()


def test_too_few_pixels_leave_auto_inactive():
    layer = DropCluster1d()
    layer.update_clusters(torch.randn(5, 2, 2))
    assert not layer.is_active
    layer.update_clusters(torch.randn(5, 2, 7))  # a quarter of them would be one
    assert layer.cluster_sizes.shape == (2, 3)


def test_weights_are_copies_and_zero_is_absent():
    maps = maps_of(2, n_samples=6)
    weight = torch.tensor([1.0, 0.0, 3.0, 1.0, 2.0, 0.0])
    copies = torch.repeat_interleave(maps, weight.long(), dim=0)
    maps[1], maps[5] = torch.nan, torch.inf  # absent
    weighted, repeated = DropCluster2d(6), DropCluster2d(6)
    present = weight > 0
    weighted.update_clusters(maps[present], weight[present])
    repeated.update_clusters(copies)
    assert torch.equal(weighted.cluster_labels, repeated.cluster_labels)


def test_half_precision_in_half_precision_out():
    layer = with_clusters([2, 2], 3, drop_rate=0.5)
    x = torch.ones(2, 3, 4, dtype=torch.bfloat16)
    assert layer(x).dtype == layer.eval()(x).dtype == torch.bfloat16


# ---- persistence ---------------------------------------------------------------


def state_dict_trip(layer):
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    fresh = DropCluster2d(5, drop_rate=0.3)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    return fresh


@pytest.mark.parametrize(
    "trip",
    [state_dict_trip, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["state_dict", "deepcopy", "pickle"],
)
def test_clusters_are_saved_and_loaded(trip):
    maps = maps_of(2)
    maps[:, 2] = 0
    layer = DropCluster2d(5, drop_rate=0.3, unstructured="auto")
    layer.update_clusters(maps)
    loaded = trip(layer)
    assert torch.equal(loaded.eval()(maps), layer.eval()(maps))
    assert (loaded(maps)[:, 2] == 0).all()
    torch.manual_seed(1)
    one = layer.train()(maps)
    torch.manual_seed(1)
    assert torch.equal(loaded.train()(maps), one)


def test_loading_a_state_without_clusters_makes_inactive():
    layer = DropCluster2d(5)
    empty = copy.deepcopy(layer.state_dict())
    layer.update_clusters(maps_of(2))
    layer.load_state_dict(empty)
    assert not layer.is_active
    assert layer(maps_of(2)) is not None


def test_torch_export_keeps_the_mask():
    maps = maps_of(2)
    maps[:, 1] = 0
    layer = DropCluster2d(5, unstructured="auto").eval()
    layer.update_clusters(maps)
    net = nn.Sequential(nn.Conv2d(3, 3, 1), layer).eval()
    place = nn.Sequential(nn.Conv2d(3, 3, 1)).eval()
    insert_layer(place, "0", layer)
    place[0].load_state_dict(net[0].state_dict(), strict=False)
    x = torch.randn(4, 3, 6, 7)
    for each in (net, place):
        exported = torch.export.export(each, (x,))
        assert torch.equal(exported.module()(x), net(x))
    assert (net(x)[:, 1] == 0).all()


# ---- bad input -----------------------------------------------------------------


def test_another_size_is_an_error():
    layer = DropCluster2d(5)
    layer.update_clusters(maps_of(2))
    for mode in (True, False):
        with pytest.raises(ValueError, match=r"shape \(3, 6, 7\), but got \(3, 7, 7\)"):
            layer.train(mode)(torch.randn(2, 3, 7, 7))


def test_wrong_number_of_dimensions():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\) came to a layer for"):
        DropCluster2d()(torch.zeros(2, 3, 4))


def test_more_clusters_than_pixels():
    with pytest.raises(ValueError, match="n_clusters=43 is more than the 42 pixels"):
        DropCluster2d(43).update_clusters(maps_of(2))


def test_a_batch_too_small_to_cluster():
    maps, weight = maps_of(2, n_samples=2), torch.tensor([1.0, 0.0])
    with pytest.raises(ValueError, match="n_samples=1 is too small to cluster"):
        DropCluster2d(5).update_clusters(maps[:1])
    with pytest.raises(ValueError, match="n_samples=1 is too small to cluster"):
        DropCluster2d(5).update_clusters(maps, weight)
    layer = DropCluster2d()
    layer.update_clusters(maps[:1])
    assert not layer.is_active


def test_maps_that_are_not_finite():
    maps = maps_of(2)
    maps[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="lower the learning rate"):
        DropCluster2d(5).update_clusters(maps)


def test_labels_that_leave_a_cluster_out():
    with pytest.raises(ValueError, match="count its clusters from 0 on"):
        DropCluster1d().set_clusters(torch.tensor([[0, 1, 2], [0, 0, 2]]))
    for labels in (torch.zeros(2, 3), torch.zeros(0, 3, 3), torch.full((2, 3, 3), -1)):
        with pytest.raises(ValueError, match="must be .* and count clusters from 0"):
            DropCluster2d().set_clusters(labels.long())


def test_an_averaged_model_masks_as_the_model_does():
    torch.manual_seed(0)
    layer, maps = DropCluster2d(4, unstructured="auto"), maps_of(2)
    net = nn.Sequential(nn.Conv2d(3, 3, 1), layer)
    net[1].update_clusters(maps)
    averaged = torch.optim.swa_utils.AveragedModel(net).eval()
    labels = net[1].cluster_labels
    net[1].set_clusters(labels, torch.tensor([True, False, True]))
    averaged.update_parameters(net)
    with torch.no_grad():
        torch.testing.assert_close(averaged(maps), net.eval()(maps))
        assert (averaged(maps)[:, 1] == 0).all()


def test_structured_channels_are_one_value_each():
    layer, labels = DropCluster1d(), torch.tensor([[0, 0, 1], [0, 1, 1]])
    with pytest.raises(ValueError, match="one value for each of the 2 channels"):
        layer.set_clusters(labels, torch.ones(3, dtype=torch.bool))
    assert not layer.is_active
    layer.set_clusters(labels, torch.tensor([1, 0]))  # integers will do
    assert layer.structured_channels.tolist() == [True, False]
    assert "1 unstructured" in repr(layer)
    layer.set_clusters(labels, torch.tensor([1.0, 1.0]))
    assert "0 unstructured" in repr(layer)
