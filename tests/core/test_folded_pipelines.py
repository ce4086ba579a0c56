"""Steps of pipelines, folded into one, against the pipelines themselves."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)

from sklearn_structreg import StructuredClassifier, export
from sklearn_structreg.core.pipelines import fold_steps, take_apart

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore:Features .* are constant",
    "ignore:X does not have valid feature names",
)


def network():
    return StructuredClassifier(
        hidden_layer_sizes=(4,), max_epochs=1, dtype="float64", random_state=0
    )


# ---- steps one after another -------------------------------------------------------

STEPS = [
    [StandardScaler(with_mean=False), MinMaxScaler((-1, 3))],
    [RobustScaler(with_scaling=False), StandardScaler(with_std=False)],
    [MaxAbsScaler(), VarianceThreshold(0.03), SimpleImputer(strategy="median")],
    [StandardScaler(), SimpleImputer(), VarianceThreshold(), RobustScaler()],
    [SimpleImputer(strategy="constant", fill_value=7.0), MinMaxScaler()],
    [SimpleImputer(), FunctionTransformer(), StandardScaler()],
    [make_pipeline(VarianceThreshold(), "passthrough"), SimpleImputer()],
]


@pytest.mark.filterwarnings("ignore")  # of the steps
@pytest.mark.parametrize("steps", STEPS)
def test_steps_are_folded_into_one(steps):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 6)) * [1, 10, 0.1, 1, 1, 1] + [0, 100, 5, 0, 0, 0]
    X[:, 3] = 2.0
    X[rng.random(X.shape) < 0.1] = np.nan
    if type(steps[0]) is SimpleImputer:
        X[:, 4] = np.nan  # which it leaves out, and a constant fills
    pipeline = make_pipeline(*(clone(s) for s in steps)).fit(X)
    expected = pipeline.transform(X)
    flat, _ = take_apart(make_pipeline(pipeline, "passthrough"))
    folded = fold_steps(flat, (expected.shape[1],))
    found = folded(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    known = rng.normal(size=(4, expected.shape[1]))
    again = folded(torch.from_numpy(folded.inverse(known))).numpy()
    np.testing.assert_allclose(again, known, atol=1e-12)


# ---- parts side by side ------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    """Four columns of numbers, two with gaps, between two of text; and labels."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "name": [f"n{i}" for i in range(60)],
            "age": rng.normal(50, 10, 60),
            "pay": rng.lognormal(8, 1, 60),
            "city": rng.choice(["Bonn", "Rome"], 60),
            "score": rng.normal(size=60),
            "level": rng.integers(0, 5, 60),
        }
    )
    X.loc[::7, "age"] = X.loc[::5, "pay"] = np.nan
    return X, rng.integers(0, 3, 60)


FILL = SimpleImputer()
FILL_AND_SCALE = make_pipeline(SimpleImputer(strategy="median"), RobustScaler())
NUMBERS = ["age", "pay", "score", "level"]


def parts(*triples, **options):
    return clone(ColumnTransformer([*triples], **options))


OF_A_TABLE = {  # and the columns that the file takes
    "names in another order": (
        parts(("a", FILL_AND_SCALE, ["pay", "age"]), ("b", MinMaxScaler(), ["score"])),
        ["age", "pay", "score"],
    ),
    "positions from both ends": (
        parts(("a", FILL, [2, 1]), ("b", StandardScaler(), [-2])),
        ["age", "pay", "score"],
    ),
    "slices of names and of positions": (
        parts(("a", FILL, slice("age", "pay")), ("b", MaxAbsScaler(), slice(4, None))),
        NUMBERS,
    ),
    "a mask": (
        parts(("a", FILL, [False, True, True, False, False, False])),
        ["age", "pay"],
    ),
    "callables": (
        parts(
            ("a", FILL_AND_SCALE, make_column_selector(dtype_include="number")),
            ("b", "drop", make_column_selector(dtype_exclude="number")),
        ),
        NUMBERS,
    ),
    "the rest as it is": (
        parts(
            ("text", "drop", ["name", "city"]),
            ("a", FILL, ["pay", "age"]),
            remainder="passthrough",
        ),
        NUMBERS,
    ),
    "the rest scaled": (
        parts(
            ("text", "drop", ["city", "name"]),
            ("a", "passthrough", ["level"]),
            ("none", OneHotEncoder(), []),
            remainder=make_pipeline(StandardScaler(), SimpleImputer()),
        ),
        NUMBERS,
    ),
    "a column twice, with weights": (
        parts(
            ("a", StandardScaler(), ["score", "level"]),
            ("b", MinMaxScaler(), ["score"]),
            transformer_weights={"a": 3.0, "b": -0.5},
        ),
        ["score", "level"],
    ),
    "parts in parts": (
        parts(
            (
                "a",
                make_pipeline(
                    "passthrough", parts(("x", "drop", ["name"]), remainder=FILL)
                ),
                ["pay", "name", "age"],
            ),
            ("b", "passthrough", ["score"]),
        ),
        ["age", "pay", "score"],
    ),
    "steps before and after": (
        make_pipeline(
            FunctionTransformer(),
            parts(("a", FILL, ["pay", "age"]), ("b", "passthrough", ["level"])),
            "passthrough",
            SelectKBest(k=2),
            parts(("c", StandardScaler(), [1]), remainder=MinMaxScaler()),
            MaxAbsScaler(),
        ),
        ["age", "pay", "level"],
    ),
    "names of parts": (
        make_pipeline(
            parts(("a", FILL, ["pay", "age"]), ("b", "passthrough", ["level"])),
            parts(("c", StandardScaler(), ["b__level", "a__pay"])),
        ).set_output(transform="pandas"),
        ["age", "pay", "level"],
    ),
}


@pytest.mark.parametrize("name", OF_A_TABLE)
def test_parts_of_a_table_are_folded(table, name):
    X, y = table
    transformer, taken = OF_A_TABLE[name]
    model = make_pipeline(transformer, network()).fit(X, y)
    steps, net = take_apart(model)
    folded = fold_steps(steps, net.input_shape_)
    rows = folded(torch.tensor(X[taken].to_numpy(np.float64))).numpy()
    expected = model.predict_proba(X)
    np.testing.assert_allclose(net.predict_proba(rows), expected, rtol=1e-9)
    assert np.ptp(expected, axis=0).min() > 1e-3  # of rows that differ
    shuffled = X[["level", *X.columns[:-1]]]  # whose columns are found by name
    np.testing.assert_array_equal(folded.inputs.of(shuffled), X[taken])
    typical = folded.inputs.around(folded.inverse(rows[:5]))
    again = folded(torch.tensor(folded.inputs.of(typical))).numpy()
    np.testing.assert_allclose(
        net.predict_proba(again), model.predict_proba(typical), rtol=1e-9
    )


OF_AN_ARRAY = {
    "dense": parts(("a", FILL_AND_SCALE, [3, 0]), ("b", "passthrough", slice(1, 2))),
    "the first": parts(("a", FILL, [0, 1])),
    "the same number": parts(("a", FILL, [3, 2, 1, 0])),
    "sparse": parts(
        ("a", MaxAbsScaler(), [3, 1]), remainder=FILL, sparse_threshold=1.0
    ),
    "sparse parts made dense": parts(
        ("a", MaxAbsScaler(), [3, 1]), ("b", FILL, [0]), sparse_threshold=0.0
    ),
}


@pytest.mark.parametrize("name", OF_AN_ARRAY)
def test_parts_of_an_array_are_folded(table, name):
    X, y = np.nan_to_num(table[0][NUMBERS].to_numpy(np.float64)), table[1]
    X[np.abs(X) < 0.5] = 0.0
    given = csr_array(X) if name.startswith("sparse") else X
    model = make_pipeline(OF_AN_ARRAY[name], network()).fit(given, y)
    steps, net = take_apart(model)
    folded = fold_steps(steps, net.input_shape_)
    np.testing.assert_array_equal(folded.inputs.of(given), X)  # all, without names
    rows = folded(torch.from_numpy(X)).numpy()
    expected = model.predict_proba(given)
    np.testing.assert_allclose(net.predict_proba(rows), expected, rtol=1e-9)


# ---- files -------------------------------------------------------------------------


def test_a_file_takes_the_columns_in_use_by_their_names(table, tmp_path):
    X, y = table
    prepare = parts(("a", FILL_AND_SCALE, ["pay", "age"]), ("b", FILL, ["level"]))
    model = make_pipeline(prepare, network()).fit(X, y)
    assert export(model, tmp_path / "net.safetensors").n_rows == 8  # random ones
    report = export(model, tmp_path / "net.pt2", check=X)
    assert report.inputs == {"X": "float64 (batch, 3)"}
    extra_files = {"metadata": ""}
    program = torch.export.load(report.path, extra_files=extra_files).module()
    names = json.loads(json.loads(extra_files["metadata"])["feature_names"])
    assert names == ["age", "pay", "level"]
    found, _ = program(torch.tensor(X[names].to_numpy("float64")))
    np.testing.assert_allclose(found, model.predict_proba(X), atol=1e-9)


def test_numbers_alone(table, tmp_path):
    X, y = table[0].to_numpy(object), table[1]
    model = make_pipeline(parts(("a", "passthrough", [4, 5])), network()).fit(X, y)
    with pytest.raises(ValueError, match=r"A file takes numbers alone.*'n0'"):
        export(model, tmp_path / "net.safetensors", check=X)


# ---- errors ------------------------------------------------------------------------

ENCODER = OneHotEncoder(handle_unknown="ignore")
REFUSED = {
    "'columntransformer__t', a OneHotEncoder, cannot be folded .* as StandardScaler": (
        parts(("t", ENCODER, ["city"]), ("n", FILL, NUMBERS))
    ),
    r"__t__simpleimputer', a SimpleImputer, .* because it fills in text": parts(
        ("t", make_pipeline(SimpleImputer(strategy="most_frequent"), ENCODER), ["city"])
    ),
    r"__n__simpleimputer', a Simple.* because of add_indicator=True": parts(
        ("n", make_pipeline(SimpleImputer(add_indicator=True)), NUMBERS)
    ),
    r"because of missing_values=-1": parts(
        ("n", SimpleImputer(missing_values=-1), [5])
    ),
    r"a MinMaxScaler, .* because of clip=True": parts(
        ("n", MinMaxScaler(clip=True), [4])
    ),
    r"a FunctionTransformer, .* because of func=log1p": parts(
        ("n", FunctionTransformer(np.log1p), [5])
    ),
    r"because of transformer_weights=\{'n': 0\}": parts(
        ("n", FILL, NUMBERS), ("m", FILL, [4]), transformer_weights={"n": 0}
    ),
    r"__pca', a PCA, cannot": make_pipeline(parts(("n", FILL, NUMBERS)), PCA(2)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused_steps_are_named_and_the_way_out_works(table, tmp_path, message):
    X, y = table
    pipe = make_pipeline(REFUSED[message], network()).fit(X, y)
    path = tmp_path / "net.safetensors"
    with pytest.raises(ValueError, match=message) as error:
        export(pipe, path)
    way_out = "export(pipe[-1], path, check=pipe[:-1].transform(X))"
    assert way_out in str(error.value)
    report = eval(way_out, {"export": export, "pipe": pipe, "X": X, "path": path})
    assert report.n_rows == 60


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_a_column_of_gaps_that_was_scaled_before_it_is_filled():
    X = np.column_stack([np.arange(5.0), np.full(5, np.nan)])
    imputer = SimpleImputer(
        strategy="constant", fill_value=2.0, keep_empty_features=True
    )
    steps = make_pipeline(MaxAbsScaler(), imputer).fit(X).steps
    with pytest.raises(ValueError, match="'simpleimputer'.* a scaler saw no number"):
        fold_steps(steps, (2,))
