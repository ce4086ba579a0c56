"""Bad input gets one clear sentence, before any work is lost: self-informed."""

import functools
import warnings

import numpy as np
import pytest
from bad_input import Case, check, every, settings
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_structreg.core import StructuredClassifier, StructuredRegressor, make_mlp
from sklearn_structreg.selfinformed import (
    ConfusionPartitionDisplay,
    ConfusionSpectralPartitioner,
    GroupTable,
    SelfInformedClassifier,
    SelfInformedDisplay,
    mean_average_precision_at_k,
)

# Fits of one or two epochs, for other purposes than to learn.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
Y = np.arange(80) % 4
X = RNG.normal(size=(80, 6)) + Y[:, None]
SCORES = RNG.random((80, 4))


def classifier(*args, **params):
    defaults = {"max_epochs": 1, "random_state": 0, "head_layer_sizes": (4,)}
    return SelfInformedClassifier(*args, **(defaults | params))


def fit(model):
    return model.fit(X, Y)


def quietly(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


@functools.cache
def _base():
    return quietly(lambda: StructuredClassifier(max_epochs=1, random_state=0).fit(X, Y))


@functools.cache
def _fitted():
    return quietly(lambda: classifier(_base(), n_clusters=2).fit(X, Y))


@functools.cache
def _partitioner():
    return ConfusionSpectralPartitioner(2, random_state=0).fit(SCORES, Y)


def fitted():
    return _fitted()


def partitioner():
    return _partitioner()


class Untrainable:
    """Fails the test where it is trained."""

    def fit(self, *args, **params):
        raise AssertionError("has been trained")


class Forest(Untrainable, RandomForestClassifier):
    pass


class Search(Untrainable, GridSearchCV):
    pass


class Base(Untrainable, StructuredClassifier):
    pass


class Reshaped(nn.Module):
    """Ends in a view; its classifier is in a list, too."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 4)
        self.heads = nn.ModuleList([self.head])

    def forward(self, x):
        return self.heads[0](self.body(x).relu()).view(-1, 4)


NUMBERS = {
    "n_clusters": [-1, 2.5, True, "many", None],
    "head_allocation": ["random", 1],
    "source": ["truth", 1],
    "top_k": [0, 2.5, True, "all"],
    "cv": [0, 1, 2.5, True],
    "budget": [0, -0.1, True, np.nan],
    "head_epochs": [0, 1.5, True],
    "fresh_classifier": ["yes", 2],
    "layer": [3, None],
    "fine_tune": ["yes", 2],
    "n_rounds": [0, 2.5, True],
    "conditional": [0, 2.5, True, "all"],
    "head_layer_sizes": [4, None, "all"],
    "head_kernel_size": [0, 2, 9, "3", True],
    "estimator": [3, "net", nn.Linear(6, 4)],
}
CLASSIFIERS = [
    *settings(NUMBERS, SelfInformedClassifier, fit),
    *(
        Case(f"head_layer_sizes={sizes}", "head_layer_sizes=.*positive integers", fit, classifier(head_layer_sizes=sizes))
        for sizes in [(0,), (-3,), (2.5,), (True,), ("a",), ((3, 4),)]
    ),
    *(
        Case(f"estimator: {name}", words, fit, classifier(estimator))
        for name, estimator, words in [
            ("forest", Forest(), "Forest has no torch module"),
            ("search", Search(Base(), {}), "Search has no torch module"),
            ("logistic regression", LogisticRegression(), "LogisticRegression has no torch module"),
            ("pipeline", make_pipeline(StandardScaler(), Base()), "is a Pipeline"),
            ("regressor", StructuredRegressor(), "is a regressor"),
            ("itself", classifier(), "itself a SelfInformedClassifier"),
            ("frozen, unfitted", FrozenEstimator(Base()), "not fitted; fit it first"),
            ("frozen forest", FrozenEstimator(Forest()), "no torch module"),
            ("other inputs", Base(nn.Linear(5, 4)), r"does not take samples of shape \(6,\)"),
            ("other outputs", Base(nn.Linear(6, 7)), r"output of shape \(2, 7\)"),
            ("no layer but the last", Base(nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 6), nn.Flatten())), "no layer that all computation"),
            ("out of range", Base(max_epochs=0), "'max_epochs' parameter"),
            ("fitted for other features", None, "fitted for 5 features, but X has 6"),
            ("fitted for other classes", None, "fitted for the classes"),
        ]
        if estimator is not None
    ),
    Case("fitted for other features", "fitted for 6 features, but X has 5", lambda m: m.fit(X[:, :5], Y), lambda: classifier(_base())),
    Case("fitted for other classes", r"fitted for the classes \[0, 1, 2, 3\]", lambda m: m.fit(X, Y + 1), lambda: classifier(_base())),
    Case("no such layer", "no layer named 'head'", fit, classifier(Base(), layer="head")),
    Case("layer after the end", "has no tensor to read", fit, classifier(Base(nn.Sequential(nn.Linear(6, 4), nn.Identity())), layer="1")),
    Case("places for other rounds", r"layer=\['0', 'auto'\] must be .* n_rounds=3", fit, classifier(Base(), layer=["0", "auto"], n_rounds=3)),
    Case("places of no names", r"layer=\[0\] must be", fit, classifier(Base(), layer=[0])),
    Case("convolutions on flat features", "heads read maps of several positions", fit, classifier(Base(), layer="0", head_kernel_size=3)),
    Case("no maps to find", "no maps of several positions", fit, classifier(Base(), head_kernel_size=3)),
    Case("more groups than classes", "n_clusters=5 groups were asked for", fit, classifier(Base(), n_clusters=5)),
    Case("top_k of one for co-detections", "top_k=1 leaves no two classes", fit, classifier(Base(), top_k=1, source="random_codetection")),
    Case("top_k of all classes", "top_k=4", fit, classifier(Base(), top_k=4)),
    Case("weights for a net without", "takes no sample_weight", lambda m: m.fit(X, Y, np.ones(80)), classifier(NeuralNetClassifier(nn.Linear(6, 4)))),
    Case("eval_set of four", "eval_set=.* is neither", lambda m: m.fit(X, Y, eval_set=(X, Y, Y, Y)), classifier(Base())),
    Case("eval_set of other features", "X has 5 features", lambda m: m.fit(X, Y, eval_set=(X[:, :5], Y)), classifier(Base())),
    Case("eval_set of other classes", "eval_set|class", lambda m: m.fit(X, Y, eval_set=(X, Y + 1)), classifier(Base())),
    Case("NaN", "contains NaN", lambda m: m.fit(np.where(X > 2, np.nan, X), Y), classifier(Base())),
    Case("unfitted predict", "not fitted yet", lambda m: m.predict(X), classifier()),
    Case("unfitted count", "not fitted yet", lambda m: m.count_multiply_adds(X), classifier()),
    Case("no partial_fit", "partial_fit", lambda m: m.partial_fit(X, Y), classifier(), AttributeError),
    Case("predict other features", "X has 5 features", lambda m: m.predict(X[:, :5]), fitted),
]  # fmt: skip

# ---- the partitioner ---------------------------------------------------------------

CONFUSION = np.array([[40, 9, 1, 0], [8, 42, 0, 0], [0, 1, 45, 4], [0, 0, 6, 44]])


def partition(x=SCORES, y=Y, *args, **params):
    return lambda: ConfusionSpectralPartitioner(**params).fit(x, y, *args)


def precomputed(x, **params):
    return partition(x, None, n_clusters=2, source="precomputed", **params)


PARTITIONS = [
    *settings(
        {
            "n_clusters": [0, 2.5, True, "many", None],
            "source": ["truth", None],
            "top_k": [0, 2.5, True, "all"],
            "classes": ["abcd", 3],
            "random_state": ["a", -1],
        },
        ConfusionSpectralPartitioner,
        lambda m: m.fit(SCORES, Y),
    ),
    *(
        Case(f"fit: {name}", words, call, error=error)
        for name, call, words, error in [
            ("NaN", partition(np.where(SCORES > 0.9, np.nan, SCORES)), "contains NaN", ValueError),
            ("infinity", partition(np.where(SCORES > 0.9, np.inf, SCORES)), "contains infinity", ValueError),
            ("sparse", partition(sparse.csr_array(SCORES)), "Sparse data", TypeError),
            ("one axis", partition(SCORES[:, 0]), "Expected 2D array", ValueError),
            ("no rows", partition(SCORES[:0], Y[:0]), r"0 sample\(s\)", ValueError),
            ("complex", partition(SCORES + 0j), "Complex data", ValueError),
            ("short y", partition(SCORES, Y[:3]), "inconsistent numbers", ValueError),
            ("no y", partition(SCORES, None, source="confusion"), "requires y to be passed", ValueError),
            ("fractions", partition(SCORES, Y / 3), "Unknown label type", ValueError),
            ("NaN in y", partition(SCORES, np.where(Y == 0, np.nan, Y)), "y contains NaN", ValueError),
            ("mixed labels", partition(SCORES, np.array(["a", 1] * 40, dtype=object)), "Unknown label type|could not convert", ValueError),
            ("unknown label", partition(SCORES, Y % 3 + 7), "holds the label 7", ValueError),
            ("unknown words", partition(SCORES, np.array(["a", "b"] * 40)), "holds the label 'a'", ValueError),
            ("narrow indicator", partition(SCORES, np.eye(4, 3, dtype=int)[Y]), "y has 3 columns", ValueError),
            ("indicator of 2s", partition(SCORES, 2 * np.eye(4, dtype=int)[Y]), "indicator", ValueError),
            ("indicator of words", partition(SCORES, np.eye(4, dtype=int)[Y].astype(str)), "indicator", ValueError),
            ("classes too few", partition(classes=["a", "b"]), "classes", ValueError),
            ("classes twice", partition(classes=["a", "a", "b", "c"]), "classes", ValueError),
            ("classes of two axes", partition(classes=[[0, 1], [2, 3]]), "classes", ValueError),
            ("classes of NaN", partition(classes=[0, 1, 2, np.nan]), "classes", ValueError),
            ("more groups than classes", partition(n_clusters=5), "n_clusters=5", ValueError),
            ("top_k of all", partition(top_k=4), "top_k=4", ValueError),
            ("weights negative", partition(SCORES, Y, -np.ones(80)), "[Nn]egative", ValueError),
            ("weights zero", partition(SCORES, Y, np.zeros(80)), "at least one", ValueError),
            ("weights NaN", partition(SCORES, Y, np.full(80, np.nan)), "NaN", ValueError),
            ("weights short", partition(SCORES, Y, np.ones(3)), "sample_weight.shape", ValueError),
            ("weights of an infinite sum", partition(SCORES, Y, np.full(80, 1e308)), "sample_weight|weights", ValueError),
            ("precomputed rectangle", precomputed(CONFUSION[:3]), "square|shape", ValueError),
            ("precomputed negative", precomputed(-CONFUSION), "[Nn]egative", ValueError),
            ("precomputed NaN", precomputed(CONFUSION * np.nan), "NaN", ValueError),
            ("precomputed zeros", precomputed(0 * CONFUSION), "zero all over", ValueError),
            ("precomputed diagonal", precomputed(np.diag([1, 2, 3, 4])), "share a detection", ValueError),
            ("feature names", lambda: _partitioner().transform(SCORES[:, :3]), "X has 3 features", ValueError),
            ("transform unfitted", lambda: ConfusionSpectralPartitioner().transform(SCORES), "not fitted yet", ValueError),
            ("labels unfitted", lambda: ConfusionSpectralPartitioner().labels_, "not fitted yet", ValueError),
            ("merge unfitted", lambda: ConfusionSpectralPartitioner().merge(_partitioner()), "not fitted yet", ValueError),
            ("merge with unfitted", lambda: _partitioner().merge(ConfusionSpectralPartitioner()), "not fitted yet", ValueError),
            ("merge another top_k", lambda: _partitioner().merge(ConfusionSpectralPartitioner(2, top_k=3).fit(SCORES, Y)), "top_k_ is", ValueError),
            ("merge with a number", lambda: _partitioner().merge(3), "not an estimator instance", TypeError),
        ]
    ),
    Case("partial_fit other width", "X has 3 features", lambda m: m.partial_fit(SCORES[:, :3], Y), partitioner),
    Case("partial_fit unknown label", "holds the label 9", lambda m: m.partial_fit(SCORES, np.where(Y == 0, 9, Y)), partitioner),
    Case("transform NaN", "contains NaN", lambda m: m.transform(SCORES * np.nan), partitioner),
]  # fmt: skip

# ---- the metric --------------------------------------------------------------------


def precision(y=Y, score=SCORES, **params):
    return lambda: mean_average_precision_at_k(y, score, **params)


METRIC = [
    Case(f"metric: {name}", words, call)
    for name, call, words in [
        ("k=0", precision(k=0), "k=0 must be"),
        ("k=2.5", precision(k=2.5), "k=2.5 must be"),
        ("k=True", precision(k=True), "k=True must be"),
        ("k text", precision(k="all"), "k='all' must be"),
        ("NaN", precision(score=SCORES * np.nan), "contains NaN"),
        ("short", precision(Y[:3]), "inconsistent numbers"),
        ("no rows", precision(Y[:0], SCORES[:0]), r"0 sample\(s\)"),
        ("three axes", precision(score=SCORES[None]), "dim 3"),
        ("labels too few", precision(labels=[0, 1]), "labels|classes"),
        ("labels twice", precision(labels=[0, 1, 1, 2]), "labels|classes"),
        ("other labels", precision(Y + 7, SCORES, labels=[0, 1, 2, 3]), "holds the label 7"),
        ("no labels for columns", precision(np.where(Y == 0, 9, 1)), "other labels than"),
        ("no true label", precision(np.zeros((80, 4), int)), "No sample has a true label"),
        ("indicator of 2s", precision(2 * np.eye(4, dtype=int)[Y]), "indicator"),
        ("one axis of four classes", precision(score=SCORES[:, 0]), "not two"),
        ("one axis beyond 1", precision(Y % 2, 3 * SCORES[:, 0]), "must hold probabilities"),
        ("one axis of an indicator", precision(np.eye(4, dtype=int)[Y], SCORES[:, 0]), "indicator of several"),
        ("weights negative", precision(sample_weight=-np.ones(80)), "[Nn]egative"),
        ("weights short", precision(sample_weight=np.ones(3)), "sample_weight.shape"),
        ("weights of words", precision(sample_weight="balanced"), "sample_weight|could not convert"),
    ]
]  # fmt: skip

# ---- displays ----------------------------------------------------------------------

DISPLAYS = [
    Case("Partition: unfitted", "not fitted yet", lambda: ConfusionPartitionDisplay.from_estimator(ConfusionSpectralPartitioner())),
    Case("Partition: no estimator", "int has counted no confusions", lambda: ConfusionPartitionDisplay.from_estimator(3)),
    Case("Partition: classifier alone", "X", lambda: ConfusionPartitionDisplay.from_estimator(_base())),
    Case("Partition: axes", "ax must hold", lambda m: ConfusionPartitionDisplay.from_estimator(m, ax=3), partitioner),
    Case("Partition: names", "display_labels", lambda m: ConfusionPartitionDisplay.from_estimator(m, display_labels=["a"]), partitioner),
    Case("Partition: short y", "inconsistent numbers", lambda: ConfusionPartitionDisplay.from_predictions(Y[:3], SCORES)),
    Case("Partition: NaN", "contains NaN", lambda: ConfusionPartitionDisplay.from_predictions(Y, SCORES * np.nan)),
    Case("Partition: no partitioner", "Cannot clone object", lambda: ConfusionPartitionDisplay.from_predictions(Y, SCORES, partitioner=3), error=TypeError),
    Case("GroupTable: unfitted", "not fitted yet", lambda: GroupTable.from_estimator(ConfusionSpectralPartitioner())),
    Case("GroupTable: no estimator", "estimator", lambda: GroupTable.from_estimator(3), error=TypeError),
    Case("GroupTable: names", "display_labels", lambda m: GroupTable.from_estimator(m, display_labels=["a"]), partitioner),
    Case("GroupTable: max_classes", "max_classes=0", lambda m: GroupTable.from_estimator(m, max_classes=0), partitioner),
    Case("GroupTable: max_classes True", "max_classes=True", lambda m: GroupTable.from_estimator(m, max_classes=True), partitioner),
    Case("GroupTable: inside", "inside", lambda: GroupTable([["a"], ["b"]], inside=[0.5])),
    Case("SelfInformedDisplay: unfitted", "not fitted yet", lambda: SelfInformedDisplay.from_estimator(classifier())),
    Case("SelfInformedDisplay: plain", "SelfInformedClassifier", lambda: SelfInformedDisplay.from_estimator(_base()), error=TypeError),
    Case("SelfInformedDisplay: no estimator", "SelfInformedClassifier", lambda: SelfInformedDisplay.from_estimator(3), error=TypeError),
    Case("SelfInformedDisplay: axes", "ax must hold", lambda m: SelfInformedDisplay.from_estimator(m, ax=3), fitted),
    Case("SelfInformedDisplay: names", "display_labels", lambda m: SelfInformedDisplay.from_estimator(m, display_labels=["a"]), fitted),
]  # fmt: skip


@every(CLASSIFIERS)
def test_classifiers(case):
    check(case)


@every(PARTITIONS)
def test_partitions(case):
    check(case)


@every(METRIC)
def test_metric(case):
    check(case)


@every(DISPLAYS)
def test_displays(case):
    check(case)


def test_a_network_that_ends_in_a_view_and_lists_its_classifier():
    model = classifier(StructuredClassifier(Reshaped(), max_epochs=1), n_clusters=2)
    assert model.fit(X, Y).predict(X).shape == (80,)


def test_an_unfitted_skorch_net_learns_words():
    net = NeuralNetClassifier(
        make_mlp(6, 4), criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0
    )
    words = np.array(list("abcd"))[Y]
    assert set(classifier(net, n_clusters=2).fit(X, words).predict(X)) <= set("abcd")


@pytest.mark.parametrize(
    "y",
    [
        np.where(np.arange(80) == 0, 9, Y),
        np.eye(5, dtype=int)[np.where(np.arange(80) == 0, 4, Y)],
        np.eye(4, 5, dtype=int)[Y],
    ],
)
def test_a_class_of_one_sample_and_a_label_of_none(y):
    assert classifier(n_clusters=2).fit(X, y).predict(X).shape == y.shape


def test_more_groups_than_confused_classes_are_fewer():
    far = X + 100 * Y[:, None] * np.eye(6)[Y]
    model = SelfInformedClassifier(n_clusters=4, max_epochs=60, random_state=0)
    assert model.fit(far, Y).n_clusters_ <= 4


def test_a_fitted_network_learns_on_a_fold_without_one_of_its_classes():
    model = classifier(_base(), n_clusters=2).fit(X[Y < 3], Y[Y < 3])
    assert set(model.predict(X)) <= {0, 1, 2, 3}


@pytest.mark.parametrize("scale", [1e300, 1e-170, 1e-300, 1.0])
def test_counts_of_any_scale(scale):
    groups = ConfusionSpectralPartitioner(2, source="precomputed", random_state=0)
    assert groups.fit(scale * CONFUSION).labels_.tolist() == [0, 0, 1, 1]
