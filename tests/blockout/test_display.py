"""Displays draw the data that they say, with scikit-learn's conventions."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError

from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.blockout import (
    BlockoutDisplay,
    ExpectedClustersDisplay,
    NodeEmbeddingDisplay,
    ProbabilityHistoryDisplay,
)
from sklearn_structreg.blockout.recorder import QUANTILES

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

NAMES = [f"digit {i}" for i in range(10)]


@pytest.fixture(scope="module")
def fitted(digits):
    model = BlockoutClassifier(
        n_clusters=3, logit_rate_factor=100.0, max_epochs=6, random_state=0
    )
    return model.fit(*digits)


def test_matplotlib_is_imported_only_to_plot():
    code = (
        "import sys, sklearn_structreg.blockout as b;"
        "b.ExpectedClustersDisplay([1.0]); b.BlockoutDisplay([[[1]]], ['x']);"
        "b.NodeEmbeddingDisplay([[[1.0]]], ['x']);"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_constructors_only_hold_data():
    P, names = [[[0.1, 0.2]]], ["nodes"]
    display = NodeEmbeddingDisplay(P, names)
    assert display.probabilities is P
    assert display.names is names
    for made in (
        display,
        BlockoutDisplay(P, names),
        ExpectedClustersDisplay([1.0]),
        ProbabilityHistoryDisplay([], [], names),
    ):
        assert not any(name.endswith("_") for name in vars(made))


def test_history_draws_each_epochs_histogram_and_median(fitted):
    display = ProbabilityHistoryDisplay.from_estimator(fitted)
    assert len(display.axes_) == 3
    for j, P in enumerate(fitted.cluster_probabilities_):
        counts = np.histogram(P, 50, (0, 1))[0]
        drawn = np.asarray(display.images_[j].get_array())
        assert drawn.shape == (50, 6)
        # Float32 sums can put a value at an edge into the neighbouring bin.
        expected = np.sqrt(counts / counts.max())
        np.testing.assert_allclose(drawn[:, -1], expected, atol=0.15)
        assert np.abs(drawn[:, -1] - expected).mean() < 0.01
        medians = display.lines_[j].get_ydata()
        recorded = np.array(fitted.history_[:, "probability_quantiles"])
        np.testing.assert_array_equal(medians, recorded[:, j, QUANTILES.index(0.5)])
        assert abs(medians[-1] - np.median(P)) < 0.02
        assert display.lines_[j].get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
        assert display.images_[j].get_extent() == [0.5, 6.5, 0.0, 1.0]
    titles = [ax.get_title() for ax in display.axes_]
    assert titles == ["$P_{0}$: 64 inputs", "$P_{1}$: 100 nodes", "$P_{2}$: 10 classes"]


def test_embedding_is_scikit_learns_pca_with_class_names(fitted):
    display = NodeEmbeddingDisplay.from_estimator(fitted, class_names=NAMES)
    for P, points, ax in zip(
        fitted.cluster_probabilities_, display.points_, display.axes_, strict=True
    ):
        expected = PCA(2).fit_transform(P.astype(np.float64))
        np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-5)
        np.testing.assert_array_equal(ax.collections[0].get_offsets(), points)
    written = {text.get_text(): text.xy for text in display.texts_}
    assert set(written) <= set(NAMES)
    assert len(written) >= 3
    for i, name in enumerate(NAMES):
        if name in written:
            np.testing.assert_array_equal(written[name], display.points_[-1][i])


def test_embedding_names_do_not_overlap_among_many_classes():
    P = np.random.default_rng(0).random((100, 6))
    names = [f"a class named {i}" for i in range(100)]
    display = NodeEmbeddingDisplay([P], ["classes"], names).plot()
    boxes = [text.get_window_extent() for text in display.texts_]
    assert 5 < len(boxes) < 100
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_embedding_of_one_cluster_and_of_equal_rows():
    display = NodeEmbeddingDisplay([[[0.1], [0.3]], [[0.5], [0.5]]], ["a", "b"]).plot()
    np.testing.assert_allclose(np.abs(display.points_[0]), [[0.1, 0], [0.1, 0]])
    np.testing.assert_array_equal(display.points_[1], 0)
    assert display.texts_ == []


def test_expected_clusters_are_sorted_bars_with_median_and_quartiles(fitted):
    display = ExpectedClustersDisplay.from_estimator(fitted, class_names=NAMES)
    expected = fitted.expected_clusters_[-1]
    widths = [bar.get_width() for bar in display.ax_.patches]
    np.testing.assert_allclose(widths, np.sort(expected)[::-1], rtol=1e-6)
    shown = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert shown == [NAMES[i] for i in np.argsort(-expected, kind="stable")]
    lines = sorted(line.get_xdata()[0] for line in display.ax_.lines)
    np.testing.assert_allclose(lines, np.quantile(expected, [0.25, 0.5, 0.75]))


def test_expected_clusters_of_many_classes_name_the_ends():
    expected = np.random.default_rng(0).random(100) * 6
    display = ExpectedClustersDisplay(expected).plot()
    np.testing.assert_array_equal(
        display.ax_.lines[0].get_xdata(), np.sort(expected)[::-1]
    )
    order = np.argsort(-expected)
    shown = [text.get_text() for text in display.ax_.texts]
    assert shown == [str(i) for i in [*order[:6], *order[-6:]]]


def test_architecture_draws_groups_and_who_shares_a_cluster(fitted):
    display = BlockoutDisplay.from_estimator(fitted, class_names=NAMES)
    memberships = fitted.harden().memberships
    for members, groups in zip(memberships, display.groups_, strict=True):
        patterns = {tuple(row) for row in members if row.any()}
        assert {tuple(pattern) for pattern, _ in groups} == patterns
        for pattern, nodes in groups:
            np.testing.assert_array_equal(
                nodes, np.flatnonzero((members == pattern).all(axis=1))
            )
    drawn = set(display.bands_)
    for j in range(2):
        for a, (one, _) in enumerate(display.groups_[j]):
            for b, (two, _) in enumerate(display.groups_[j + 1]):
                assert ((j, a, b) in drawn) == bool((one & two).any())
    words = " ".join(text.get_text() for text in display.ax_.texts)
    assert "$P_{0}$: 64 inputs" in words
    assert "digit 3" in words


def test_architecture_counts_what_it_leaves_out():
    members = np.array([[1, 0]] * 5 + [[0, 1]] * 3 + [[1, 1], [0, 0], [0, 0]], bool)
    display = BlockoutDisplay([members, members], ["a", "b"], max_groups=2).plot()
    assert [len(nodes) for _, nodes in display.groups_[0]] == [5, 3]
    texts = [text.get_text() for text in display.ax_.texts]
    assert texts.count("not shown: 1\ndead: 2") == 2
    assert display.bands_ == [(0, 0, 0), (0, 1, 1)]


def test_they_draw_where_they_are_told(fitted):
    figure, axes = plt.subplots(1, 3)
    assert ProbabilityHistoryDisplay.from_estimator(fitted, ax=axes).figure_ is figure
    assert NodeEmbeddingDisplay.from_estimator(fitted, ax=axes).axes_[1] is axes[1]
    ax = axes[0]
    assert ExpectedClustersDisplay.from_estimator(fitted, ax=ax).ax_ is ax
    assert BlockoutDisplay.from_estimator(fitted, ax=ax).ax_ is ax
    with pytest.raises(ValueError, match="ax must hold 1 x 3 matplotlib Axes"):
        NodeEmbeddingDisplay.from_estimator(fitted, ax=axes[:2])


@pytest.mark.parametrize(
    "display",
    [
        BlockoutDisplay,
        ExpectedClustersDisplay,
        NodeEmbeddingDisplay,
        ProbabilityHistoryDisplay,
    ],
)
def test_unfitted(display):
    with pytest.raises(NotFittedError):
        display.from_estimator(BlockoutClassifier())


def test_names_have_to_be_as_many_as_classes(fitted):
    displays = BlockoutDisplay, ExpectedClustersDisplay, NodeEmbeddingDisplay
    for display in displays:
        with pytest.raises(ValueError, match="give one name per class"):
            display.from_estimator(fitted, class_names=NAMES[:-1])
    with pytest.raises(ValueError, match="class_names has shape"):
        ExpectedClustersDisplay([1.0, 2.0], ["cat"]).plot()


def test_hidden_nodes_are_not_named_as_classes(digits):
    settings = {"hidden_layer_sizes": (10,), "max_epochs": 1, "random_state": 0}
    model = BlockoutClassifier(layers=["0"], **settings).fit(*digits)
    display = NodeEmbeddingDisplay.from_estimator(model, class_names=NAMES)
    assert display.texts_ == []
    assert display.names == ["$P_{0}$: 64 inputs", "$P_{1}$: 10 nodes"]
    assert BlockoutDisplay.from_estimator(model).class_names is None
