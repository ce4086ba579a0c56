"""Bad input gets one clear sentence, before any work is lost: CGES."""

import functools
import warnings

import numpy as np
import pytest
import torch
from bad_input import Case, check, every, settings
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_structreg.cges import (
    CGES,
    CGESClassifier,
    CGESClassifierCV,
    CGESRegressor,
    CGESRegressorCV,
    IterativePruning,
    SparsityDisplay,
    SparsityHistoryDisplay,
    TradeOffDisplay,
    alpha_max,
    alpha_path,
    cges_path,
    prox_cges,
    prox_cges_joint,
    prox_exclusive_lasso,
    prox_group_lasso,
)
from sklearn_structreg.core import StructuredClassifier

# Fits of one or two epochs, for other purposes than to learn.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(20, 6))
Y = np.arange(20) % 3
W = torch.arange(12.0).reshape(3, 4)


def classifier(*args, **params):
    return CGESClassifier(*args, **({"max_epochs": 1, "random_state": 0} | params))


def fit(model):
    return model.fit(X, Y)


def attach(regularizer):
    regularizer.check_parameters()
    return regularizer.attach(nn.Linear(6, 3), torch.zeros(2, 6))


@functools.cache
def fitted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return classifier().fit(X, Y)


@functools.cache
def path():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cges_path(classifier(), X, Y, X, Y, alphas=[0.0, 0.1])


# ---- proximal operators ------------------------------------------------------------

OPERATORS = [
    ("prox_group_lasso", lambda w, s, dim, **p: prox_group_lasso(w, s, dim, **p)),
    (
        "prox_exclusive_lasso",
        lambda w, s, dim, **p: prox_exclusive_lasso(w, s, dim, **p),
    ),
    ("prox_cges", lambda w, s, dim, **p: prox_cges(w, s, s, dim, **p)),
    ("prox_cges_joint", lambda w, s, dim: prox_cges_joint(w, s, s, dim)),
]
PROX = [
    Case(f"{name}: {what}", words, functools.partial(prox, *args), error=error)
    for name, prox in OPERATORS
    for what, args, words, error in [
        ("array", (W.numpy(), 0.1, 0), "floating-point tensor; got ndarray", TypeError),
        ("integers", (W.long(), 0.1, 0), "floating-point tensor; got torch.int64", TypeError),
        ("complex", (W + 0j, 0.1, 0), "floating-point tensor", TypeError),
        ("negative", (W, -0.1, 0), "at least 0; got -0.1", ValueError),
        ("NaN", (W, np.nan, 0), "finite and at least 0", ValueError),
        ("infinity", (W, np.inf, 0), "finite and at least 0", ValueError),
        ("word", (W, "strong", 0), "must be a number or a tensor", TypeError),
        ("None", (W, None, 0), "must be a number or a tensor", TypeError),
        ("list", (W, [0.1, 0.2], 0), "must be a number or a tensor", TypeError),
        ("complex strength", (W, 1j, 0), "must be a number or a tensor", TypeError),
        ("tensor of another shape", (W, torch.ones(5), 0), "does not fit weights", ValueError),
        ("tensor with NaN", (W, torch.tensor(float("nan")), 0), "finite and at least 0", ValueError),
        ("empty tensor", (W, torch.ones(0), 0), "empty tensor", ValueError),
        ("no dim", (W, 0.1, ()), "dim must name at least one", ValueError),
        ("dim out of range", (W, 0.1, 2), "dim=2", ValueError),
        ("dim of text", (W, 0.1, "rows"), "dim='rows'", ValueError),
        ("dim twice", (W, 0.1, (0, 0)), r"dim=\(0, 0\)", ValueError),
        ("dim None", (W, 0.1, None), "dim=None", ValueError),
        ("dim float", (W, 0.1, 0.5), "dim=0.5", ValueError),
        ("dim True", (W, 0.1, True), "dim=True", ValueError),
        ("numbers of no dimension", (torch.tensor(1.0), 0.1, 0), "dim=0", ValueError),
        ("sparse", (W.to_sparse(), 0.1, 0), "dense", TypeError),
        ("meta", (W.to("meta"), 0.1, 0), "meta", TypeError),
    ]
]  # fmt: skip
OUT = [
    Case(f"{name} out: {what}", words, functools.partial(prox, W, 0.1, dim, out=out), error=error)
    for name, prox in OPERATORS[:3]
    for dim in (0, 1)
    for what, out, words, error in [
        (f"integers, dim {dim}", torch.zeros(3, 4, dtype=torch.int64), "out", TypeError),
        (f"another shape, dim {dim}", torch.zeros(4, 3), r"out.*shape \(4, 3\)", ValueError),
        (f"an array, dim {dim}", np.zeros((3, 4)), "out", TypeError),
    ]
] + [
    Case(f"{name} out: strength 0, {what}", words, functools.partial(prox, W, 0.0, 0, out=out), error=error)
    for name, prox in OPERATORS[:3]
    for what, out, words, error in [
        ("integers", torch.zeros(3, 4, dtype=torch.int64), "out", TypeError),
        ("another shape", torch.zeros(1), "out.*shape", ValueError),
    ]
]  # fmt: skip


@every(PROX)
def test_proximal_operators(case):
    check(case)


@every(OUT)
def test_destinations(case):
    check(case)


# ---- parameters --------------------------------------------------------------------

NUMBERS = {
    "alpha": [-1.0, np.nan, np.inf, "0.1", True, None],
    "exclusivity": [-0.1, 1.1, np.nan, True, "much"],
    "penalty": ["ridge", 1, None],
    "groups": ["rows", 0],
    "prox": ["fast", True],
    "layer_scale": ["big", 3, True],
}
PRUNING = {
    "target_density": [0.0, -0.1, 1.5, True, np.nan, "half"],
    "pruning_rounds": [0, 2.5, True],
    "pruning_start": [1.0, -0.1, True, np.nan],
}
PARAMETERS = [
    *settings(NUMBERS, CGES, attach),
    *settings(PRUNING, IterativePruning, attach),
    *(
        case._replace(name=f"estimator {case.name}")
        for case in settings(NUMBERS | PRUNING, CGESClassifier, fit)
    ),
    *(
        Case(f"layer_scale: {name}", words, fit, classifier(layer_scale=value))
        for name, value, words in [
            ("too few", [1.0], "layer_scale has 1 entries"),
            ("too many", [1.0, 1.0, 1.0], "layer_scale has 3 entries"),
            ("infinite", [1, (1, np.inf)], "layer_scale holds"),
            ("NaN", [np.nan, 1], "layer_scale holds"),
            ("words", ["much", "little"], "layer_scale holds"),
            ("negative", [1, -1], "layer_scale holds"),
            ("triples", [(1, 2, 3), 1], "layer_scale holds"),
            ("None", [None, 1], "layer_scale holds"),
            ("array of two axes", np.ones((3, 2)), "layer_scale has 3 entries"),
        ]
    ),
    Case("density that leaves nothing", "would keep 1 of", fit, classifier(target_density=1e-3)),
    Case("regressor alpha", "'alpha' parameter of CGESRegressor", fit, CGESRegressor(alpha=-1)),
]  # fmt: skip


@every(PARAMETERS)
def test_parameters(case):
    check(case)


# ---- strengths and paths -----------------------------------------------------------

LINEAR = CGESClassifier(hidden_layer_sizes=(), penalty="group")
PIPE = make_pipeline(StandardScaler(), CGESClassifier())


def with_nan(x):
    x = x.copy()
    x[0, 0] = np.nan
    return x


STRENGTHS = [
    *(
        Case(f"{f.__name__}: {name}", words, functools.partial(f, *args), error=error)
        for f in (alpha_max, alpha_path)
        for name, args, words, error in [
            ("pipeline", (PIPE, X, Y), "CGESClassifier or a CGESRegressor", TypeError),
            ("class", (CGESClassifier, X, Y), "CGESClassifier or a CGESRegressor", TypeError),
            ("None", (None, X, Y), "CGESClassifier or a CGESRegressor", TypeError),
            ("plain", (StructuredClassifier(), X, Y), "CGESClassifier or a CGESRegressor", TypeError),
            ("NaN", (LINEAR, with_nan(X), Y), "Input X contains NaN", ValueError),
            ("short y", (LINEAR, X, Y[:3]), "inconsistent numbers", ValueError),
            ("continuous y", (LINEAR, X, X[:, 0]), "Unknown label type", ValueError),
            ("bad parameter", (CGESClassifier(penalty="ridge"), X, Y), "'penalty' parameter", ValueError),
            ("bad width", (CGESClassifier(hidden_layer_sizes=(0,)), X, Y), "positive integers", ValueError),
            ("weights of zero", (LINEAR, X, Y, np.zeros(20)), "at least one (positive|non-zero)", ValueError),
            ("no Sequential", (CGESClassifier(nn.Bilinear(6, 6, 3)), X, Y), "does not take samples", ValueError),
        ]
    ),
    *(
        Case(f"alpha_path {params}", words, functools.partial(alpha_path, LINEAR, X, Y, **params))
        for params, words in [
            ({"n_alphas": 0}, "n_alphas=0 must be an integer"),
            ({"n_alphas": 2.5}, "n_alphas=2.5 must be"),
            ({"n_alphas": True}, "n_alphas=True must be"),
            ({"n_alphas": "ten"}, "n_alphas='ten' must be"),
            ({"eps": 0}, "eps=0"),
            ({"eps": 1.0}, "eps=1.0"),
            ({"eps": np.nan}, "eps=nan"),
            ({"eps": "small"}, "eps='small'"),
        ]
    ),
    Case("alpha_path: no largest", "No strength of penalty='l2'", lambda: alpha_path(CGESClassifier(penalty="l2"), X, Y)),
    Case("alpha_path: one class", "Constants predict y", lambda: alpha_path(LINEAR, X, 0 * Y)),
    *(
        Case(f"cges_path: {name}", words, functools.partial(cges_path, model, X, Y, x, y, alphas=alphas, **more), error=error)
        for name, model, x, y, alphas, more, words, error in [
            ("pipeline", PIPE, X, Y, [0.1], {}, "CGESClassifier or a CGESRegressor", TypeError),
            ("no strength", LINEAR, X, Y, [], {}, "alphas=", ValueError),
            ("negative", LINEAR, X, Y, [-1.0], {}, "alphas=", ValueError),
            ("infinite", LINEAR, X, Y, [np.inf], {}, "alphas=", ValueError),
            ("NaN", LINEAR, X, Y, [np.nan], {}, "alphas=", ValueError),
            ("words", LINEAR, X, Y, ["strong"], {}, "alphas=", ValueError),
            ("None", LINEAR, X, Y, None, {}, "alphas=", ValueError),
            ("ragged", LINEAR, X, Y, [[1], [1, 2]], {}, "alphas=", ValueError),
            ("complex", LINEAR, X, Y, [1j], {}, "alphas=", ValueError),
            ("order", LINEAR, X, Y, [0.1], {"order": "random"}, "order='random' must be", ValueError),
            ("test samples", classifier(), X[:, :5], Y, [0.1], {}, "X_test.*5 features|X has 5 features", ValueError),
            ("test labels", classifier(), X, Y[:5], [0.1], {}, "inconsistent", ValueError),
            ("NaN in test samples", classifier(), with_nan(X), Y, [0.1], {}, "contains NaN", ValueError),
        ]
    ),
]  # fmt: skip


@every(STRENGTHS)
def test_strengths_and_paths(case):
    check(case)


# ---- cross-validation --------------------------------------------------------------


def searched(**params):
    small = {"alphas": [0.1], "cv": 2, "max_epochs": 1, "random_state": 0}
    return CGESClassifierCV(**small | params)


VALIDATED = [
    *settings(
        {
            "alphas": [0, -1, 2.5, True, "many", None],
            "cv": ["five", 0.5, 1],
            "scoring": ["speed", 1],
            "selection": ["first", None],
            "final": ["all", None, True],
            "n_jobs": [1.5, "all"],
        },
        searched,
        fit,
    ),
    *(
        Case(f"{name} {value!r:.20}", words, fit, searched(**{name: value}))
        for name, value, words in [
            ("alphas", [], "must hold one strength or more"),
            ("alphas", [-1.0], "finite and at least 0"),
            ("alphas", [np.nan], "finite and at least 0"),
            ("alphas", ["a"], "must hold numbers"),
            ("cv", 21, "n_splits=21"),
            ("cv", [], "cv=.* has no fold"),
            ("cv", [([0], [1, 2])], "fold of 1 rows to train on and 2 for the score"),
            ("cv", [([0, 1], [])], "fold of 2 rows to train on and 0"),
            ("cv", [([0, 1], [99])], "fold of 2 rows to train on and 0"),
            ("cv", [(0, 1)], "cv="),
            ("checkpoint", "folder", "CGESClassifierCV.*set checkpoint=None"),
            ("target_multiply_adds", 0.5, "target_multiply_adds is a size; set it to None"),
            ("warm_start", True, "CGESClassifierCV.*set warm_start=False"),
        ]
    ),
    Case("strength", "Invalid parameter 'alpha'", lambda m: m.set_params(alpha=1.0), searched),
    Case("regressor", "'selection' parameter of CGESRegressorCV", fit, CGESRegressorCV(selection=1)),
    Case("path of paths", "an entry of estimators_", lambda: cges_path(searched(), X, Y, X, Y, alphas=[1]), error=TypeError),
]  # fmt: skip


@every(VALIDATED)
def test_cross_validation(case):
    check(case)


# ---- displays ----------------------------------------------------------------------

DISPLAYS = [
    Case("SparsityDisplay: unfitted", "not fitted yet", lambda: SparsityDisplay.from_estimator(classifier())),
    Case("SparsityDisplay: plain", "CGESClassifier or a CGESRegressor", lambda: SparsityDisplay.from_estimator(StructuredClassifier()), error=TypeError),
    Case("SparsityDisplay: no such layer", "no layer named 'head'|layers", lambda m: SparsityDisplay.from_estimator(m, layers=["head"]), lambda: fitted()),
    Case("SparsityDisplay: no layers", "layers=", lambda m: SparsityDisplay.from_estimator(m, layers=[]), lambda: fitted()),
    Case("SparsityDisplay: layers of text", "layers=", lambda m: SparsityDisplay.from_estimator(m, layers="0.weight"), lambda: fitted()),
    Case("SparsityDisplay: axes", "ax must hold", lambda m: SparsityDisplay.from_estimator(m, ax=3), lambda: fitted()),
    Case("SparsityDisplay: n_outputs", "n_outputs=0", lambda m: SparsityDisplay.from_estimator(m, n_outputs=0), lambda: fitted()),
    Case("SparsityDisplay: n_inputs", "n_inputs=-1", lambda m: SparsityDisplay.from_estimator(m, n_inputs=-1), lambda: fitted()),
    Case("SparsityDisplay: nothing", "weights", lambda: SparsityDisplay({}).plot()),
    Case("SparsityDisplay: vectors", "weights", lambda: SparsityDisplay({"a": np.ones(3)}).plot()),
    Case("History: unfitted", "not fitted yet", lambda: SparsityHistoryDisplay.from_estimator(classifier())),
    Case("History: plain", "CGESClassifier or a CGESRegressor", lambda: SparsityHistoryDisplay.from_estimator(StructuredClassifier()), error=TypeError),
    Case("History: axes", "ax must hold", lambda m: SparsityHistoryDisplay.from_estimator(m, ax=3), lambda: fitted()),
    Case("History: no history", "history", lambda: SparsityHistoryDisplay.from_history([])),
    Case("History: other history", "no sparsity|history", lambda: SparsityHistoryDisplay.from_history([{"epoch": 1}])),
    Case("TradeOff: no paths", "paths", lambda: TradeOffDisplay.from_paths({}), error=TypeError),
    Case("TradeOff: a path", "paths", lambda: TradeOffDisplay.from_paths(path()), error=TypeError),
    Case("TradeOff: no path", "paths", lambda: TradeOffDisplay.from_paths({"a": 3}), error=TypeError),
    Case("TradeOff: empty list", "paths", lambda: TradeOffDisplay.from_paths({"a": []}), error=TypeError),
    Case("TradeOff: reference", "reference='b'", lambda: TradeOffDisplay.from_paths({"a": path()}, reference="b")),
    Case("TradeOff: axes", "ax must hold", lambda: TradeOffDisplay.from_paths({"a": path()}, ax=3)),
]  # fmt: skip


@every(DISPLAYS)
def test_displays(case):
    check(case)


def test_momentum_is_in_the_steps_and_not_in_the_strength():
    model = clone(LINEAR).set_params(random_state=0)
    sgd = {"optimizer": torch.optim.SGD}
    others = [{"momentum": 0.0}, sgd, sgd | {"momentum": 0.5}]
    found = [alpha_max(clone(model).set_params(**p), X, Y) for p in [{}, *others]]
    assert found == [found[0]] * 4
