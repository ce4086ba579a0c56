"""Bad input gets one clear sentence, before any work is lost: the core."""

import datetime
import functools
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import Case, check, every, settings
from scipy import sparse
from sklearn.base import clone
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochTimer
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from sklearn_structreg.blockout import Blockout
from sklearn_structreg.cges import CGES
from sklearn_structreg.core import (
    RegularizerCallback,
    StructuredClassifier,
    StructuredRegressor,
    count_multiply_adds,
    insert_layer,
    make_convnet,
    make_mlp,
    remove_layers,
)
from sklearn_structreg.core.losses import WeightedLoss
from sklearn_structreg.core.task import Task
from sklearn_structreg.core.trial import try_training

# Fits of one or two epochs, for other purposes than to learn.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(20, 6))
Y = np.arange(20) % 3
IMAGES = X.reshape(20, 1, 2, 3)


def classifier(*args, **params):
    return StructuredClassifier(
        *args, **({"max_epochs": 2, "random_state": 0} | params)
    )


def regressor(*args, **params):
    return StructuredRegressor(*args, **({"max_epochs": 2, "random_state": 0} | params))


@functools.cache
def fitted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return classifier().fit(X, Y)


@functools.cache
def fitted_regressor():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return regressor().fit(X, X[:, 0])


def on_classifier():
    return fitted()


def on_regressor():
    return fitted_regressor()


def fit(model):
    return model.fit(X, Y)


def fit_with(x=X, y=Y, *args, **params):
    return lambda model: model.fit(x, y, *args, **params)


def changed(value, row=3, column=2, array=X):
    """Return samples with one entry of another value."""
    array = array.astype(object if isinstance(value, str | datetime.date) else float)
    array[row, column] = value
    return array


# ---- samples ---------------------------------------------------------------------

FRAME = pd.DataFrame(X, columns=list("abcdef"))
WITH_NA = FRAME.astype("Float64")
WITH_NA.iloc[2, 1] = pd.NA
TWICE = pd.DataFrame(X, columns=list("aabcde"))

SAMPLES = [
    ("NaN", changed(np.nan), "Input X contains NaN"),
    ("infinity", changed(np.inf), "Input X contains infinity"),
    ("a word", changed("a word"), "could not convert string to float"),
    ("words", X.astype(str).astype(object) + "x", "could not convert string"),
    ("dates", np.full(X.shape, np.datetime64("2020-01-01")), "X holds dates"),
    ("a column of dates", FRAME.assign(b=np.datetime64("2020-01-01")), "X holds dates"),
    ("complex", X.astype(complex), "Complex data not supported"),
    ("no rows", X[:0], r"0 sample\(s\)"),
    ("no columns", X[:, :0], r"0 feature\(s\)"),
    ("one row", X[:1], r"1 sample\(s\).*minimum of 2"),
    ("one dimension", X[:, 0], "Expected 2D array"),
    ("a number", 3.0, "Expected 2D array"),
    ("None", None, "Expected 2D array|None"),
    ("ragged", [[1, 2], [3]] * 10, "inhomogeneous|sequence"),
    ("pandas with NA", WITH_NA, "contains NaN"),
    ("images of 5 axes", X.reshape(20, 1, 1, 1, 2, 3), "No default network fits"),
    ("images without pixels", np.zeros((20, 1, 0, 3)), r"0 feature\(s\)"),
    ("NaN in images", changed(np.nan).reshape(-1, 1, 2, 3), "Input X contains NaN"),
    ("complex tensor", torch.zeros(20, 6, dtype=torch.complex64), "[Cc]omplex"),
    (
        "nested list of tensors",
        [torch.zeros(5), torch.zeros(6)] * 10,
        "inhomog|sequence",
    ),
]
FIT_X = [
    *(
        Case(f"fit X: {name}", words, fit_with(x), classifier())
        for name, x, words in SAMPLES
    ),
    Case("fit X: loader", "pass its dataset", fit_with(DataLoader(torch.zeros(20, 6)), None), classifier(), TypeError),
    Case("fit X: longer than y", "inconsistent numbers of samples", fit_with(X, Y[:-1]), classifier()),
    Case("fit X: meta tensor", "X is a meta tensor", fit_with(torch.zeros(20, 6, device="meta")), classifier(), TypeError),
    Case("fit X: sparse tensor", "X is a sparse tensor", fit_with(torch.eye(20, 6).to_sparse()), classifier(), TypeError),
    Case("fit X: a dict", "not 'dict'", fit_with({"a": 1}), classifier(), TypeError),
    Case("fit X: iterator", "not 'iterator'", fit_with(iter(X)), classifier(), TypeError),
    Case("fit X: objects", "not 'datetime.date'", fit_with(changed(datetime.date(2020, 1, 1))), classifier(), TypeError),
    Case("fit X: huge integers", "too large to convert", fit_with(np.full((20, 2), 10**400, dtype=object)), classifier(), OverflowError),
    Case("fit X: columns of one name", "columns of the same name", fit_with(TWICE), classifier()),
    Case("fit X: unknown names", "feature names|names", fit_with(FRAME.rename(columns={"a": 1})), classifier(), TypeError),
]  # fmt: skip


def predict_with(x, method="predict"):
    return lambda model: getattr(model, method)(x)


PREDICT_X = [
    Case(f"{method} X: {name}", words, predict_with(x, method), on)
    for name, x, words in [
        ("NaN", changed(np.nan), "Input X contains NaN"),
        ("infinity", changed(-np.inf), "Input X contains infinity"),
        ("5 features", X[:, :5], "X has 5 features, but .* expecting 6"),
        ("no rows", X[:0], r"0 sample\(s\)"),
        ("one dimension", X[0], "Expected 2D array"),
        ("complex", X.astype(complex), "Complex data"),
        ("words", changed("a"), "could not convert string"),
        (
            "images of another shape",
            X[:, :4].reshape(-1, 1, 2, 2),
            r"shape \(1, 2, 2\)",
        ),
        ("images of flat rows", IMAGES, r"shape \(1, 2, 3\), but fit saw"),
    ]
    for method, on in [
        ("predict", on_classifier),
        ("predict_proba", on_classifier),
        ("predict", on_regressor),
    ][: 3 if name == "NaN" else 1]
]
for _n, _case in enumerate(PREDICT_X):
    if _case.on is on_regressor:
        PREDICT_X[_n] = _case._replace(name=f"regressor {_case.name}")
PREDICT_X += [
    Case("predict X: far larger values", "values far larger", predict_with(1e300 * X), on_classifier),
    Case("predict before fit", "not fitted yet", predict_with(X), classifier()),
    Case("compact before fit", "not fitted yet", lambda m: m.compact(), classifier()),
    Case("size_report before fit", "not fitted yet", lambda m: m.size_report(X), classifier()),
    Case("simplified_module before fit", "not fitted yet", lambda m: m.simplified_module(), classifier()),
    Case("score with fewer labels", "inconsistent numbers of samples", lambda m: m.score(X, Y[:5]), on_classifier),
    Case("compact unsupported=", "unsupported='skip' must be", lambda m: m.compact(unsupported="skip"), on_classifier),
    Case("size_report batch_size", "batch_size=0 must be a positive", lambda m: m.size_report(X, batch_size=0), on_classifier),
    Case("size_report batch_size True", "batch_size=True must be a positive", lambda m: m.size_report(X, batch_size=True), on_classifier),
    Case("size_report n_repeats", "n_repeats=-1 must be", lambda m: m.size_report(X, n_repeats=-1), on_classifier),
    Case("size_report n_repeats True", "n_repeats=True must be", lambda m: m.size_report(X, n_repeats=True), on_classifier),
]  # fmt: skip


@every(FIT_X)
def test_samples(case):
    check(case)


@every(PREDICT_X)
def test_predictions(case):
    check(case)


# ---- targets and weights -----------------------------------------------------------

TWO = np.eye(20, 3, dtype=int)
TARGETS = [
    ("continuous", X[:, 0], "Unknown label type"),
    ("NaN", np.where(Y == 0, np.nan, Y), "y contains NaN"),
    ("infinity", np.where(Y == 0, np.inf, Y), "y contains infinity"),
    ("None", None, "requires y to be passed|y.*None"),
    ("a column of None", [None] * 20, "y|label"),
    ("words and numbers", np.array(["a", 1] * 10, dtype=object), "cannot be sorted"),
    ("bytes", Y.astype("S1"), "labels represented as bytes"),
    ("three axes", np.zeros((20, 2, 2)), "y|dim"),
    ("ragged", [[1], [1, 2]] * 10, "y|inhomogeneous"),
    ("a number", 1, "y|1d|sample"),
    ("complex", Y + 1j, "omplex|label type"),
    ("a constant text", "abc", "y|sample|length"),
    ("indicator of 2s", 2 * TWO, "values other than 0 and 1"),
    ("indicator of words", TWO.astype(str), "values other than 0 and 1"),
    ("indicator of NaN", np.where(TWO, np.nan, 0), "NaN"),
    ("dates with NaT", np.array(["NaT"] * 20, dtype="datetime64[D]"), "y|label|NaT"),
    ("pandas with NA", pd.Series([1, 2, pd.NA, 1] * 5, dtype="Int64"), "contains NaN"),
    ("fewer rows", Y[:4], "inconsistent numbers of samples"),
]
NUMBERS = [
    ("words", np.array(["a", "b"] * 10), "convert string|numeric"),
    ("NaN", changed(np.nan)[:, 2], "y contains NaN"),
    ("infinity", changed(np.inf)[:, 2], "y contains infinity"),
    ("None", None, "requires y to be passed|y.*None"),
    ("three axes", np.zeros((20, 2, 2)), "dim"),
    ("ragged", [[1.0], [1.0, 2.0]] * 10, "inhomogeneous|y"),
    ("complex", X[:, 0] + 1j, "omplex"),
    ("dates", np.array(["2020-01-01"] * 20, dtype="datetime64[D]"), "y holds dates"),
    ("no columns", np.zeros((20, 0)), "y"),
]
ONES = np.ones(20)
FIT_Y = [
    *(Case(f"labels: {n}", words, fit_with(X, y), classifier()) for n, y, words in TARGETS),
    *(Case(f"numbers: {n}", words, fit_with(X, y), regressor()) for n, y, words in NUMBERS),
    *(
        Case(f"sample_weight: {name}", words, fit_with(X, Y, w), classifier())
        for name, w, words in [
            ("zeros", 0 * ONES, "at least one (positive|non-zero)"),
            ("negative", -ONES, "[Nn]egative"),
            ("short", ONES[1:], "sample_weight.shape"),
            ("NaN", np.where(Y == 0, np.nan, 1), "sample_weight contains NaN"),
            ("infinity", np.where(Y == 0, np.inf, 1), "sample_weight contains infinity"),
            ("words", ["a"] * 20, "sample_weight|could not convert"),
            ("a text", "balanced", "sample_weight|could not convert"),
            ("two columns", np.ones((20, 2)), "1D|shape"),
            ("one row left", np.arange(20) == 0, "n_samples=1 with a positive weight"),
            ("complex", 1j * ONES, "[Cc]omplex"),
            ("ragged", [[1], [1, 2]] * 10, "inhomogeneous|sample_weight"),
        ]
    ),
    *(
        Case(f"class_weight: {name}", words, fit, classifier(class_weight=w))
        for name, w, words in [
            ("negative", {0: -1.0, 1: 1.0}, "finite weights of at least 0"),
            ("infinite", {0: np.inf, 1: 1.0}, "finite weights of at least 0"),
            ("NaN", {0: np.nan, 1: 1.0}, "finite weights of at least 0"),
            ("unknown label", {7: 1.0}, r"\[0, 1, 2\], are not in class_weight"),
            ("words", {0: "heavy"}, "class_weight"),
            ("None", {0: None}, "class_weight"),
            ("all zero", {0: 0, 1: 0, 2: 0}, "class_weight|positive"),
            ("a name", "equal", "'class_weight' parameter"),
            ("a list", [1, 2, 3], "'class_weight' parameter"),
            ("overflow with sample_weight", {0: 1e308}, "class_weight|weight"),
        ]
    ),
    Case("numbers: sparse", "Sparse data was passed for y", fit_with(X, sparse.csr_array(X)), regressor(), TypeError),
    Case("sample_weight: sparse", "Sparse data was passed for sample_weight", fit_with(X, Y, sparse.csr_array(ONES[:, None])), classifier(), TypeError),
    Case("class_weight with an indicator", "class_weight is for one label", fit_with(X, TWO), classifier(class_weight="balanced")),
]  # fmt: skip
FIT_Y = [
    case._replace(call=fit_with(X, Y, np.full(20, 1e10)))
    if case.name == "class_weight: overflow with sample_weight"
    else case
    for case in FIT_Y
]


@every(FIT_Y)
def test_targets_and_weights(case):
    check(case)


# ---- parameters --------------------------------------------------------------------

PARAMETERS = [
    *settings(
        {
            "max_epochs": [0, -1, 2.5, True, "many", None, np.nan],
            "batch_size": [0, -2, 2.5, True, "all"],
            "n_iter_no_change": [0, True, 1.5],
            "learning_rate": [0.0, -1.0, np.nan, np.inf, True, "fast"],
            "momentum": [1.0, -0.1, np.nan, True],
            "weight_decay": [-1.0, np.nan, np.inf, True],
            "validation_fraction": [0.0, 1.0, True, np.nan],
            "early_stopping": ["yes", 1],
            "warm_start": ["yes"],
            "standardize": ["yes", 2],
            "optimizer": ["newton", torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1), None],
            "dtype": ["int8", torch.float32],
            "lr_schedule": ["linear", 3],
            "criterion": ["hinge", 3],
            "callbacks": ["print", 3],
            "module": ["mlp", 3, None],
            "module_params": [[1], "a"],
            "hidden_layer_sizes": [0, 2.5, True, None],
            "image_shape": [6, "flat"],
            "regularizers": ["cges", 3],
            "random_state": [-1, "seed", 1.5],
            "verbose": ["loud", -1],
            "device": [0, None],
        },
        StructuredClassifier,
        fit,
    ),
    *(
        Case(f"hidden_layer_sizes={sizes}", words, fit, classifier(hidden_layer_sizes=sizes))
        for sizes, words in [
            ((10, -3), "positive integers"),
            ((0,), "positive integers"),
            ((2.5,), "positive integers"),
            ((True,), "positive integers"),
            (("a",), "positive integers"),
            (((3, 4),), "positive integers"),
            ((np.nan,), "positive integers"),
        ]
    ),
    *(
        Case(f"image_shape={shape}", words, fit, classifier(image_shape=shape))
        for shape, words in [
            ((2, 2, 2), r"stands for 8 features.*but X has 6"),
            ((-1, -6), "positive integers"),
            ((-1, 2, 3), "positive integers"),
            ((0, 6), "positive integers"),
            ((1.5, 4), "positive integers"),
            ((1, 2, 3.0), "positive integers"),
            ((True, 6), "positive integers"),
            (("1", "6"), "positive integers"),
            ((), "positive integers"),
            (((1, 2), 3), "positive integers"),
            ((1, 1, 1, 2, 3), "No default network fits"),
        ]
    ),
    Case("image_shape beside images", r"shape \(1, 2, 3\), but image_shape is", fit_with(IMAGES), classifier(image_shape=(1, 3, 2))),
    Case("device unknown", "not a device that torch knows", fit, classifier(device="abacus")),
    Case("device number", "device='cuda:99'", fit, classifier(device="cuda:99")),
    Case("device meta", "device='meta'", fit, classifier(device="meta")),
    Case("optimizer is no class", "no torch optimizer class", fit, classifier(optimizer=print)),
    Case("optimizer of another package", "no torch optimizer class", fit, classifier(optimizer=nn.Linear)),
    Case("optimizer base class", "no rate for Optimizer", fit, classifier(optimizer=torch.optim.Optimizer)),
    Case("optimizer for sparse gradients", "optimizer=.*SparseAdam.*sparse gradients", fit, classifier(optimizer=torch.optim.SparseAdam)),
    Case("lr_schedule of nothing", "lr_schedule returned None", fit, classifier(lr_schedule=lambda optimizer, n: None)),
    Case("lr_schedule of no arguments", "lr_schedule", fit, classifier(lr_schedule=lambda: None)),
    Case("lr_schedule class of other arguments", "lr_schedule", fit, classifier(lr_schedule=torch.optim.lr_scheduler.LambdaLR)),
    Case("callback of text", "'x', which is no skorch callback", fit, classifier(callbacks=["x"])),
    Case("callback pair of text", "no skorch callback", fit, classifier(callbacks=[("a", "b")])),
    Case("callback pair of three", "no skorch callback", fit, classifier(callbacks=[("a", "b", "c")])),
    Case("callback empty pair", "no skorch callback", fit, classifier(callbacks=[()])),
    Case("callbacks of one name", "duplicate user-set callback name 'a'", fit, classifier(callbacks=2 * [("a", EpochTimer())])),
    Case("module_params beside auto", "needs a module class or factory", fit, classifier(module_params={"a": 1})),
    Case("module_params beside an instance", "needs a module class or factory", fit, classifier(nn.Linear(6, 3), module_params={"a": 1})),
    Case("early stopping with nothing left", "leaves none to train on", lambda m: m.fit(X[:2], Y[:2]), classifier(early_stopping=True, validation_fraction=0.9)),
    Case("no such parameter", "Invalid parameter 'alpha'", lambda m: m.set_params(alpha=1), classifier()),
    Case("no such regularizer", "but no 'cges'", lambda m: m.set_params(regularizers__cges__alpha=1), classifier()),
    Case("no such parameter of a regularizer", "Invalid parameter 'beta'", lambda m: m.set_params(regularizers__cges__beta=1), classifier(regularizers=[CGES()])),
    Case("a regularizer without a name", "regularizers", lambda m: m.set_params(regularizers__=1), classifier(regularizers=[CGES()])),
    Case("LBFGS beside groups", "LBFGS takes all parameters alike", fit, classifier(optimizer=torch.optim.LBFGS, regularizers=[Blockout(2)], batch_size=None)),
    *(
        Case(f"regularizers: {name}", words, fit, classifier(regularizers=value))
        for name, value, words in [
            ("class", [CGES], "which is no regularizer; give instances"),
            ("pair of texts", [("a", "b")], "which is no regularizer"),
            ("pair of three", [("a", CGES(), 1)], "which is no regularizer"),
            ("None", [None], "which is no regularizer"),
            ("a layer", [nn.Dropout()], "which is no regularizer"),
            ("an estimator", [StructuredClassifier()], "which is no regularizer"),
            ("number as name", [(1, CGES())], "which is no regularizer"),
            ("name twice", [("a", CGES()), ("a", Blockout(2))], "'a' more than once"),
            ("double underscore", [("a__b", CGES())], "with a double underscore"),
            ("out of range", [CGES(alpha=-1.0)], "'alpha' parameter of CGES must be"),
            ("bool", [CGES(alpha=True)], "'alpha' parameter of CGES must be"),
        ]
    ),
]  # fmt: skip


@every(PARAMETERS)
def test_parameters(case):
    check(case)


# ---- modules -----------------------------------------------------------------------


class InTraining(nn.Module):
    """Right in evaluation, wrong in training."""

    def __init__(self, change):
        super().__init__()
        self.layer, self.change = nn.Linear(6, 3), change

    def forward(self, x):
        logits = self.layer(x)
        return self.change(logits) if self.training else logits


class Always(InTraining):
    def forward(self, x):
        return self.change(self.layer(x))


class Needs(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x, mask):
        return self.layer(x) * mask


class Raising(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.layer, self.error = nn.Linear(6, 3), error

    def forward(self, x):
        raise self.error


def nan_weights():
    layer = nn.Linear(6, 3)
    nn.init.constant_(layer.weight, float("nan"))
    return layer


WRONG = [
    ("tuple", lambda logits: (logits, logits), "tuple"),
    ("width", lambda logits: logits[:, :2], r"shape \(2, 2\)"),
    ("detached", lambda logits: logits.detach(), "gradient"),
    ("numbers", lambda logits: logits.detach().numpy(), "no tensor"),
    ("None", lambda logits: None, "no tensor"),
    ("dict", lambda logits: {"logits": logits}, "no tensor"),
    ("rows", lambda logits: logits.mean(0, keepdim=True), r"shape \(1, 3\)"),
    ("integers", lambda logits: logits.argmax(1, keepdim=True).expand(-1, 3), "float"),
    ("complex", lambda logits: logits + 0j, "float"),
    ("sparse", lambda logits: logits.to_sparse(), "sparse|strided|dense"),
    ("meta", lambda logits: logits.to("meta"), "meta"),
    ("NaN", lambda logits: logits * float("nan"), "not finite before"),
    ("infinity", lambda logits: logits / 0, "not finite before"),
]
MODULES = [
    *(Case(f"in training: {n}", words, fit, classifier(InTraining(f))) for n, f, words in WRONG),
    *(Case(f"always: {n}", words, fit, classifier(Always(f))) for n, f, words in WRONG),
    Case("other outputs", r"output of shape \(2, 5\).*shape \(2, 3\)", fit, classifier(nn.Linear(6, 5))),
    Case("other inputs", r"does not take samples of shape \(6,\)", fit, classifier(nn.Linear(4, 3))),
    Case("other inputs, class", r"does not take samples of shape \(6,\)", fit, classifier(lambda s, n: nn.Linear(4, n))),
    Case("convolution of rows", r"does not take samples of shape \(6,\)", fit, classifier(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(12, 3)))),
    Case("no parameter", "no parameter to train", lambda m: m.fit(X[:, :3], Y), classifier(nn.Identity())),
    Case("all frozen", "no parameter to train", fit, classifier(nn.Linear(6, 3).requires_grad_(False))),
    Case("factory of None", "must return a torch.nn.Module", fit, classifier(lambda shape, n: None), TypeError),
    Case("factory of a class", "must return a torch.nn.Module", fit, classifier(lambda shape, n: nn.Linear), TypeError),
    Case("factory of no arguments", "factory|module", fit, classifier(lambda: nn.Linear(6, 3))),
    Case("factory that raises", "module", fit, classifier(lambda shape, n: {}["a"])),
    Case("class with other arguments", "module_params|argument", fit, classifier(Needs)),
    Case("class with unknown module_params", "module_params|argument", fit, classifier(nn.Linear, module_params={"in_features": 6, "out_features": 3, "width": 3})),
    Case("class of no module", "cannot be built", fit, classifier(dict)),
    Case("forward of two arguments", "does not take samples", fit, classifier(Needs, module_params={"width": 3})),
    Case("forward that raises KeyError", "does not take samples", fit, classifier(Raising(KeyError("a")))),
    Case("forward that raises AttributeError", "does not take samples", fit, classifier(Raising(AttributeError("no layer")))),
    Case("forward that raises AssertionError", "does not take samples", fit, classifier(Raising(AssertionError()))),
    Case("forward that raises NotImplementedError", "does not take samples", fit, classifier(nn.Module())),
    Case("forward with a long message", "does not take samples", fit, classifier(Raising(RuntimeError("a word " * 100)))),
    Case("weights of NaN", "not finite before", fit, classifier(nan_weights())),
    Case("regressor weights of NaN", "not finite before", lambda m: m.fit(X, X[:, :3]), regressor(nan_weights())),
    Case("softmax at its end", "Softmax.*logits", fit, classifier(nn.Sequential(nn.Linear(6, 3), nn.Softmax(1)))),
    Case("softmax in a module of its own", "Softmax.*logits", fit, classifier(Always(nn.Softmax(1)))),
    Case("softmax function", "[Ss]oftmax.*logits", fit, classifier(Always(lambda logits: logits.softmax(1)))),
    Case("meta module", "meta", fit, classifier(nn.Linear(6, 3, device="meta"))),
    Case("complex module", "complex", fit, classifier(nn.Linear(6, 3, dtype=torch.complex64))),
    Case("batch norm of a single row", "one row|single row|1 row", lambda m: m.partial_fit(X[:1], Y[:1], classes=[0, 1, 2]), classifier(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)))),
    Case("batch norm with batch_size=1", "one row|single row|1 row", fit, classifier(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), batch_size=1)),
    Case("batch norm with a last batch of a single row", "single row.*change batch_size", lambda m: m.fit(X[:3], Y[:3]), classifier(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), batch_size=2)),
    Case("diverging", r"non-finite in epoch .*lower learning_rate\.$", fit, classifier(learning_rate=1e30)),
    Case("diverging on raw samples", "lower learning_rate, or set standardize=True", fit, classifier(learning_rate=1e30, standardize=False)),
    Case("scripted module of another width", r"does not take samples|shape", fit, classifier(torch.compile(nn.Linear(4, 3), backend="eager"))),
    *(
        Case(f"criterion: {name}", words, fit, classifier(criterion=value))
        for name, value, words in [
            ("None", lambda y_pred, y: None, "criterion.*returns None"),
            ("number", lambda y_pred, y: 3.0, "criterion.*returns 3.0"),
            ("detached", lambda y_pred, y: y_pred.detach().sum(), "criterion.*gradient"),
            ("other rows", lambda y_pred, y: y_pred.new_ones(7), r"criterion.*shape \(7,\)"),
            ("one argument", lambda y_pred: y_pred.sum(), "criterion"),
            ("optimizer class", torch.optim.SGD, "criterion"),
            ("class with arguments", nn.Linear, "criterion"),
            ("wrong targets", nn.BCEWithLogitsLoss, "criterion"),
            ("NaN", lambda y_pred, y: y_pred.sum(1) * float("nan"), "criterion.*not finite"),
            ("integers", lambda y_pred, y: y, "criterion"),
            ("complex", lambda y_pred, y: y_pred.sum(1) + 0j, "criterion"),
            ("NLLLoss of one weight", nn.NLLLoss(weight=torch.ones(2)), "criterion"),
            ("integers as numbers", lambda y_pred, y: nn.functional.huber_loss(y_pred, y[:, None].expand_as(y_pred), reduction="none"), "criterion.*fails: .*dtype"),
            ("NLLLoss of logits", nn.NLLLoss, "NLLLoss.*LogSoftmax"),
        ]
    ),
]  # fmt: skip


@every(MODULES)
def test_modules(case):
    check(case)


# ---- partial_fit and warm starts ---------------------------------------------------


def first(model, classes=(0, 1, 2)):
    return model.partial_fit(X, Y, classes=classes)


@functools.cache
def streaming():
    return first(classifier())


@functools.cache
def warm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return classifier(warm_start=True).fit(X, Y)


@functools.cache
def warm_regressor():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return regressor(warm_start=True).fit(X, X[:, :2])


def on_stream():
    return streaming()


def on_warm():
    return warm()


def on_warm_regressor():
    return warm_regressor()


STREAMS = [
    Case("no classes", "classes must be passed on the first call", lambda m: m.partial_fit(X, Y), classifier()),
    Case("classes of nothing", "labels .* not among the classes", lambda m: m.partial_fit(X, Y, classes=[]), classifier()),
    Case("classes without a label", r"labels \[2\] that are not among", lambda m: m.partial_fit(X, Y, classes=[0, 1]), classifier()),
    Case("classes of words", "label", lambda m: m.partial_fit(X, Y, classes=["a", "b"]), classifier()),
    Case("classes of two axes", "classes=.*1d array", lambda m: m.partial_fit(X, Y, classes=[[0, 1], [1, 2]]), classifier()),
    Case("classes of NaN", "classes=.*NaN", lambda m: m.partial_fit(X, Y, classes=[0, 1, 2, np.nan]), classifier()),
    Case("classes ragged", "classes|inhomogeneous", lambda m: m.partial_fit(X, Y, classes=[[0], [1, 2]]), classifier()),
    Case("early stopping", "early_stopping=False", first, classifier(early_stopping=True)),
    Case("balanced", "class_weight='balanced' needs all labels", first, classifier(class_weight="balanced")),
    Case("weights beyond float32", "1e[+]308, is beyond the range of float32", lambda m: m.partial_fit(X, Y, None, 1e308 * ONES), on_stream),
    Case("unseen label", r"labels \[7\] that are not among the classes", lambda m: m.partial_fit(X, np.where(Y == 0, 7, Y)), on_stream),
    Case("other classes", "cannot change between calls", lambda m: first(m, [0, 1]), on_stream),
    Case("other features", "X has 5 features", lambda m: m.partial_fit(X[:, :5], Y), on_stream),
    Case("indicator after labels", "as in the first fit", lambda m: m.partial_fit(X, TWO), on_stream),
    Case("no rows", r"0 sample\(s\)", lambda m: m.partial_fit(X[:0], Y[:0]), on_stream),
    Case("weights of zero", "at least one (positive|non-zero)", lambda m: m.partial_fit(X, Y, None, 0 * ONES), on_stream),
    Case("warm start of other features", "X has 5 features", lambda m: m.fit(X[:, :5], Y), on_warm),
    Case("warm start of other labels", r"labels \[7\]", lambda m: m.fit(X, np.where(Y == 0, 7, Y)), on_warm),
    Case("warm start of other targets", r"y has 1 target\(s\), but the first fit saw 2", lambda m: m.fit(X, X[:, 0]), on_warm_regressor),
]  # fmt: skip


@every(STREAMS)
def test_partial_fit_and_warm_starts(case):
    check(case)


# ---- functions ---------------------------------------------------------------------

NET = make_mlp(6, 3, (4,))
IMAGE_NET = make_convnet((1, 4, 4), 3, (), (2,))


class Keyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(input=x)


def skorch_net(regularizer, *args, **params):
    return NeuralNetClassifier(
        make_mlp(6, 3), criterion=nn.CrossEntropyLoss, verbose=0, max_epochs=1,
        callbacks=[("regularizer", RegularizerCallback(regularizer, **params))],
    )  # fmt: skip


def fit_skorch(net):
    net.fit(X.astype("float32"), Y)


FUNCTIONS = [
    *(
        Case(f"make_mlp{args}", words, functools.partial(make_mlp, *args))
        for args, words in [
            ((0, 3), r"\(n_inputs, n_outputs\)=.*positive integers"),
            ((6, 0), r"\(n_inputs, n_outputs\)=.*positive integers"),
            ((-1, 3), r"\(n_inputs, n_outputs\)=.*positive integers"),
            ((6.0, 3), r"\(n_inputs, n_outputs\)=.*positive integers"),
            (("6", 3), r"\(n_inputs, n_outputs\)=.*positive integers"),
            ((True, 3), r"\(n_inputs, n_outputs\)=.*positive integers"),
            ((6, 3, (0,)), "positive integers"),
            ((6, 3, (True,)), "positive integers"),
            ((6, 3, 0), "positive integers"),
            ((6, 3, "10"), "positive integers"),
            ((6, 3, None), "positive integers"),
        ]
    ),
    *(
        Case(f"make_convnet{args}", words, functools.partial(make_convnet, *args))
        for args, words in [
            (((1,), 3), "No default network fits"),
            (((1, 0, 4), 3), "positive integers"),
            (((-1, 4, 4), 3), "positive integers"),
            (((1, 4.5, 4), 3), "positive integers"),
            ((4, 3), "No default network|positive integers"),
            (((1, 4, 4), 0), r"\(n_inputs, n_outputs\)=.*positive integers"),
            (((1, 4, 4), 3, (-1,)), "positive integers"),
            (((1, 4, 4), 3, (), (0,)), "n_channels.*positive integers"),
            (((1, 4, 4), 3, (), 8), "n_channels.*positive integers"),
        ]
    ),
    Case("count_multiply_adds: other shape", "does not take", lambda: count_multiply_adds(NET, torch.zeros(1, 5))),
    Case("count_multiply_adds: no rows", "at least one sample", lambda: count_multiply_adds(NET, torch.zeros(0, 6))),
    Case("count_multiply_adds: array", "must be a dense tensor", lambda: count_multiply_adds(NET, X)),
    Case("count_multiply_adds: no module", "module must be a torch.nn.Module", lambda: count_multiply_adds(print, torch.zeros(1, 6)), error=TypeError),
    Case("count_multiply_adds: estimator", "module must be a torch.nn.Module", lambda: count_multiply_adds(classifier(), torch.zeros(1, 6)), error=TypeError),
    Case("insert_layer: no such layer", "no layer named 'head'", lambda: insert_layer(NET, "head", nn.ReLU())),
    Case("insert_layer: number", "no layer named 0", lambda: insert_layer(NET, 0, nn.ReLU())),
    Case("insert_layer: class", "layer=.*must be a torch.nn.Module", lambda: insert_layer(NET, "0", nn.ReLU), error=TypeError),
    Case("insert_layer: no network", "module=.*must be a torch.nn.Module", lambda: insert_layer(print, "0", nn.ReLU()), error=TypeError),
    Case("insert_layer: list", "that would take an inserted", lambda: insert_layer(nn.ModuleList([nn.ReLU()]), "", nn.ReLU())),
    Case("insert_layer: empty Sequential", "that would take an inserted", lambda: insert_layer(nn.Sequential(), "", nn.ReLU())),
    Case("remove_layers: not there", "not an inserted layer", lambda: remove_layers(NET, [nn.ReLU()])),
    Case("remove_layers: names", "not an inserted layer", lambda: remove_layers(NET, ["0"])),
    Case("remove_layers: no network", "must be a torch.nn.Module", lambda: remove_layers(print), error=TypeError),
    Case("callback: class", "give an instance", functools.partial(fit_skorch, skorch_net(CGES))),
    Case("callback: None", "give an instance", functools.partial(fit_skorch, skorch_net(None))),
    Case("callback: out of range", "'alpha' parameter of CGES", functools.partial(fit_skorch, skorch_net(CGES(alpha=-1)))),
    Case("callback: random_state", "random_state", functools.partial(fit_skorch, skorch_net(CGES(), random_state=-1))),
    Case("callback: random_state of text", "random_state", functools.partial(fit_skorch, skorch_net(CGES(), random_state="a"))),
    Case("callback: no such layer", "no layer named 'head'", functools.partial(fit_skorch, skorch_net(Blockout(2, layers=["head"])))),
]  # fmt: skip


@every(FUNCTIONS)
def test_functions(case):
    check(case)


# ---- torch datasets ------------------------------------------------------------


class Unlabelled(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, row):
        return torch.from_numpy(X[row])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


TENSORS = torch.from_numpy(X), torch.from_numpy(Y)
DATASETS = [
    Case("no labels", "holds no label", lambda m: m.fit(Unlabelled()), classifier()),
    Case("a loader to predict", "DataLoader; pass its dataset", lambda m: m.predict(DataLoader(TensorDataset(*TENSORS))), on_classifier, TypeError),
    Case("one row", "n_samples=1", lambda m: m.fit(TensorDataset(*(t[:1] for t in TENSORS))), classifier()),
    Case("fewer labels", "inconsistent numbers of samples", fit_with(TensorDataset(*TENSORS), Y[:5]), classifier()),
    Case("other features", "have 4 features, but .* expects 6", lambda m: m.predict(TensorDataset(TENSORS[0][:, :4])), on_classifier),
]  # fmt: skip


@every(DATASETS)
def test_datasets(case):
    check(case)


# ---- right results -----------------------------------------------------------------


def test_a_compiled_module_is_trained_as_it_was_before():
    module = nn.Sequential(nn.Linear(6, 3))
    compiled = torch.compile(module, backend="eager")
    regularizers = [CGES(0.01), Blockout(2)]
    plain, other = (
        classifier(m, regularizers=regularizers).fit(X, Y) for m in (module, compiled)
    )
    np.testing.assert_array_equal(plain.predict_proba(X), other.predict_proba(X))
    assert type(other.module_) is nn.Sequential


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.from_numpy(X).bfloat16(), torch.from_numpy(Y)),
        (1e39 * X, Y),
        (X.tolist(), Y.astype(str)),
        (X, Y.astype(bool)),
        (X, np.zeros(20)),
        (pd.DataFrame(X).astype("Float64"), pd.Series(Y).astype("category")),
    ],
)
def test_unusual_data_that_can_be_learned(x, y):
    assert classifier().fit(x, y).predict_proba(x).shape == (
        20,
        len(set(np.asarray(y).tolist())),
    )


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_targets_of_any_scale(scale):
    model = regressor(max_epochs=300).fit(X, scale * X[:, 0])
    np.testing.assert_allclose(model.target_scale_ / scale, X[:, 0].std(), rtol=1e-12)
    assert np.corrcoef(model.predict(X) / scale, X[:, 0])[0, 1] > 0.9


@pytest.mark.parametrize("params", [{}, {"class_weight": "balanced"}])
def test_weights_of_any_size(params):
    model = classifier(dtype="float64", **params)
    plain, huge = (
        clone(model).fit(X, Y, scale * (1 + np.arange(20) % 2)).predict_proba(X)
        for scale in (1.0, 5e307)
    )
    np.testing.assert_allclose(huge, plain, rtol=1e-9)
    targets = [
        regressor(dtype="float64").fit(X, X[:, 0], scale * ONES).predict(X)
        for scale in (1.0, 1.5e308)
    ]
    np.testing.assert_allclose(*targets, rtol=1e-9)


def test_trying_a_network_leaves_no_trace():
    module = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3))
    module[1].eval()
    state = {key: value.clone() for key, value in module.state_dict().items()}
    x, y = torch.from_numpy(X[:2]).float(), torch.from_numpy(Y[:2])
    try_training(module, x, y, 3, WeightedLoss(Task.CLASSES))
    assert [part.training for part in module] == [True, False, True]
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


# ---- what a table cannot say -------------------------------------------------------


def test_a_stream_that_diverges_does_not_predict():
    model = StructuredClassifier(learning_rate=1e30)
    with pytest.raises(ValueError, match="non-finite"):
        model.partial_fit(X, Y, classes=[0, 1, 2])
    good = StructuredClassifier(max_epochs=2).fit(X, Y)
    good.net_.optimizer_.param_groups[0]["lr"] = 1e30
    before = good.predict_proba(X)
    for _ in range(2):
        with pytest.raises(ValueError, match="non-finite"):
            good.partial_fit(X, Y)
    np.testing.assert_array_equal(good.predict_proba(X), before)
    assert good.n_iter_ == 2
