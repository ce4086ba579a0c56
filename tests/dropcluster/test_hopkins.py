import importlib
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from dropcluster.reference import hopkins_reference, spatial_hopkins_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import beta, kstest
from sklearn.datasets import load_digits
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from sklearn_structreg.dropcluster import SpatialHopkins, hopkins, spatial_hopkins
from sklearn_structreg.dropcluster.hopkins import _generator, draw_pixels


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.tuples(st.integers(3, 7), st.integers(3, 7)))
def test_spatial_statistic_equals_equations_3_to_5(seed, shape):
    images = np.random.default_rng(seed).normal(size=(2, 3, *shape))
    here, _, there = draw_pixels(shape, 9, random_state=seed)
    found = spatial_hopkins(images, 9, random_state=seed)
    assert found.shape == (2, 3)
    pairs = [np.transpose(np.unravel_index(i, shape)).tolist() for i in (here, there)]
    for image, row in zip(images.tolist(), found.tolist(), strict=True):
        for channel, value in zip(image, row, strict=True):
            assert value == pytest.approx(
                spatial_hopkins_reference(channel, *pairs), rel=1e-12
            )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.sampled_from([1, 2.5, "d"]))
def test_statistic_equals_equation_2(seed, d, power):
    X = np.random.default_rng(seed).normal(size=(12, d))
    # The draws that the function makes, in its order.
    rng = _generator(seed)
    artificial = rng.uniform(X.min(axis=0), X.max(axis=0), size=(4, d))
    chosen = rng.choice(12, 4, replace=False)
    expected = hopkins_reference(
        X.tolist(), artificial.tolist(), chosen, d if power == "d" else power
    )
    found = hopkins(X, 4, power=power, random_state=seed)
    assert found == pytest.approx(expected, rel=1e-10)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(0, 99))
def test_drawn_pixels_are_off_the_border_and_neighbors_touch(shape, seed):
    if max(shape) == 1:
        with pytest.raises(ValueError, match="at least two are needed"):
            draw_pixels(shape, 5, seed)
        return
    here, neighbors, there = draw_pixels(shape, 5, seed)
    long = [length for length in shape if length > 1]
    assert neighbors.shape == (3 ** len(long) - 1, 5)
    assert ((there >= 0) & (there < np.prod(shape))).all()
    center = np.stack(np.unravel_index(here, long))
    around = np.stack(np.unravel_index(neighbors, long))
    for axis, length in enumerate(long):
        if length > 2:
            assert ((center[axis] > 0) & (center[axis] < length - 1)).all()
    assert (np.abs(around - center[:, None]).max(axis=0) == 1).all()
    if min(long) > 2:
        for column in neighbors.T:
            assert len(set(column)) == len(column)


def test_all_pixels_are_drawn_equally_often():
    here, _, there = draw_pixels((5, 6), 60_000, random_state=0)
    inner = np.arange(30).reshape(5, 6)[1:-1, 1:-1].ravel()
    share = np.bincount(here, minlength=30)[inner] / 60_000
    np.testing.assert_allclose(share, 1 / 12, rtol=0.06)
    np.testing.assert_allclose(np.bincount(there) / 60_000, 1 / 30, rtol=0.1)


def test_known_structures_in_order():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(20, 1, 32, 32))
    smooth = gaussian_filter(noise, (0, 0, 2, 2))
    stripes = np.indices((32, 32))[1] % 2 + 0 * noise
    board = np.indices((32, 32)).sum(axis=0) % 2 + 0 * noise
    images = np.concatenate([smooth, noise, stripes, board], axis=1)
    found = spatial_hopkins(images, 400, random_state=0).mean(dim=0)
    assert found[0] > 0.7
    assert found[1] == pytest.approx(0.5, abs=0.01)
    # Six of eight neighbours differ on stripes, four on the board, half of all pixels.
    assert found[2] == pytest.approx((1 / 2) / (1 / 2 + 6 / 8), abs=0.02)
    assert found[3] == pytest.approx(1 / 2, abs=0.02)


@pytest.mark.parametrize("d", [1, 2])
def test_uniform_points_follow_beta_with_power_d(d):
    # On a torus this would be exact; few draws from many points keep borders rare.
    rng = np.random.default_rng(0)
    values = [
        hopkins(rng.uniform(size=(2000, d)), 10, power="d", random_state=seed)
        for seed in range(200)
    ]
    assert kstest(values, beta(10, 10).cdf).pvalue > 0.01


def test_clustered_and_regular_points():
    rng = np.random.default_rng(0)
    blobs = rng.normal(size=(300, 2)) * 0.01 + rng.integers(3, size=(300, 2))
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(20)), axis=-1).reshape(-1, 2)
    assert hopkins(blobs, random_state=0) > 0.9
    assert hopkins(grid, random_state=0) < 0.35


def test_the_seed_of_the_data_may_be_the_seed_of_the_draws():
    X = np.random.RandomState(0).uniform(size=(500, 2))
    assert hopkins(X, random_state=0) == pytest.approx(0.5, abs=0.1)


def test_scale_and_offset_do_not_matter():
    images = np.random.default_rng(0).normal(size=(3, 2, 8, 8))
    found = spatial_hopkins(images, 20, random_state=0)
    scaled = spatial_hopkins(1e6 * images - 3, 20, random_state=0)
    torch.testing.assert_close(found, scaled)


def test_constant_images_are_nan_and_others_beside_them_are_not():
    images = np.random.default_rng(0).normal(size=(3, 2, 8, 8))
    images[:, 1] = 7
    found = spatial_hopkins(images, random_state=0)
    assert found[:, 0].isfinite().all()
    assert found[:, 1].isnan().all()
    assert np.isnan(hopkins(np.ones((5, 2)), random_state=0))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.uint8, torch.float32),
    ],
)
def test_dtypes(dtype, expected):
    images = (torch.arange(2 * 3 * 5 * 5) % 7).view(2, 3, 5, 5)
    found = spatial_hopkins(images.to(dtype), random_state=0)
    assert found.dtype == expected
    torch.testing.assert_close(
        found.double(), spatial_hopkins(images.double(), random_state=0)
    )


def test_images_are_taken_in_blocks(monkeypatch):
    module = importlib.import_module("sklearn_structreg.dropcluster.hopkins")
    images = torch.randn(7, 3, 6, 6)
    expected = spatial_hopkins(images, 20, random_state=0)
    sizes, block_statistic = [], module._block_statistic

    def spy(block, *pixels):
        sizes.append(len(block))
        return block_statistic(block, *pixels)

    monkeypatch.setattr(module, "_block_statistic", spy)
    monkeypatch.setattr(module, "_BLOCK", 2 * 3 * 20)
    assert torch.equal(spatial_hopkins(images, 20, random_state=0), expected)
    assert sizes == [2, 2, 2, 1]


def test_seeded_and_global_state_left_alone():
    images = torch.rand(2, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    one, two = (spatial_hopkins(images, random_state=3) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, spatial_hopkins(images, random_state=4))
    spatial_hopkins(images)
    hopkins(images.flatten(1))
    SpatialHopkins().fit(images)
    np.testing.assert_array_equal(state[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(state[1], torch.get_rng_state())


def test_transformer_takes_rows_and_images():
    images = np.random.default_rng(0).normal(size=(5, 3, 8, 9))
    expected = spatial_hopkins(images, 30, random_state=0).numpy()
    flat = SpatialHopkins(30, image_shape=(3, 8, 9), random_state=0)
    rows = images.reshape(5, -1)
    np.testing.assert_array_equal(flat.fit_transform(rows), expected)
    deep = SpatialHopkins(30, random_state=0)
    np.testing.assert_array_equal(deep.fit_transform(images), expected)
    np.testing.assert_array_equal(deep.transform(torch.from_numpy(images)), expected)
    for fitted in (flat, deep):
        assert fitted.n_channels_ == 3
        assert fitted.shape_ == (8, 9)
        assert fitted.n_points_ == 30
        assert fitted.n_features_in_ == 216


@pytest.mark.parametrize(
    ("image_shape", "n_channels"),
    [(None, 1), ((72,), 1), ((8, 9), 1), ((2, 6, 6), 2), ((2, 3, 3, 4), 2)],
)
def test_shapes(image_shape, n_channels):
    X = np.random.default_rng(0).normal(size=(4, 72))
    found = SpatialHopkins(image_shape=image_shape, random_state=0).fit_transform(X)
    assert found.shape == (4, n_channels)
    assert ((found > 0) & (found < 1)).all()
    if image_shape is not None:
        images = X.reshape(-1, *image_shape)
        again = SpatialHopkins(random_state=0).fit_transform(images)
        np.testing.assert_array_equal(again, found)


def test_digits_have_structure_and_shuffled_digits_have_less():
    X = load_digits().data
    shuffled = X[:, np.random.default_rng(0).permutation(64)]
    statistic = SpatialHopkins(400, image_shape=(8, 8), random_state=0)
    assert statistic.fit_transform(X).mean() > 0.53
    assert statistic.fit_transform(X).mean() > statistic.fit_transform(shuffled).mean()


def test_names_pandas_pickles_and_imputing():
    X = load_digits(as_frame=True).data.iloc[:50].copy()
    X.iloc[3] = 1.0
    transformer = SpatialHopkins(image_shape=(8, 8), random_state=0)
    frame = transformer.set_output(transform="pandas").fit_transform(X)
    assert list(frame.columns) == ["spatialhopkins0"]
    assert frame.isna().to_numpy().ravel().tolist() == [i == 3 for i in range(50)]
    again = pickle.loads(pickle.dumps(transformer)).transform(X)
    pd.testing.assert_frame_equal(frame, again)
    filled = make_pipeline(
        transformer, SimpleImputer(strategy="constant", fill_value=0.5)
    )
    assert filled.fit_transform(X)[3, 0] == 0.5


def test_rows_do_not_depend_on_each_other():
    X = np.random.default_rng(0).normal(size=(6, 64))
    fitted = SpatialHopkins(image_shape=(8, 8)).fit(X)
    whole = fitted.transform(X)
    apart = np.vstack([fitted.transform(row[None]) for row in X])
    np.testing.assert_allclose(whole, apart, rtol=1e-12)


def test_read_only_rows():
    X = np.random.default_rng(0).normal(size=(6, 64))
    expected = SpatialHopkins(image_shape=(8, 8), random_state=0).fit_transform(X)
    X.flags.writeable = False
    found = SpatialHopkins(image_shape=(8, 8), random_state=0).fit_transform(X)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_points": 0}, "'n_points' parameter"),
        ({"n_points": "all"}, "'n_points' parameter"),
        ({"image_shape": (3, 3)}, "does not fit n_features=8"),
        ({"image_shape": (1, 1, 2, 2, 2)}, "does not fit n_features=8"),
        ({"image_shape": (-2, -4)}, "does not fit n_features=8"),
        ({"image_shape": (8, 1, 1)}, "at least two are needed"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        SpatialHopkins(**parameters).fit(np.ones((2, 8)))


@pytest.mark.parametrize("shape", [(0, 2, 5, 5), (2, 0, 5, 5), (5, 5), (2, 3, 0)])
def test_not_images(shape):
    with pytest.raises(ValueError, match=r"shape \(n_images, n_channels"):
        spatial_hopkins(torch.ones(shape))


def test_non_finite_images():
    images = torch.ones(1, 1, 5, 5)
    images[0, 0, 2, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        SpatialHopkins().fit(images)
    with pytest.raises(ValueError, match="NaN"):
        hopkins(np.array([[np.nan], [1.0]]))


def test_other_shapes_than_fitted():
    fitted = SpatialHopkins(random_state=0).fit(np.ones((2, 3, 8, 9)))
    with pytest.raises(ValueError, match="features"):
        fitted.transform(np.ones((2, 3, 8, 8)))
    with pytest.raises(ValueError, match=r"in samples of shape \(3, 9, 8\)"):
        fitted.transform(np.ones((2, 3, 9, 8)))
    assert fitted.transform(np.ones((2, 216))).shape == (2, 3)
