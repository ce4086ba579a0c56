"""Pictures of a fitted DropClusterClassifier, and the choice of the layer."""

import numpy as np
import pytest
import torch
from dropcluster.networks import ResNet

from sklearn_structreg import DropClusterClassifier
from sklearn_structreg.core import remove_layers
from sklearn_structreg.dropcluster import (
    DropClusterDisplay,
    LayerHopkinsDisplay,
    spatial_hopkins,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

# Fits of two epochs, for other purposes than to learn.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FAST = {"max_epochs": 2, "random_state": 0}


@pytest.fixture(scope="module")
def images(digits):
    return digits[0][:200].reshape(-1, 1, 8, 8), digits[1][:200]


@pytest.fixture(scope="module")
def model(images):
    return DropClusterClassifier(
        ResNet, unstructured="hopkins", hopkins_threshold=0.52, **FAST
    ).fit(*images)


def shown(ax):
    return np.asarray(ax.images[0].get_array())


# ---- choosing the layer --------------------------------------------------------


def test_layer_hopkins_of_every_layer_with_spatial_output(model, images):
    X = images[0][:150]  # more than one batch
    found = model.layer_hopkins(X)
    assert list(found)[:3] == ["conv1", "bn1", "relu"]
    assert list(found)[-1] == "layer2"
    assert "fc" not in found
    assert "drop" not in found
    assert found["layer2.conv1"].shape == (150, 16)
    with torch.no_grad():
        maps = model.module_.conv1.eval()._conv_forward(
            torch.tensor(X, dtype=torch.float32), model.module_.conv1.weight, None
        )
    expected = spatial_hopkins(maps, random_state=model.net_.seed)
    np.testing.assert_allclose(found["conv1"], expected, rtol=1e-4)


def test_layer_hopkins_does_not_see_what_its_own_layer_is_masked_by(images):
    model = DropClusterClassifier(
        ResNet, unstructured="hopkins", hopkins_threshold=0.52, **FAST
    ).fit(*images)
    before = model.layer_hopkins(images[0][:20], ["conv1"])
    assert not model.structured_channels_.all()
    remove_layers(model.module_)
    after = model.layer_hopkins(images[0][:20], ["conv1"])
    np.testing.assert_array_equal(before["conv1"], after["conv1"])


def test_layer_hopkins_of_a_layer_without_spatial_output(model, images):
    with pytest.raises(ValueError, match="'fc', .*has no spatial extent"):
        model.layer_hopkins(images[0], ["fc"])
    with pytest.raises(ValueError, match="no layer named 'conv7'"):
        model.layer_hopkins(images[0], ["conv7"])


def test_layer_hopkins_of_the_input(model, images, digits):
    X = images[0][:20]
    found = model.layer_hopkins(X, ["layer1", "input", "conv1"])
    assert list(found) == ["input", "conv1", "layer1"]
    expected = spatial_hopkins(torch.tensor(X).float(), random_state=model.net_.seed)
    np.testing.assert_array_equal(found["input"], expected)
    flat = DropClusterClassifier(**FAST).fit(digits[0][:60], digits[1][:60])
    assert flat.layer_hopkins(digits[0][:20], "input")["input"].shape == (20, 1)
    with pytest.raises(ValueError, match="layers='input' shows its input"):
        LayerHopkinsDisplay.from_estimator(flat, digits[0][:20])
    display = LayerHopkinsDisplay.from_estimator(flat, digits[0][:20], layers="input")
    assert display.axes_.shape == (1,)


def test_layer_display(model, images):
    display = LayerHopkinsDisplay.from_estimator(
        model, images[0][:30], layers=["conv1", "layer1", "layer2"]
    )
    assert display.axes_.shape == (3,)
    counts = [sum(bar.get_height() for bar in ax.patches) for ax in display.axes_]
    assert counts == [8, 8, 16]
    assert "layer2" in display.axes_[2].get_ylabel()
    marks = [ax.lines[-1].get_xdata()[0] for ax in display.axes_]
    means = [np.nanmean(values, axis=0) for values in display.statistics.values()]
    np.testing.assert_allclose(marks, [np.median(mean) for mean in means], rtol=1e-6)
    with pytest.raises(ValueError, match="ax must hold 3 x 1 matplotlib Axes"):
        display.plot(plt.subplots(2)[1])
    with pytest.raises(ValueError, match="holds no layer"):
        LayerHopkinsDisplay({}).plot()


def test_layer_display_of_dead_channels():
    statistics = {"a": [[np.nan, 0.7]], "b": [[np.nan]]}
    display = LayerHopkinsDisplay(statistics).plot()
    counts = [sum(bar.get_height() for bar in ax.patches) for ax in display.axes_]
    assert counts == [1, 0]


# ---- clusters and feature maps -------------------------------------------------


def test_clusters_beside_the_maps(model, images):
    X = images[0]
    display = DropClusterDisplay.from_estimator(model, X, n_samples=3)
    assert display.axes_.shape == (4, 9)
    np.testing.assert_allclose(shown(display.axes_[1, 0]), X[1, 0], rtol=1e-6)
    _, maps = model.clustered_maps(X[:3])
    structured = model.structured_channels_
    assert 0 < structured.sum() < 8
    for channel in range(8):
        np.testing.assert_array_equal(
            shown(display.axes_[2, channel + 1]), maps[2, channel]
        )
        bottom, title = (
            display.axes_[3, channel + 1],
            display.axes_[0, channel + 1].get_title(),
        )
        assert bool(bottom.images) == structured[channel]
        assert ("masked" in title) != structured[channel]
        assert (bottom.patch.get_hatch() is not None) != structured[channel]


def test_clusters_alone(model, images):
    display = DropClusterDisplay.from_estimator(model, images[0], kind="clusters")
    assert display.axes_.shape == (3, 3)
    assert [ax.get_title() for ax in display.axes_.flat] == [*"01234567", ""]
    one = display.plot(channels=[2], kind="clusters")
    assert one.axes_[0, 0].get_title() == "2"


def test_signals_are_strips(digits):
    X, y = digits
    flat = DropClusterClassifier(**FAST).fit(X[:100], y[:100])
    display = DropClusterDisplay.from_estimator(flat, X)
    assert display.axes_.shape == (3, 2)
    assert shown(display.axes_[2, 1]).shape == (1, 64, 4)


def test_of_volumes_the_middle_slice_is_shown():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 1, 5, 6, 7)), rng.integers(0, 2, 30)
    model = DropClusterClassifier(layer="2", **FAST).fit(X, y)
    assert model.cluster_labels_.shape == (32, 2, 3, 3)  # the maps are smaller
    display = DropClusterDisplay.from_estimator(model, X)
    assert display.axes_.shape == (3, 9)
    np.testing.assert_allclose(shown(display.axes_[1, 0]), X[1, 0, 2], rtol=1e-6)
    _, maps = model.clustered_maps(X[:2])
    np.testing.assert_array_equal(shown(display.axes_[1, 3]), maps[1, 2, 1])
    assert shown(display.axes_[2, 3]).shape == (3, 3, 4)
    some = display.plot(kind="clusters", channels=np.arange(4))
    assert some.axes_.shape == (2, 2)


def test_colour_images_are_shown_in_colour():
    images = np.random.default_rng(0).normal(size=(2, 3, 5, 5))
    labels = np.zeros((1, 5, 5), dtype=int)
    display = DropClusterDisplay(labels, [True], images[:, :1], images).plot()
    assert shown(display.axes_[0, 0]).shape == (5, 5, 3)


def test_bad_arguments(model, images):
    display = DropClusterDisplay.from_estimator(model, images[0])
    with pytest.raises(ValueError, match="kind='pie' must be"):
        display.plot(kind="pie")
    with pytest.raises(ValueError, match="ax must hold 3 x 9 matplotlib Axes"):
        display.plot(plt.subplots(2)[1])
    for channels in ([8], [-1], []):
        with pytest.raises(ValueError, match="must be some from 0 to 7"):
            display.plot(channels=channels)
    with pytest.raises(ValueError, match="labels must have shape"):
        DropClusterDisplay([[0, 1]], [True], [[[1.0]]], [[1.0]]).plot()
    unclustered = DropClusterClassifier(start_epoch=99, **FAST).fit(*images)
    with pytest.raises(AttributeError, match="There are no clusters"):
        DropClusterDisplay.from_estimator(unclustered, images[0])
