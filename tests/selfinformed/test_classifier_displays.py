"""Pictures and table of a fitted SelfInformedClassifier."""

import numpy as np
import pytest
from scipy import sparse

from sklearn_structreg import ConfusionSpectralPartitioner, SelfInformedClassifier
from sklearn_structreg.selfinformed import (
    ConfusionPartitionDisplay,
    GroupTable,
    SelfInformedDisplay,
)

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(scope="module")
def model(digits):
    names = np.array([f"digit {i}" for i in range(10)])
    return SelfInformedClassifier(
        n_clusters=4,
        head_layer_sizes=(9, 6),
        head_allocation="equal",
        max_epochs=2,
        random_state=0,
    ).fit(digits[0][:500], names[digits[1][:500]])


def test_the_confusions_of_a_fitted_classifier_need_no_samples(model, digits):
    display = ConfusionPartitionDisplay.from_estimator(model)
    shown = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert shown == np.concatenate(model.partition_.clusters_).tolist()
    assert len(display.frames_) == 4
    names = np.array([f"digit {i}" for i in range(10)])
    anew = ConfusionPartitionDisplay.from_estimator(
        model, digits[0][500:], names[digits[1][500:]]
    )
    assert (anew.confusion != model.partition_.confusion_).nnz > 0


def test_the_architecture_shows_every_head(model):
    display = SelfInformedDisplay.from_estimator(model)
    texts = [text.get_text() for text in display.ax_.texts]
    assert texts.count("9 ReLU") == texts.count("6 ReLU") == 4
    assert "old layers, frozen: 100 features" in texts
    base, augmented = model.multiply_adds_
    assert display.ax_.get_title().startswith(f"{base:,} multiply-adds + ")
    assert f"{augmented - base:,}" in display.ax_.get_title()
    _, ax = plt.subplots()
    assert display.plot(ax=ax).ax_ is ax


def test_the_architecture_of_linear_heads_on_shared_features():
    display = SelfInformedDisplay(["a", "b"], [(), ()], n_features=3, n_hidden=3)
    display.shared = True
    display.plot().figure_.draw_without_rendering()
    texts = [text.get_text() for text in display.ax_.texts]
    assert "the same\nfeatures" in texts
    assert not any("ReLU" in text for text in texts)


def test_the_table_puts_the_most_confused_first_and_says_how_much_stays_inside():
    confusion = sparse.csr_array(
        np.array([[9, 1, 2, 0], [1, 9, 0, 0], [6, 0, 9, 0], [0, 3, 0, 9.0]])
    )
    partitioner = ConfusionSpectralPartitioner(
        2, source="precomputed", classes=list("abcd"), random_state=0
    ).fit(confusion)
    assert [g.tolist() for g in partitioner.clusters_] == [["a", "c"], ["b", "d"]]
    table = GroupTable.from_estimator(partitioner)
    assert [list(cluster) for cluster in table.clusters] == [["a", "c"], ["b", "d"]]
    np.testing.assert_allclose(table.inside, [16 / 18, 6 / 8])
    assert str(table).splitlines() == [
        "group  classes  inside  members",
        "    0        2     89%  a, c",
        "    1        2     75%  b, d",
    ]


def test_html_is_escaped_and_complete(model):
    table = GroupTable.from_estimator(
        model, display_labels=[f"<{i}>" for i in range(10)], max_classes=1
    )
    page = table._repr_html_()
    assert page.count("<tr>") == 5
    assert "<0>" not in page
    assert "&lt;" in page
    assert ", ..." in page
    assert repr(table) == str(table)


def test_long_rows_are_wrapped():
    names = [f"a rather long name {i}" for i in range(10)]
    lines = str(GroupTable([names])).splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= 88


@pytest.mark.parametrize("show", [SelfInformedDisplay, GroupTable])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_without_groups_there_is_nothing_to_show(digits, show):
    off = SelfInformedClassifier(n_clusters=0, max_epochs=1).fit(
        digits[0][:100], digits[1][:100]
    )
    with pytest.raises(ValueError, match="n_clusters=0 and has no"):
        show.from_estimator(off)
