import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.image import grid_to_graph

from sklearn_structreg.dropcluster import (
    HopkinsDisplay,
    ReNAClusterer,
    ReNADisplay,
    SpatialHopkins,
    rena,
    spatial_hopkins,
)
from sklearn_structreg.dropcluster.display.clusters import distinct_colors

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(scope="module")
def digits():
    return load_digits().data


def shown(ax):
    return np.asarray(ax.images[0].get_array())


def test_matplotlib_is_imported_only_to_plot():
    code = (
        "import sys, sklearn_structreg.dropcluster as d;"
        "d.ReNADisplay([[0]], [[1.0]]); d.HopkinsDisplay([[0.5]]);"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_constructors_only_hold_data():
    labels, images = [[0, 1]], [[0.1, 0.2]]
    display = ReNADisplay(labels, images)
    assert display.labels is labels
    assert display.images is images
    assert not any(name.endswith("_") for name in vars(display))
    assert vars(HopkinsDisplay(images)) == {"statistics": images}


def test_rena_from_estimator(digits):
    clusterer = ReNAClusterer(16, image_shape=(8, 8)).fit(digits)
    display = ReNADisplay.from_estimator(clusterer, digits)
    np.testing.assert_array_equal(display.labels, clusterer.labels_.reshape(8, 8))
    np.testing.assert_allclose(
        shown(display.axes_[0, 0]), digits.mean(axis=0).reshape(8, 8)
    )
    assert shown(display.axes_[1, 0]).shape == (8, 8, 4)
    assert display.axes_[1, 0].get_title() == "16 clusters"
    assert display.figure_ is display.axes_[0, 0].figure


def test_rena_with_a_mask(digits):
    mask = digits.std(axis=0).reshape(8, 8) > 0
    graph = grid_to_graph(8, 8, mask=mask)
    inside = digits[:, mask.ravel()]
    clusterer = ReNAClusterer(10, connectivity=graph).fit(inside)
    display = ReNADisplay.from_estimator(clusterer, inside, mask=mask)
    assert (shown(display.axes_[1, 0])[~mask] == 1).all()
    assert display.axes_[1, 0].get_title() == "10 clusters"
    with pytest.raises(ValueError, match=r"64 pixels .* but the estimator 61 features"):
        ReNADisplay.from_estimator(clusterer, inside, image_shape=(8, 8))


@pytest.mark.parametrize(
    ("image_shape", "plane"),
    [(None, (1, 60)), ((1, 3, 4, 5), (4, 5)), ((3, 4, 5), (3, 4, 5))],
)
def test_rena_of_signals_and_volumes(image_shape, plane):
    data = np.random.default_rng(0).normal(size=(4, 60))
    clusterer = ReNAClusterer(5, image_shape=image_shape).fit(data)
    assert ReNADisplay.from_estimator(clusterer, data).labels.shape == plane


def test_rena_from_maps_into_given_axes():
    maps = torch.rand(5, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    labels = rena(maps, 4).labels
    figure, axes = plt.subplots(2, 3)
    display = ReNADisplay.from_maps(labels, maps, ax=axes)
    assert display.figure_ is figure
    assert (display.axes_ == axes).all()
    assert ReNADisplay.from_maps(labels, maps).axes_.shape == (2, 3)
    with pytest.raises(ValueError, match="ax must hold 2 x 3 matplotlib Axes"):
        display.plot(axes[0])


def test_rena_unequal_shapes():
    with pytest.raises(ValueError, match="must both have shape"):
        ReNADisplay(np.zeros((2, 2), int), np.zeros((2, 3))).plot()


def test_rena_unfitted(digits):
    with pytest.raises(NotFittedError):
        ReNADisplay.from_estimator(ReNAClusterer(), digits)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30))
def test_touching_clusters_differ_in_colour(seed, k):
    # Clusters on a lattice are connected, so a map of them needs few colours.
    images = np.random.default_rng(seed).normal(size=(2, 1, 9, 9))
    labels = rena(torch.from_numpy(images), k).labels[0].numpy()
    colors = distinct_colors(labels)
    for axis in (0, 1):
        same_cluster = np.diff(labels, axis=axis) == 0
        same_color = np.diff(colors, axis=axis) == 0
        np.testing.assert_array_equal(same_cluster, same_color)
    for label in range(k):
        assert len(np.unique(colors[labels == label])) == 1


def test_hopkins_from_estimator_and_images():
    images = np.random.default_rng(0).normal(size=(4, 3, 8, 8))
    images[:, 1] = 0
    estimator = SpatialHopkins(30, random_state=0).fit(images)
    display = HopkinsDisplay.from_estimator(estimator, images)
    expected = spatial_hopkins(images, 30, random_state=0).numpy()
    np.testing.assert_array_equal(display.statistics, expected)
    same = HopkinsDisplay.from_images(images, n_points=30, random_state=0)
    np.testing.assert_array_equal(same.statistics[""], expected)
    marks = display.ax_.lines[-1].get_ydata()
    np.testing.assert_allclose(marks, expected.mean(axis=0))
    assert np.isnan(marks[1])
    assert display.figure_ is display.ax_.figure


def test_hopkins_histogram_of_layers():
    rng = np.random.default_rng(0)
    layers = {"first": rng.normal(size=(4, 9, 8, 8)), "second": np.ones((4, 2, 3, 3))}
    _, ax = plt.subplots()
    display = HopkinsDisplay.from_images(
        layers, random_state=0, kind="histogram", ax=ax
    )
    assert display.ax_ is ax
    heights = [sum(bar.get_height() for bar in bars) for bars in ax.containers]
    assert heights == [9, 0]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["first", "second"]
    assert len(display.plot(kind="channels").ax_.lines) == 3


def test_hopkins_unknown_kind():
    with pytest.raises(ValueError, match="kind='pie' must be"):
        HopkinsDisplay([[0.5]]).plot(kind="pie")
