"""The corruptions of the benchmark, against their published definitions.

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions
and perturbations" (2019), and the constants of their code for CIFAR.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

FILE = Path(__file__).parents[2] / "benchmarks" / "corruptions.py"
SEVERITIES = [1, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def corruptions():
    spec = importlib.util.spec_from_file_location("corruptions", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def grey():
    return np.full((40, 32, 32, 3), 0.5, dtype=np.float32)


@pytest.fixture(scope="module")
def photos():
    """Smooth colour images with an edge, in [0, 1]."""
    rng = np.random.default_rng(0)
    images = ndimage.gaussian_filter(rng.random((6, 32, 32, 3)), (0, 2, 2, 0))
    images = (images - images.min()) / (images.max() - images.min())
    images[:, :, 16:] *= 0.3
    return images.astype(np.float32)


NAMES = ["gaussian", "shot", "impulse", "defocus", "glass", "motion", "zoom"]


@pytest.mark.parametrize("name", NAMES)
def test_images_in_images_out_and_worse_with_severity(corruptions, photos, name):
    assert list(corruptions.CORRUPTIONS) == NAMES
    before, errors = photos.copy(), []
    for severity in SEVERITIES:
        result = corruptions.corrupt(photos, name, severity, seed=3)
        assert result.shape == photos.shape
        assert result.dtype == np.float32
        np.testing.assert_array_equal(np.rint(result * 255) / np.float32(255), result)
        assert (result >= 0).all()
        assert (result <= 1).all()
        again = corruptions.corrupt(photos, name, severity, seed=3)
        np.testing.assert_array_equal(again, result)
        errors.append(np.abs(result - photos).mean())
    np.testing.assert_array_equal(photos, before)
    assert errors[-1] > 1.2 * errors[0]
    if name != "glass":  # whose severities 3 and 4 trade blur for rounds of swaps
        assert errors == sorted(errors)


@pytest.mark.parametrize(
    ("severity", "scale", "photons", "amount"),
    [
        (1, 0.04, 500, 0.01),
        (2, 0.06, 250, 0.02),
        (3, 0.08, 100, 0.03),
        (4, 0.09, 75, 0.05),
        (5, 0.10, 50, 0.07),
    ],
)
def test_noises_have_the_published_strength(
    corruptions, grey, severity, scale, photons, amount
):
    n = grey.size
    noisy = corruptions.corrupt(grey, "gaussian", severity)
    assert noisy.std() == pytest.approx(scale, rel=6 / np.sqrt(2 * n) + 0.01)
    shot = corruptions.corrupt(grey, "shot", severity)
    assert shot.std() == pytest.approx(np.sqrt(0.5 / photons), rel=0.02)
    impulse = corruptions.corrupt(grey, "impulse", severity)
    assert set(np.unique(impulse)) == {0, np.float32(127 / 255), 1}
    error = 6 * np.sqrt(amount / 2 / n)
    for value in (0, 1):  # half salt, half pepper
        assert (impulse == value).mean() == pytest.approx(amount / 2, abs=error)


@pytest.mark.parametrize("name", ["defocus", "glass", "motion", "zoom"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_blurs_leave_a_plain_image_alone(corruptions, grey, name, severity):
    result = corruptions.corrupt(grey[:3], name, severity)
    np.testing.assert_allclose(result, 0.5, atol=1.01 / 255)


def impulse_image(row, column):
    images = np.zeros((2, 32, 32, 1), dtype=np.float32)
    images[:, row, column] = 1
    return images


def exactly(corruptions, images, name, severity):
    """Without rounding to 8 bits."""
    rng = np.random.default_rng(0)
    return corruptions.CORRUPTIONS[name](images, severity - 1, rng)


@pytest.mark.parametrize(
    ("severity", "radius", "blur"),
    [(1, 0.3, 0.4), (2, 0.4, 0.5), (3, 0.5, 0.6), (4, 1, 0.2), (5, 1.5, 0.1)],
)
def test_defocus_is_a_disk_with_soft_edges(corruptions, severity, radius, blur):
    result = exactly(corruptions, impulse_image(16, 16), "defocus", severity)
    expected = np.zeros((32, 32))
    taps = {d: np.exp(-(d**2) / (2 * blur**2)) for d in (-1, 0, 1)}
    total = sum(taps.values()) ** 2
    offsets = [(r, c) for r in range(-2, 3) for c in range(-2, 3)]
    disk = [(r, c) for r, c in offsets if r * r + c * c <= radius**2]
    for r, c in disk:
        for dr, dc in [(a, b) for a in taps for b in taps]:
            weight = taps[dr] * taps[dc] / total / len(disk)
            expected[16 + r + dr, 16 + c + dc] += weight
    np.testing.assert_allclose(result[0, ..., 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("severity", "radius", "sigma"),
    [(1, 6, 1), (2, 6, 1.5), (3, 6, 2), (4, 8, 2), (5, 9, 2.5)],
)
def test_motion_is_half_a_gaussian_along_a_line(corruptions, severity, radius, sigma):
    result = exactly(corruptions, impulse_image(16, 16), "motion", severity)
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for image in result[..., 0]:
        assert image.sum() == pytest.approx(1, abs=1e-5)
        assert image[16, 16] == pytest.approx(weights[0], rel=1e-4)  # the first step
        rows, columns = np.nonzero(image > 1e-5)
        assert (columns <= 16).all()  # one side only, as angles are within 45 degrees
        by_column = image.sum(axis=0)[16::-1]
        assert (np.diff(by_column[by_column > 1e-5]) < 0).all()
        slope = np.abs(rows - 16) - np.abs(columns - 16)
        assert slope.max() <= 1


@pytest.mark.parametrize(
    ("severity", "stop"), [(1, 1.06), (2, 1.11), (3, 1.16), (4, 1.21), (5, 1.26)]
)
def test_zoom_averages_magnified_middles(corruptions, photos, severity, stop):
    factors = np.arange(1, stop, 0.01)  # rounding gives one too many for 1.06 and 1.11
    factors = factors[: 5 * severity + 1]
    image = photos[0].astype(float)
    total = image.copy()
    for factor in factors:
        side = int(np.ceil(32 / factor))
        top = (32 - side) // 2
        middle = image[top : top + side, top : top + side]
        large = ndimage.zoom(middle, (factor, factor, 1), order=1)
        trim = (len(large) - 32) // 2
        total += large[trim : trim + 32, trim : trim + 32]
    result = exactly(corruptions, photos, "zoom", severity)
    np.testing.assert_allclose(result[0], total / (len(factors) + 1), atol=2e-5)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_glass_shuffles_pixels_between_two_blurs(corruptions, severity):
    image = np.random.default_rng(0).random((1, 32, 32, 1)).astype(np.float32)
    sigma = (0.05, 0.25, 0.4, 0.25, 0.4)[severity - 1]
    result = exactly(corruptions, image, "glass", severity)
    once = ndimage.gaussian_filter(image, (0, sigma, sigma, 0), mode="nearest")
    plain = ndimage.gaussian_filter(once, (0, sigma, sigma, 0), mode="nearest")
    if severity == 1:  # hardly a blur: the pixels are the same, in other places
        np.testing.assert_allclose(np.sort(result, None), np.sort(image, None))
    moved = (np.abs(result - plain) > 1e-6).mean()
    assert 0.5 < moved < 1
    assert result.mean() == pytest.approx(image.mean(), rel=0.01)
