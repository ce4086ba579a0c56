"""scikit-learn's own callbacks: a fit and its epochs are tasks."""

import warnings

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.fixes import parse_version

from sklearn_structreg import (
    BlockoutClassifier,
    CGESRegressor,
    DropClusterClassifier,
    SelfInformedClassifier,
)
from sklearn_structreg.core import StructuredClassifier

FAST = {"max_epochs": 3, "random_state": 0, "learning_rate": 0.1}
HEADS = {"n_clusters": 2, "head_layer_sizes": (4,), "fine_tune": True}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
if parse_version(sklearn.__version__) < parse_version("1.9"):
    pytest.skip("callbacks came with scikit-learn 1.9", allow_module_level=True)

from sklearn.callback import ProgressBar, ScoringMonitor  # noqa: E402


class Notes:
    """Writes down the tasks; may ask to stop."""

    max_propagation_depth = None

    def __init__(self, stop_after=None):
        self.stop_after, self.lines, self.estimators, self.data = stop_after, [], [], []

    def setup(self, estimator, context):
        self.lines.append("setup")

    def teardown(self, estimator, context):
        self.lines.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None):
        self.lines.append(f"begin {context.task_name}")
        self.data.append((X, y, metadata))

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        self.lines.append(f"end {context.task_name}")
        self.estimators.append(fitted_estimator)
        n_ended = self.lines.count("end epoch")
        return context.task_name == "epoch" and n_ended == self.stop_after


@pytest.mark.parametrize(
    "kind",
    [StructuredClassifier, BlockoutClassifier, CGESRegressor, DropClusterClassifier],
)
def test_epochs_are_tasks_with_the_estimator_of_that_time(kind, blobs):
    X, y = blobs
    notes, weight, state = Notes(), np.ones(len(X)), torch.get_rng_state()
    constant = {  # the same whatever `max_epochs` is
        DropClusterClassifier: {"start_epoch": 0},
        CGESRegressor: {"ramp": 0, "refit": 0},
    }
    params = FAST | constant.get(kind, {})
    model = kind(**params).set_callbacks(notes).fit(X, y, sample_weight=weight)
    epochs = ["begin epoch", "end epoch"] * 3
    assert notes.lines == ["setup", "begin fit", *epochs, "end fit", "teardown"]
    assert all(data[0] is X and data[1] is y for data in notes.data)
    assert notes.data[0][2] == {"sample_weight": weight}
    for n_epochs, then in enumerate([*notes.estimators[:3], model], start=1):
        shorter = kind(**params | {"max_epochs": min(n_epochs, 3)})
        np.testing.assert_array_equal(then.predict(X), shorter.fit(X, y).predict(X))
        assert then.n_iter_ == min(n_epochs, 3)
    plain = kind(**params).fit(X, y)  # reports have no influence
    np.testing.assert_array_equal(model.predict(X), plain.predict(X))
    assert set(vars(model)) == set(vars(plain)) | {"_skl_callbacks"}
    assert [name for name, _ in model.net_.callbacks_] == [
        name for name, _ in plain.net_.callbacks_
    ]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_callback_may_stop_the_training(blobs):
    model = StructuredClassifier(**FAST).set_callbacks(Notes(stop_after=2)).fit(*blobs)
    assert model.n_iter_ == 2


def test_early_stopping_ends_its_last_task(blobs):
    notes = Notes()
    params = FAST | {"max_epochs": 99, "n_iter_no_change": 1, "early_stopping": True}
    model = StructuredClassifier(**params).set_callbacks(notes).fit(*blobs)
    assert model.n_iter_ < 99
    assert notes.lines.count("end epoch") == notes.lines.count("begin epoch")


def test_a_fit_that_fails_is_torn_down(blobs):
    notes = Notes()
    model = StructuredClassifier(learning_rate=1e20).set_callbacks(notes)
    with pytest.raises(ValueError, match="non-finite"):
        model.fit(*blobs)
    assert notes.lines[-1] == "teardown"
    assert not hasattr(model, "_callback_fit_ctx")
    model.set_callbacks().set_params(**FAST).fit(*blobs)


@pytest.mark.parametrize("base", [None, StructuredClassifier(max_epochs=2)])
def test_the_stages_of_a_self_informed_fit(base, blobs):
    notes, params = Notes(), FAST | HEADS
    model = SelfInformedClassifier(base, **params).set_callbacks(notes).fit(*blobs)
    n_base = 3 if base is None else 2
    # The network, those of two folds, the heads, and all together.
    assert notes.lines.count("end epoch") == 3 * n_base + 1 + 3
    # `fit` of a network is merged with the task around it.
    assert notes.lines.count("begin fit") == 1 + 1 + 2
    assert notes.lines[-2:] == ["end fit", "teardown"]
    np.testing.assert_array_equal(
        notes.estimators[-1].predict(blobs[0]), model.predict(blobs[0])
    )


def test_scores_are_monitored_by_epoch(blobs):
    X, y = blobs
    monitor = ScoringMonitor(scoring="accuracy")
    StructuredClassifier(**FAST).set_callbacks(monitor).fit(X, y)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    expected = [
        accuracy_score(
            y, StructuredClassifier(**FAST | {"max_epochs": n}).fit(X, y).predict(X)
        )
        for n in (1, 2, 3)
    ]
    assert [row["accuracy"] for row in rows] == expected


def test_searches_and_pipelines_report_the_epochs_inside(blobs):
    notes = Notes()
    grid = {"momentum": [0.5, 0.9]}
    search = GridSearchCV(StructuredClassifier(**FAST), grid, cv=2, error_score="raise")
    search.set_callbacks(notes).fit(*blobs)
    assert notes.lines.count("end epoch") == 3 * (2 * 2 + 1)
    notes = Notes()
    pipeline = make_pipeline(StandardScaler(), StructuredClassifier(**FAST))
    with warnings.catch_warnings():  # the scaler takes no callbacks
        warnings.simplefilter("ignore")
        pipeline.set_callbacks(notes).fit(*blobs)
    assert notes.lines.count("end epoch") == 3


def test_the_progress_bar(blobs, capfd):
    pytest.importorskip("rich")
    model = StructuredClassifier(**FAST).set_callbacks(ProgressBar())
    clone(model).fit(*blobs)
    assert "StructuredClassifier - fit" in capfd.readouterr().out
    informed = SelfInformedClassifier(**FAST, **HEADS).set_callbacks(ProgressBar())
    informed.fit(*blobs)
    assert "SelfInformedClassifier - fit" in capfd.readouterr().out
