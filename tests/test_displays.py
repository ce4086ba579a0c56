"""Displays follow the customs of scikit-learn's, and are pictures in notebooks."""

import inspect

import numpy as np
import pytest
import torch
from rooms import rooms

from sklearn_structreg.blockout import (
    BlockoutDisplay,
    ExpectedClustersDisplay,
    NodeEmbeddingDisplay,
    ProbabilityHistoryDisplay,
)
from sklearn_structreg.cges import (
    FeaturePathDisplay,
    SparsityDisplay,
    SparsityHistoryDisplay,
    StrengthDisplay,
    TradeOffDisplay,
)
from sklearn_structreg.cges.feature_path import FeaturePath
from sklearn_structreg.compaction import size_report
from sklearn_structreg.core import LearningRateDisplay, SizeDisplay
from sklearn_structreg.dropcluster import (
    DropClusterDisplay,
    HopkinsDisplay,
    LayerHopkinsDisplay,
    ReNADisplay,
)
from sklearn_structreg.selfinformed import (
    ConfusionPartitionDisplay,
    SelfInformedDisplay,
)

pytest.importorskip("matplotlib")
plt = pytest.importorskip("matplotlib.pyplot")

P = [np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.7]])] * 2
NAMES = ["inputs", "classes"]
HALVES = np.repeat([[[0, 1]]], 4, axis=1).repeat(2, axis=2)  # a channel of 4 x 4
MAPS = np.arange(16.0).reshape(1, 1, 4, 4)
PATH = FeaturePath(np.arange(3), np.arange(1.0, 5), np.outer([3, 2, 1, 0], [1.0, 2, 3]))
CURVE = {"scores": [0.9], "parameters": [0.5], "multiply_adds": [0.5]}
DISPLAYS = [
    BlockoutDisplay([np.eye(2)] * 2, NAMES),
    ExpectedClustersDisplay([1.2, 2.8]),
    NodeEmbeddingDisplay(P, NAMES),
    ProbabilityHistoryDisplay(np.ones((2, 2, 5)), np.full((2, 2), 0.5), NAMES),
    FeaturePathDisplay([PATH]),
    SparsityDisplay({"top": np.eye(3)}),
    SparsityHistoryDisplay([1, 2], {"0": [0.1, 0.5]}, [0.1, 0.5]),
    StrengthDisplay([0.1, 1], [0.8, 0.9], [0.1, 0.1], 1, [0.0, 2.0]),
    TradeOffDisplay({"L1": CURVE}),
    SizeDisplay(size_report(torch.nn.Linear(4, 2), torch.zeros(1, 4), n_repeats=0)),
    LearningRateDisplay([0.01, 0.1, 1], [3, 2, 9]),
    DropClusterDisplay(HALVES, [True], MAPS, MAPS),
    HopkinsDisplay([[0.6, 0.7]]),
    LayerHopkinsDisplay({"conv": [[0.6, 0.7]]}),
    ReNADisplay(HALVES[0], MAPS[0, 0]),
    ConfusionPartitionDisplay(np.eye(3) + 1, np.array([0, 1, 0])),
    SelfInformedDisplay(["a, b"], [(8,)], n_features=4, n_hidden=4),
]


def test_the_table_has_all_displays():
    names = [n for r in rooms().values() for n in r.__all__ if n.endswith("Display")]
    assert sorted(type(each).__name__ for each in DISPLAYS) == sorted(names)


@pytest.mark.parametrize("display", DISPLAYS, ids=lambda each: type(each).__name__)
def test_customs_of_a_display(display):
    makers = [name for name in dir(type(display)) if name.startswith("from_")]
    assert makers == ["from_paths"] or "from_estimator" in makers
    parameters = inspect.signature(type(display)).parameters
    assert {*vars(display)} >= {*parameters} - {"_"}
    assert not hasattr(display, "figure_")
    assert inspect.signature(display.plot).parameters["ax"].default is None
    assert display.plot() is display
    single = hasattr(display, "ax_")
    assert single != hasattr(display, "axes_")
    axes = [display.ax_] if single else list(display.axes_.flat)
    assert all(isinstance(ax, plt.Axes) for ax in axes)
    assert {ax.figure for ax in axes} == {display.figure_}


@pytest.mark.parametrize("display", DISPLAYS, ids=lambda each: type(each).__name__)
def test_a_display_is_its_picture_in_a_notebook_once(display):
    vars(display).pop("figure_", None)
    assert display._repr_png_().startswith(b"\x89PNG")
    assert not plt.get_fignums()  # what is open the notebook shows as well


def test_a_part_of_a_figure_and_a_figure_with_a_window_of_its_own(monkeypatch):
    part = plt.figure().subfigures(1, 2)[0]
    display = ExpectedClustersDisplay([1.2, 2.8]).plot(ax=part.subplots())
    assert display._repr_png_().startswith(b"\x89PNG")
    display.plot()
    window = type("Canvas", (type(display.figure_.canvas),), {})
    monkeypatch.setattr(display.figure_, "canvas", window(display.figure_))
    assert display._repr_png_() is None
