"""The picture: order, frames, names, and scikit-learn's Display conventions."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from sklearn_structreg.selfinformed import (
    ConfusionPartitionDisplay,
    ConfusionSpectralPartitioner,
)

plt = pytest.importorskip("matplotlib.pyplot")


def names_on(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_rows_and_names_are_ordered_by_group_and_framed(container):
    confusion = np.array([[6, 1, 3], [0, 9, 1], [4, 0, 6]])
    display = ConfusionPartitionDisplay(
        container(confusion), np.array([0, 1, 0]), display_labels=["cat", "bus", "dog"]
    )
    assert not hasattr(display, "ax_")
    assert display.plot() is display
    assert names_on(display.ax_.yaxis) == names_on(display.ax_.xaxis)
    assert names_on(display.ax_.yaxis) == ["cat", "dog", "bus"]
    shown = display.im_.get_array()
    np.testing.assert_allclose(
        np.ma.filled(shown, -1), [[-1, 0.3, 0.1], [0.4, -1, 0], [0, 0.1, -1]]
    )
    frames = [(frame.get_x(), frame.get_width()) for frame in display.frames_]
    assert frames == [(-0.5, 2), (1.5, 1)]
    assert display.figure_ is display.ax_.figure
    np.testing.assert_array_equal(confusion, [[6, 1, 3], [0, 9, 1], [4, 0, 6]])


def test_from_estimator_shows_a_fitted_partitioner(planted):
    X, y, _ = planted(12, 3, 300, bonus=0.5, seed=0)
    names = np.array([f"class {i}" for i in range(12)])
    partitioner = ConfusionSpectralPartitioner(3, classes=names, random_state=0)
    display = ConfusionPartitionDisplay.from_estimator(partitioner.fit(X, names[y]))
    expected = np.concatenate(partitioner.clusters_).tolist()
    assert names_on(display.ax_.yaxis) == expected
    np.testing.assert_array_equal(display.labels, partitioner.labels_)


@pytest.mark.parametrize("model", [LogisticRegression(), LinearSVC()])
def test_from_estimator_scores_a_classifier(model):
    X = np.random.default_rng(0).normal(size=(200, 3))
    y = np.array(list("abcd"))[(X[:, 0] > 0) * 2 + (X[:, 1] > 0.3 * X[:, 2])]
    model.fit(X, y)
    display = ConfusionPartitionDisplay.from_estimator(
        model, X, y, partitioner=ConfusionSpectralPartitioner(2, random_state=0)
    )
    assert sorted(names_on(display.ax_.yaxis)) == ["a", "b", "c", "d"]
    assert len(display.frames_) == 2
    with pytest.raises(ValueError, match="pass held-out X and y"):
        ConfusionPartitionDisplay.from_estimator(model)


def test_from_predictions_leaves_the_given_partitioner_alone(planted):
    X, y, _ = planted(12, 3, 300, bonus=0.5, seed=1)
    partitioner = ConfusionSpectralPartitioner(4, random_state=0)
    weight = np.arange(300.0)
    display = ConfusionPartitionDisplay.from_predictions(
        y, X, sample_weight=weight, partitioner=partitioner
    )
    assert not hasattr(partitioner, "labels_")
    fitted = ConfusionSpectralPartitioner(4, random_state=0).fit(X, y, weight)
    np.testing.assert_array_equal(display.labels, fitted.labels_)
    assert (display.confusion != fitted.confusion_).nnz == 0


def test_it_draws_where_it_is_told_and_how(planted):
    X, y, _ = planted(60, 3, 900, bonus=0.5, seed=2)
    _, (ax, _) = plt.subplots(1, 2)
    display = ConfusionPartitionDisplay.from_predictions(
        y, X, ax=ax, cmap="Greens", colorbar=False, im_kw={"vmax": 0.5}
    )
    assert display.ax_ is ax
    assert display.im_.get_cmap().name == "Greens"
    assert display.im_.get_clim() == (0.0, 0.5)
    assert names_on(ax.yaxis) == []  # sixty names do not fit into a small axes


def test_many_classes_are_averaged_down_and_few_confusions_are_no_trouble(planted):
    X, y, _ = planted(1201, 3, 1500, bonus=0.3, seed=3)
    display = ConfusionPartitionDisplay.from_predictions(y, X, sample_weight=None)
    assert display.im_.get_array().shape == (500, 500)
    assert display.ax_.get_xlim() == (-0.5, 1200.5)
    perfect = ConfusionPartitionDisplay(np.eye(3), np.zeros(3, dtype=int)).plot()
    assert perfect.im_.get_clim() == (0.0, 1.0)
    single = ConfusionPartitionDisplay(np.ones((1, 1)), np.zeros(1, dtype=int))
    single.plot().figure_.draw_without_rendering()
