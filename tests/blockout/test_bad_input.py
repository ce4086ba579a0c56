"""Bad input gets one clear sentence, before any work is lost: Blockout."""

import functools
import warnings

import numpy as np
import pytest
import torch
from bad_input import Case, check, every, settings
from torch import nn

from sklearn_structreg.blockout import (
    Blockout,
    BlockoutClassifier,
    BlockoutDisplay,
    BlockoutLinear,
    BlockoutRegressor,
    ClassHierarchy,
    ExpectedClustersDisplay,
    NodeEmbeddingDisplay,
    NodeSet,
    ProbabilityHistoryDisplay,
    convert,
    fold,
    harden_network,
)
from sklearn_structreg.core import StructuredClassifier, make_mlp

# Fits of one or two epochs, for other purposes than to learn.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(20, 6))
Y = np.arange(20) % 3
SAMPLE = torch.zeros(2, 6)
P = np.full((3, 4), 0.5)


def classifier(*args, **params):
    return BlockoutClassifier(*args, **({"max_epochs": 1, "random_state": 0} | params))


def fit(model):
    return model.fit(X, Y)


def attach(regularizer):
    regularizer.check_parameters()
    return regularizer.attach(make_mlp(6, 3), SAMPLE)


@functools.cache
def _fitted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return classifier().fit(X, Y)


def fitted():
    return _fitted()


NUMBERS = {
    "n_clusters": [0, -1, 2.5, True, "six", None],
    "assignment": ["firm", 1],
    "init_probability": [0.0, 1.5, np.nan, True, "half"],
    "learn_probabilities": ["yes", 2],
    "gradient": ["exact", None],
    "block_penalty": [-0.1, np.nan, np.inf, True],
    "mask_per": ["row", 1],
    "logit_rate_factor": [-1.0, np.nan, np.inf, True],
    "layers": [3, None],
}
PARAMETERS = [
    *settings(NUMBERS, Blockout, attach),
    *(c._replace(name=f"estimator {c.name}") for c in settings(NUMBERS, BlockoutClassifier, fit)),
    *(
        Case(f"convert {name}={value!r}", f"'{name}' parameter of convert must be", functools.partial(convert, make_mlp(6, 3), SAMPLE, **{name: value}))
        for name, value in [("n_clusters", 0), ("n_clusters", True), ("init_probability", 0), ("assignment", "firm"), ("mask_per", "row")]
    ),
    *(
        Case(f"layers={value!r}", words, fit, classifier(layers=value))
        for value, words in [
            ("head", "'layers' parameter of BlockoutClassifier must be"),
            (["head"], "no layer named 'head'"),
            (["1"], "ReLU|Linear"),
            ([], "layers"),
            ([3], "layers|no layer named 3"),
            (["0", "0"], "layers|twice"),
            (["2", "0"], "layers|order|follow"),
        ]
    ),
    Case("regressor n_clusters", "'n_clusters' parameter of BlockoutRegressor", fit, BlockoutRegressor(n_clusters=0)),
    Case("no linear layer", "Linear", lambda m: m.fit(X.reshape(20, 1, 6), Y), classifier(nn.Sequential(nn.Conv1d(1, 3, 6), nn.Flatten()))),
    Case("memory", "'n_clusters' parameter", fit, classifier(n_clusters=1e9)),
]  # fmt: skip


def node_set(**params):
    return NodeSet(**({"n_nodes": 4} | params))


LAYERS = [
    *(
        Case(f"NodeSet({params})", words, functools.partial(node_set, **params))
        for params, words in [
            ({"n_nodes": 0}, "n_nodes=0"),
            ({"n_nodes": -1}, "n_nodes=-1"),
            ({"n_nodes": 2.5}, "n_nodes=2.5"),
            ({"n_nodes": True}, "n_nodes=True"),
            ({"n_nodes": "4"}, "n_nodes='4'"),
            ({"n_clusters": 0}, "n_clusters=0"),
            ({"n_clusters": 2.5}, "n_clusters=2.5"),
            ({"n_clusters": None}, "n_clusters=None"),
            ({"assignment": "firm"}, "assignment='firm'"),
            ({"init_probability": 0}, "init_probability=0"),
            ({"init_probability": 1.5}, "init_probability=1.5"),
            ({"init_probability": float("nan")}, "init_probability=nan"),
            ({"init_probability": "half"}, "init_probability='half'"),
        ]
    ),
    Case("BlockoutLinear: clusters differ", "same n_clusters", lambda: BlockoutLinear(NodeSet(3, 2), NodeSet(3, 4))),
    Case("BlockoutLinear: mask_per", "mask_per='row'", lambda: BlockoutLinear(NodeSet(3), NodeSet(3), mask_per="row")),
    Case("BlockoutLinear: numbers", "inputs=3 must be a NodeSet", lambda: BlockoutLinear(3, 4), error=TypeError),
    Case("convert: no module", "module=.*must be a torch.nn.Module", lambda: convert(print, SAMPLE), error=TypeError),
    Case("convert: estimator", "module=.*must be a torch.nn.Module", lambda: convert(classifier(), SAMPLE), error=TypeError),
    Case("convert: other sample", "does not take samples", lambda: convert(make_mlp(6, 3), torch.zeros(2, 5))),
    Case("convert: array", "sample.*tensor|does not take samples", lambda: convert(make_mlp(6, 3), X)),
    Case("convert: no linear layer", "Linear", lambda: convert(nn.ReLU(), SAMPLE)),
    Case("convert: compiled", "does not take samples", lambda: convert(torch.compile(make_mlp(6, 3), backend="eager"), torch.zeros(2, 5))),
    Case("fold: no module", "module=.*must be a torch.nn.Module", lambda: fold(print), error=TypeError),
    Case("fold: estimator", "module=.*must be a torch.nn.Module", fold, fitted, TypeError),
    *(
        Case(f"harden_network: {name}", words, functools.partial(harden_network, net, names, sets, threshold), error=error)
        for name, net, names, sets, threshold, words, error in [
            ("no module", print, ["0"], [P, P], 0.5, "must be a torch.nn.Module", TypeError),
            ("no such layer", make_mlp(4, 3), ["head"], [P, P], 0.5, "no layer named 'head'", ValueError),
            ("no layers", make_mlp(4, 3), [], [P], 0.5, "names|layer", ValueError),
            ("fewer sets", make_mlp(4, 3), ["0", "2"], [P, P], 0.5, "give C_0 to C_m", ValueError),
            ("other sizes", make_mlp(4, 3), ["0", "2"], [P, P, P], 0.5, "probabilities|nodes", ValueError),
            ("threshold", make_mlp(4, 3, (4,)), ["0", "2"], [P, P, P], 1.5, "threshold=1.5", ValueError),
            ("threshold of text", make_mlp(4, 3, (4,)), ["0", "2"], [P, P, P], "half", "threshold='half'", ValueError),
            ("NaN", make_mlp(3, 3, ()), ["0"], [P * np.nan, P], 0.5, "probabilities|between 0 and 1", ValueError),
            ("beyond 1", make_mlp(3, 3, ()), ["0"], [3 * P, P], 0.5, "probabilities|between 0 and 1", ValueError),
            ("words", make_mlp(3, 3, ()), ["0"], [P.astype(str), np.char.add(P.astype(str), "a")], 0.5, "are no numbers", ValueError),
            ("ragged", make_mlp(3, 3, ()), ["0"], [[[0.5], [0.5, 0.5]], P], 0.5, "probabilities|inhomog", ValueError),
        ]
    ),
]  # fmt: skip

STRUCTURE = [
    *(
        Case(f"ClassHierarchy: {name}", words, functools.partial(ClassHierarchy.of, p, **params))
        for name, p, params, words in [
            ("one class", P[:1], {}, "class"),
            ("one axis", P[0], {}, "probabilities|shape"),
            ("NaN", P * np.nan, {}, "between 0 and 1|probabilities|finite"),
            ("beyond 1", 3 * P, {}, "between 0 and 1|probabilities"),
            ("words", [["a"]], {}, "are no numbers"),
            ("None", None, {}, "probabilities"),
            ("names", P, {"classes": ["a"]}, "class"),
            ("threshold", P, {"threshold": 0}, "threshold=0"),
            ("threshold NaN", P, {"threshold": np.nan}, "threshold=nan"),
            ("distance", P, {"distance": "far"}, "distance='far'"),
            ("method", P, {"method": "best"}, "method='best'"),
        ]
    ),
    *(
        Case(f"hierarchy.{method}({n!r})", f"n_groups={n!r}", lambda method=method, n=n: getattr(ClassHierarchy.of(P), method)(n))
        for method in ("labels", "groups")
        for n in (0, 4, 2.5, True, "two")
    ),
    Case("class_hierarchy: unfitted", "not fitted yet", lambda m: m.class_hierarchy(), classifier()),
    Case("class_hierarchy: names", "class", lambda m: m.class_hierarchy(["a"]), fitted),
    Case("class_hierarchy: threshold", "threshold=2", lambda m: m.class_hierarchy(threshold=2), fitted),
    Case("class_hierarchy: distance", "distance='far'", lambda m: m.class_hierarchy(distance="far"), fitted),
    Case("harden: unfitted", "not fitted yet", lambda m: m.harden(), classifier()),
    Case("harden: threshold", "threshold=0", lambda m: m.harden(threshold=0), fitted),
    Case("harden: threshold True", "threshold=True", lambda m: m.harden(threshold=True), fitted),
    Case("harden: X alone", "y", lambda m: m.harden(X), fitted),
    Case("harden: other X", "X has 5 features", lambda m: m.harden(X[:, :5], Y), fitted),
    Case("diagnose: unfitted", "not fitted yet", lambda m: m.diagnose(), classifier()),
]  # fmt: skip

PICTURES = [BlockoutDisplay, ExpectedClustersDisplay, NodeEmbeddingDisplay, ProbabilityHistoryDisplay]  # fmt: skip


def draw(kind, make, **params):
    return kind.from_estimator(make(), **params)


DISPLAYS = [
    *(
        Case(f"{kind.__name__}: {name}", words, functools.partial(draw, kind, make, **params), error=error)
        for kind in PICTURES
        for name, make, params, words, error in [
            ("unfitted", classifier, {}, "not fitted yet", ValueError),
            ("plain", lambda: StructuredClassifier(), {}, "BlockoutClassifier", TypeError),
            ("no estimator", lambda: 3, {}, "BlockoutClassifier", TypeError),
            ("axes", fitted, {"ax": 3}, "ax must hold", ValueError),
        ]
    ),
    *(
        Case(f"{kind.__name__}: names", r"(class_names|classes) has shape", lambda kind=kind: kind.from_estimator(fitted(), class_names=["a"]))
        for kind in PICTURES[:3]
    ),
    Case("BlockoutDisplay: threshold", "threshold=2", lambda: BlockoutDisplay.from_estimator(fitted(), threshold=2)),
    Case("BlockoutDisplay: max_groups", "max_groups=0", lambda: BlockoutDisplay.from_estimator(fitted(), max_groups=0)),
    Case("BlockoutDisplay: max_groups True", "max_groups=True", lambda: BlockoutDisplay.from_estimator(fitted(), max_groups=True)),
]  # fmt: skip


@every(PARAMETERS)
def test_parameters(case):
    check(case)


@every(LAYERS)
def test_layers_and_functions(case):
    check(case)


@every(STRUCTURE)
def test_structure(case):
    check(case)


@every(DISPLAYS)
def test_displays(case):
    check(case)
