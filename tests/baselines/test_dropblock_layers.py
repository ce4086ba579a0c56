"""DropBlock against loops over pixels."""

import itertools
import math

import numpy as np
import pytest
import torch

from sklearn_structreg.baselines import DropBlock1d, DropBlock2d, DropBlock3d
from sklearn_structreg.baselines.dropblock import (
    block_seed_rate,
    draw_seeds,
    grow_blocks,
    scatter_blocks,
)

CASES = [
    ((11,), (3,)),
    ((9, 6), (3, 3)),
    ((9, 6), (4, 2)),
    ((5, 8), (5, 1)),
    ((4, 5, 6), (2, 3, 2)),
]
LAYERS = {1: DropBlock1d, 2: DropBlock2d, 3: DropBlock3d}


def by_hand(seeds, block, shape):
    """Set the pixels of each block to zero, one after the other."""
    keep = np.ones((*seeds.shape[:2], *shape))
    for n, c, *corner in np.argwhere(seeds.numpy() > 0):
        for offset in itertools.product(*map(range, block)):
            keep[(n, c, *(np.array(corner) + offset))] = 0
    return keep


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("shape", "block"), CASES)
def test_mask_against_a_brute_force(shape, block):
    places = [side - b + 1 for side, b in zip(shape, block, strict=True)]
    for rate in (0.05, 0.3):
        seeds = (torch.rand(3, 2, *places) < rate).float()
        expected = by_hand(seeds, block, shape)
        np.testing.assert_array_equal(grow_blocks(seeds, block).numpy(), expected)


@pytest.mark.parametrize(("shape", "block"), CASES)
def test_blocks_one_by_one_against_a_brute_force(shape, block):
    places = [side - b + 1 for side, b in zip(shape, block, strict=True)]
    seeds = (torch.rand(3, 2, *places) < 0.1).float()
    flat = seeds.flatten().nonzero()[:, 0]
    found = scatter_blocks(flat, seeds.shape, block, shape)
    np.testing.assert_array_equal(found.numpy(), by_hand(seeds, block, shape))


@pytest.mark.parametrize("rate", [0.002, 0.05, 0.6])
def test_blocks_start_by_independent_coins(rate):
    n, n_draws = 200, 3000
    started = torch.zeros(n_draws, n)
    for row in started:
        places = draw_seeds(rate, (1, 1, n))
        assert len(places.unique()) == len(places)
        row[places] = 1
    each = started.mean(0)
    assert (each - rate).abs().max() < 5 * (rate * (1 - rate) / n_draws) ** 0.5
    counts = started.sum(1).double()  # binomial: also its variance
    assert counts.var().item() == pytest.approx(n * rate * (1 - rate), rel=0.15)
    pairs = (started[:, 1:] * started[:, :-1]).double().mean(1)
    error = pairs.std() / n_draws**0.5
    assert abs(pairs.mean() - rate**2) < 5 * error + 1e-9
    assert len(draw_seeds(1e-300, (2, 3, 4))) == 0


@pytest.mark.parametrize(("shape", "block"), CASES)
def test_layer_against_a_brute_force(shape, block, monkeypatch):
    monkeypatch.setattr(LAYERS[len(shape)], "sparse", 0)
    x = torch.randn(3, 2, *shape)
    layer = LAYERS[len(shape)](block, drop_rate=0.3)
    places = [side - b + 1 for side, b in zip(shape, block, strict=True)]
    torch.manual_seed(3)
    seeds = torch.rand(3, 2, *places) < block_seed_rate(0.3, block, shape)
    keep = by_hand(seeds, block, shape)
    torch.manual_seed(3)
    expected = x.numpy() * keep * keep.size / keep.sum()
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-6)
    assert layer.eval()(x) is x


@pytest.mark.parametrize(("shape", "block"), CASES)
def test_gamma_makes_the_blocks_sizes_add_up_to_the_rate(shape, block):
    places = [side - b + 1 for side, b in zip(shape, block, strict=True)]
    expected_sum = block_seed_rate(0.2, block, shape) * math.prod(places)
    expected_sum *= math.prod(block)
    assert expected_sum == pytest.approx(0.2 * math.prod(shape))


def test_gamma_of_the_paper_on_square_maps():
    # Eq. 1: (1 - keep_prob) / block^2 * feat^2 / (feat - block + 1)^2.
    expected = 0.1 / 25 * 16**2 / 12**2
    assert block_seed_rate(0.1, (5, 5), (16, 16)) == pytest.approx(expected)


def test_block_of_one_is_dropout():
    layer = DropBlock2d(1, drop_rate=0.3)
    dropped = (layer(torch.ones(50, 4, 10, 10)) == 0).double().mean()
    assert abs(dropped - 0.3) < 4 * (0.3 * 0.7 / 20_000) ** 0.5


def test_channels_share_blocks_where_asked():
    x = torch.ones(6, 3, 8, 8)
    shared = DropBlock2d(3, 0.3, per_channel=False)(x)
    assert torch.equal(shared, shared[:, :1].expand_as(shared))
    own = DropBlock2d(3, 0.3)(x)
    assert not torch.equal(own, own[:, :1].expand_as(own))


def test_flat_rows_are_one_channel():
    out = DropBlock1d(2, 0.3)(torch.ones(40, 10))
    assert out.shape == (40, 10)
    assert (out == 0).any()
    assert out.mean().item() == pytest.approx(1, rel=1e-5)


def test_both_ways_to_draw_drop_as_much(monkeypatch):
    x, shares = torch.ones(200, 4, 12, 10), []
    for sparse in (1.0, 0.0):
        monkeypatch.setattr(DropBlock2d, "sparse", sparse)
        out = DropBlock2d(3, 0.2)(x)
        assert out.mean().item() == pytest.approx(1, rel=1e-5)
        shares.append((out == 0).double().mean((1, 2, 3)))
    error = sum(share.var() / len(share) for share in shares) ** 0.5
    assert abs(shares[0].mean() - shares[1].mean()) < 4 * error


def test_dropping_everything_gives_zeros_not_nan():
    layer = DropBlock1d(4, drop_rate=0.9)
    outs = [layer(torch.ones(1, 1, 4)) for _ in range(50)]
    assert all(out.isfinite().all() for out in outs)
    assert any((out == 0).all() for out in outs)


def test_drop_rate_zero_draws_nothing():
    x = torch.ones(2, 2, 8)
    state = torch.get_rng_state()
    assert DropBlock1d(2, 0)(x) is x
    assert torch.equal(torch.get_rng_state(), state)
