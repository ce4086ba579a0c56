"""The pictures show what they say."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from sklearn_structreg import CGESClassifier, CGESClassifierCV, CGESRegressorCV
from sklearn_structreg.cges import (
    CGESPath,
    SparsityDisplay,
    SparsityHistoryDisplay,
    StrengthDisplay,
    TradeOffDisplay,
)
from sklearn_structreg.core import StructuredClassifier

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(scope="module")
def model(digits):
    X, y = digits[0][:300], digits[1][:300]
    return CGESClassifier(
        alpha=0.1, image_shape=(1, 8, 8), max_epochs=4, random_state=0
    ).fit(X, y)


def shown(ax):
    return np.ma.filled(ax.images[0].get_array().astype(float), np.nan)


def test_matplotlib_is_imported_only_to_plot_and_numba_only_to_train():
    code = (
        "import sys, sklearn_structreg.cges as c;"
        "c.SparsityDisplay({}); c.SparsityHistoryDisplay([], {}, []);"
        "c.TradeOffDisplay({}); assert not {'matplotlib', 'numba'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_constructors_only_hold_data():
    weights = {"a": [[1.0]]}
    assert vars(SparsityDisplay(weights)) == {"weights": weights}
    assert vars(TradeOffDisplay(weights)) == {
        "curves": weights,
        "reference": None,
        "score_name": "accuracy",
    }
    assert set(vars(SparsityHistoryDisplay([1], weights, [0]))) == {
        "epochs",
        "layers",
        "total",
    }


# ---- weight maps ---------------------------------------------------------------


def test_maps_of_all_layers(model):
    display = SparsityDisplay.from_estimator(model)
    assert display.axes_.shape == (4,)
    assert all(ax.figure is display.figure_ for ax in display.axes_)
    for ax, layer in zip(display.axes_, (0, 3, 7, 9), strict=True):
        share = 100 * float((model.module_[layer].weight == 0).float().mean())
        assert ax.get_title() == f"layer {layer}: {share:.0f} % zero"
    top = model.module_[9].weight.detach().abs().numpy()[:, :50]
    image = shown(display.axes_[3])
    np.testing.assert_allclose(np.nan_to_num(image), top, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(image), top == 0)
    caption = "across: 50 of 100 input features; down: 10 of 10 outputs"
    assert display.axes_[3].get_xlabel() == caption


def test_kernels_are_tiles_with_a_frame_between():
    rng = np.random.default_rng(0)
    several, single = rng.normal(size=(3, 2, 4, 5)), rng.normal(size=(20, 1, 3, 3))
    single[5] = 0
    display = SparsityDisplay({"several": several, "single": single}).plot()
    image = shown(display.axes_[0])
    assert image.shape == (2 * 5 - 1, 3 * 6 - 1)
    for channel in range(2):
        for filter_ in range(3):
            rows, columns = slice(5 * channel, 5 * channel + 4), 6 * filter_
            tile = image[rows, columns : columns + 5]
            np.testing.assert_allclose(tile, np.abs(several[filter_, channel]))
    assert (image[4] < 0).all()
    assert (image[:, 5::6] < 0).all()
    image = shown(display.axes_[1])  # 16 to a row
    assert image.shape == (2 * 4 - 1, 16 * 4 - 1)
    np.testing.assert_allclose(image[4:7, 12:15], np.abs(single[19, 0]))
    assert np.isnan(image[:3, 20:23]).all()
    assert np.isnan(image[4:7, 16:19]).all()
    assert display.axes_[1].get_xlabel() == "20 of 20 filters"


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 2, 3, 3, 3), (4, 1, 5), (2, 3)])
def test_maps_of_any_layer(shape):
    weights = np.random.default_rng(0).normal(size=shape)
    display = SparsityDisplay({"any": weights}).plot(n_outputs=2, n_inputs=2)
    image = shown(display.axes_[0])
    expected = np.abs(weights[:2, :2]).sum()
    assert image[image > 0].sum() == pytest.approx(expected)


def test_maps_into_given_axes(model):
    figure, axes = plt.subplots(2)
    layers = ["0.weight", "9.weight"]
    display = SparsityDisplay.from_estimator(model, layers=layers, ax=axes)
    assert display.figure_ is figure
    assert (display.axes_ == axes).all()
    with pytest.raises(ValueError, match="ax must hold 2 x 1 matplotlib Axes"):
        display.plot(axes[:1])
    with pytest.raises(ValueError, match=r"layers=\[.0.bias.\] must list some of"):
        SparsityDisplay.from_estimator(model, layers=["0.bias"])
    for layers in ("0.weight", []):
        with pytest.raises(ValueError, match="must list some of the penalised weights"):
            SparsityDisplay.from_estimator(model, layers=layers)


@pytest.mark.parametrize("display", [SparsityDisplay, SparsityHistoryDisplay])
def test_displays_of_something_else(display):
    for other in (StructuredClassifier(), make_pipeline(CGESClassifier())):
        with pytest.raises(
            TypeError, match=f"{display.__name__} takes a CGESClassifier or"
        ):
            display.from_estimator(other)


def test_a_history_without_sparsity(digits):
    plain = StructuredClassifier(max_epochs=1).fit(*digits)
    with pytest.raises(ValueError, match="The history holds no layer_sparsity"):
        SparsityHistoryDisplay.from_history(plain.history_)


def test_an_unknown_reference():
    curve = {"scores": [0.9], "parameters": [0.5], "multiply_adds": [0.5]}
    with pytest.raises(ValueError, match=r"reference='L2' must be one of \['L1'\]"):
        TradeOffDisplay({"L1": curve}, reference="L2").plot()


def test_a_layer_that_is_all_zero():
    display = SparsityDisplay({"none": np.zeros((3, 4))}).plot()
    assert np.isnan(shown(display.axes_[0])).all()


# ---- over the epochs -----------------------------------------------------------


def test_sparsity_over_the_epochs(model):
    display = SparsityHistoryDisplay.from_estimator(model)
    names = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert names == ["0", "3", "7", "9", "all"]
    for line, name in zip(display.lines_, names, strict=True):
        assert list(line.get_xdata()) == [1, 2, 3, 4]
        if name != "all":
            zeros = (model.module_[int(name)].weight == 0).float().mean()
            assert line.get_ydata()[-1] == pytest.approx(100 * float(zeros))
    assert display.lines_[-1].get_ydata()[-1] == 100 * model.sparsity_
    _, ax = plt.subplots()
    again = SparsityHistoryDisplay.from_history(model.history_, ax=ax)
    assert again.ax_ is ax
    assert again.figure_ is ax.figure


# ---- the trade-off -------------------------------------------------------------


def path(accuracy, parameters):
    n = len(accuracy)
    values = [np.arange(n), accuracy, parameters, parameters, 1 - parameters]
    return CGESPath(*map(np.asarray, values), estimators=[])


def test_trade_off_of_seeds_with_error_bars():
    rng = np.random.default_rng(0)
    parameters = np.array([0.2, 0.9, 0.5])
    paths = [path(rng.uniform(size=3), parameters) for _ in range(4)]
    display = TradeOffDisplay.from_paths(
        {"many": paths, "one": paths[0]}, reference="one"
    )
    assert display.axes_.shape == (2,)
    accuracy = np.stack([p.scores for p in paths], axis=1)
    for ax in display.axes_:
        many, one = ax.containers
        order = [0, 2, 1]
        np.testing.assert_allclose(many[0].get_xdata(), [20, 50, 90])
        np.testing.assert_allclose(
            many[0].get_ydata(), 100 * accuracy.mean(axis=1)[order]
        )
        assert not one.has_yerr
        segments = many[2][0].get_segments()
        half = np.array([(top - bottom) / 2 for (_, bottom), (_, top) in segments])
        for row, found in zip(order, half, strict=True):
            low, high = stats.t.interval(
                0.95, 3, accuracy[row].mean(), stats.sem(accuracy[row])
            )
            assert found == pytest.approx(100 * (high - low) / 2)
        line = ax.lines[-1].get_ydata()
        assert line[0] == pytest.approx(100 * paths[0].scores.max())
    assert display.axes_[1].get_xlabel() == "multiply-adds left (%)"
    (legend,) = display.figure_.legends
    assert [text.get_text() for text in legend.get_texts()] == ["many", "one"]


def test_trade_off_of_another_score():
    curve = {"scores": [0.9], "parameters": [0.5], "multiply_adds": [0.7]}
    display = TradeOffDisplay({"a": curve}, score_name="R^2").plot()
    assert display.axes_[0].get_ylabel() == "R^2 (%)"
    paths = {"a": path([0.9], np.array([0.5]))}
    display = TradeOffDisplay.from_paths(paths, score_name="R^2")
    assert display.axes_[0].get_ylabel() == "R^2 (%)"


def test_trade_off_into_given_axes():
    curve = {"scores": [0.9], "parameters": [0.5], "multiply_adds": [0.7]}
    figure, axes = plt.subplots(2)
    display = TradeOffDisplay({"a": curve}).plot(axes)
    assert display.figure_ is figure
    assert axes[0].get_legend() is not None
    assert not figure.legends
    with pytest.raises(ValueError, match="ax must hold 1 x 2 matplotlib Axes"):
        TradeOffDisplay({"a": curve}).plot(axes[0])


# ---- the chosen strength -------------------------------------------------------


def test_scores_over_strengths_beside_importances():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(90, 4)), columns=[*"abcd"])
    fast = {"hidden_layer_sizes": (8,), "max_epochs": 20, "cv": 3, "random_state": 0}
    fast |= {"learning_rate": 0.03}
    model = CGESClassifierCV(alphas=[0, 0.1, 0.3], **fast).fit(X, X["c"] > 0)
    display = StrengthDisplay.from_estimator(model, n_features=2)
    left, right = display.axes_
    ((line, _, (bars,)),) = left.containers
    np.testing.assert_array_equal(line.get_xdata(), [0, 0.1, 0.3])
    np.testing.assert_array_equal(line.get_ydata(), model.scores_.mean(axis=0))
    heights = [top - bottom for (_, bottom), (_, top) in bars.get_segments()]
    np.testing.assert_allclose(heights, 2 * stats.sem(model.scores_))
    (chosen,) = (each for each in left.lines if each.get_label().startswith("chosen"))
    assert (*chosen.get_xydata()[0],) == (model.alpha_, model.best_score_)
    assert left.get_ylabel() == "accuracy (mean over folds)"
    best = np.argsort(-model.feature_importances_)[:2]
    assert [text.get_text() for text in right.get_yticklabels()] == [*X.columns[best]]
    widths = [bar.get_width() for bar in right.patches]
    np.testing.assert_array_equal(widths, model.feature_importances_[best])
    assert right.get_yticklabels()[0].get_text() == "c"
    X, y = X.to_numpy(), X["c"].to_numpy()
    model = CGESRegressorCV(alphas=1, scoring="neg_median_absolute_error", **fast)
    left, right = StrengthDisplay.from_estimator(model.fit(X, y)).axes_
    assert left.get_ylabel() == "neg median absolute error (mean over folds)"
    assert right.get_yticklabels()[0].get_text() == "2"


def test_features_that_are_not_used_have_no_bar():
    display = StrengthDisplay([1], [0.5], [0.0], 1, [0.0, 3.0, 0.0, 1.0]).plot()
    right = display.axes_[1]
    assert [text.get_text() for text in right.get_yticklabels()] == ["1", "3"]
    assert right.get_title() == "2 of 4 features used"


def test_a_strength_that_was_not_cross_validated():
    for other in (CGESClassifier(), make_pipeline(CGESClassifierCV())):
        with pytest.raises(TypeError, match="StrengthDisplay takes a CGESClassifierCV"):
            StrengthDisplay.from_estimator(other)


@pytest.mark.parametrize(
    ("display", "estimator"),
    [
        (SparsityDisplay, CGESClassifier()),
        (SparsityHistoryDisplay, CGESClassifier()),
        (StrengthDisplay, CGESClassifierCV()),
    ],
)
def test_before_fit(display, estimator):
    with pytest.raises(NotFittedError):
        display.from_estimator(estimator)
