"""Exported files, run by onnxruntime and torch.export, against the estimators."""

import importlib
import json

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from sklearn.base import clone, is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler, StandardScaler
from torch import nn

from sklearn_structreg import (
    BlockoutRegressor,
    CGESClassifier,
    CGESClassifierCV,
    CGESSelector,
    DropClusterClassifier,
    SelfInformedClassifier,
    StructuredClassifier,
    StructuredRegressor,
    export,
)
from sklearn_structreg.baselines import Dropout
from sklearn_structreg.blockout import Blockout
from sklearn_structreg.cges import CGES
from sklearn_structreg.core import model_files

FAST = {"max_epochs": 3, "random_state": 0}
pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore:Features .* are constant"
)


@pytest.fixture(scope="module")
def rows(digits):
    X, y = digits[0][:300] * 16, digits[1][:300]
    names = [f"p{i}" for i in range(64)]
    return pd.DataFrame(X, columns=names), y


def own_network(input_shape, n_outputs):
    weights = nn.utils.parametrizations.weight_norm(nn.Linear(64, 20))
    return nn.Sequential(weights, nn.Dropout(0.3), nn.GELU(), nn.Linear(20, n_outputs))


MODELS = {
    "all on one": StructuredClassifier(
        regularizers=[Blockout(3), CGES(0.5, penalty="group"), Dropout(0.2)]
    ),
    "images": DropClusterClassifier(image_shape=(1, 8, 8), regularizers=[CGES(0.5)]),
    "heads": SelfInformedClassifier(n_clusters=3, cv=None),
    "heads on demand": SelfInformedClassifier(
        n_clusters=3, cv=None, conditional=2, n_members=2
    ),
    "average": CGESClassifierCV(alphas=[0.3], cv=2),
    "own network": StructuredClassifier(own_network, standardize=True),
    "several numbers": BlockoutRegressor(),
    "pipeline": make_pipeline(
        ColumnTransformer(
            [("half", RobustScaler(), slice(32, 64))], remainder=SimpleImputer()
        ),
        CGESSelector(20, estimator=StructuredClassifier(max_epochs=2)),
        CGESClassifier(penalty="group", alpha=0.5),
    ),
    "several labels": StructuredClassifier(),
}
# ONNX takes more than a second of each
ONNX = ("all on one", "images", "heads on demand", "pipeline")
# parametrizations, and a choice by the data
NOT_COMPACTED = ("own network", "heads on demand")


@pytest.mark.parametrize("name", MODELS)
def test_files_run_elsewhere_with_the_same_outputs(rows, tmp_path, name):
    X, y = rows
    if name == "several numbers":
        y = np.column_stack([100.0 * y, 5 - y])
    if name == "several labels":
        y = np.column_stack([y > 3, y % 2])
    model = clone(MODELS[name])
    last = model[-1] if name == "pipeline" else model
    last.set_params(**FAST)
    model.fit(X, y)
    if is_classifier(model):
        expected = model.predict_proba(X), model.predict(X)
    else:
        expected = (model.predict(X),)
    compact = name not in NOT_COMPACTED
    report = export(model, tmp_path / "model.pt2", check=X[:9], compact=compact)
    program = torch.export.load(report.path).module()
    runs = [lambda part: program(torch.tensor(part))]
    if name in ONNX:
        report = export(model, tmp_path / "model.onnx")
        session = onnxruntime.InferenceSession(report.path)
        metadata = session.get_modelmeta().custom_metadata_map
        assert json.loads(metadata["classes"]) == list(range(10))
        runs.append(lambda part: session.run(None, {"X": part}))
    for file in tmp_path.iterdir():  # nothing of this machine, and no data
        content = file.read_bytes()
        assert b".py" not in content
        assert X[:1].to_numpy(np.float32).tobytes() not in content
    shape = (-1, *last.input_shape_) if name != "pipeline" else (-1, 64)
    for run in runs:
        for part in (slice(1), slice(1, 8)):
            found = run(X[part].to_numpy(np.float32).reshape(shape))
            found = found if isinstance(found, tuple | list) else [found]
            for each, values in zip(found, expected, strict=True):
                scale = np.abs(values).max()
                np.testing.assert_allclose(each, values[part], atol=1e-5 * scale)
    assert report.max_difference < 1e-5
    assert report.n_bytes == (tmp_path / report.path).stat().st_size
    assert [*tmp_path.glob(".*")] == []


def test_the_weights_are_those_of_a_chain_that_numpy_can_run(blobs, tmp_path):
    X, y = blobs[0] * 100 + 1000, np.array(["a", "b", "c"])[blobs[1]]
    model = CGESClassifier(alpha=0.5, penalty="group", **FAST).fit(X, y)
    report = model.export(tmp_path / "w.safetensors", outputs=["logits"], compact=True)
    with safe_open(report.path, "numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert json.loads(metadata["classes"]) == ["a", "b", "c"]
    assert json.loads(metadata["outputs"]) == ["logits"]
    layers = json.loads(metadata["layers"])
    assert [layer["class"] for layer in layers] == ["Linear", "ReLU", "Linear"]
    assert layers[2]["settings"].startswith("in_features=")
    h = X.astype(np.float32)
    for layer in layers:
        if layer["class"] == "ReLU":
            h = np.maximum(h, 0)
        else:
            name = layer["name"]
            h = h @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
    np.testing.assert_allclose(h, model.decision_function(X), atol=1e-4)
    assert report.n_parameters == model.compact().n_parameters_


def test_metadata_and_searches(rows, tmp_path):
    X, y = rows
    net = StructuredClassifier(**FAST)
    pipeline = make_pipeline("passthrough", StandardScaler(), net)
    grid = {"structuredclassifier__hidden_layer_sizes": [(5,)]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    report = export(search, tmp_path / "net", "pt2", outputs=["label"])
    extra_files = {"metadata": ""}
    program = torch.export.load(report.path, extra_files=extra_files).module()
    metadata = json.loads(extra_files["metadata"])
    assert json.loads(metadata["classes"]) == list(range(10))
    assert json.loads(metadata["feature_names"]) == list(X)
    labels = program(torch.tensor(X.to_numpy(np.float32)))
    np.testing.assert_array_equal(labels, search.predict(X))
    assert report.outputs == {"label": "int64 (batch,)"}
    assert "largest difference on 8 rows" in str(report)


@pytest.mark.parametrize("form", ["safetensors", "pt2"])
def test_files_of_save_and_of_export_are_told_apart(blobs, tmp_path, form):
    model, path = CGESClassifier(**FAST).fit(*blobs), tmp_path / "m.safetensors"
    model.save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"m\.safetensors' was written by save\(\), "):
        model.export(path, form)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]
    path.unlink()
    model.export(path, "safetensors")
    model.export(path, "safetensors")  # which replaces an export
    with pytest.raises(ValueError, match=r"written by export\(\) .* files of save\(\)"):
        CGESClassifier.load(path)
    model.save(path)
    CGESClassifier.load(path)


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2", "m.ONNX"])
def test_save_leaves_the_formats_of_export_alone(blobs, tmp_path, name):
    model = CGESClassifier(**FAST).fit(*blobs)
    selector = CGESSelector(2, estimator=StructuredClassifier(**FAST)).fit(*blobs)
    for each in (model, selector):
        with pytest.raises(
            ValueError, match=r"end it in '\.safetensors', or .*export\("
        ):
            each.save(tmp_path / name)
    assert [*tmp_path.iterdir()] == []


def test_a_difference_leaves_no_file(blobs, tmp_path):
    X, y = blobs[0] + 1e7, blobs[1]
    model = StructuredClassifier(**FAST).fit(X, y)
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match=r"differs .* not kept.*dtype='float64'"):
        model.export(path, check=X)
    assert [*tmp_path.iterdir()] == []
    assert model.export(path, check=X, dtype="float64").max_difference < 1e-5
    before = path.read_bytes()
    with pytest.raises(ValueError, match="differs"):
        model.export(path, check=X)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def test_the_file_itself_is_compared(blobs, tmp_path, monkeypatch):
    model = StructuredRegressor(dtype="float64", **FAST).fit(*blobs)
    whole = model_files.FORMATS["safetensors"]

    def damaged(module, sample, metadata):
        module.network[0].bias.data += 1e-6
        content = whole.write(module, sample, metadata)
        module.network[0].bias.data -= 1e-6
        return content

    assert model.export(tmp_path / "a.safetensors").max_difference < 1e-12
    forms = {"safetensors": whole._replace(write=damaged)}
    monkeypatch.setattr(model_files, "FORMATS", forms)
    monkeypatch.setattr("sklearn_structreg.core.deployment.FORMATS", forms)
    with pytest.raises(ValueError, match="more than tolerance=1e-09"):
        model.export(tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_errors(rows, tmp_path, monkeypatch):
    X, y = rows
    model, path = StructuredClassifier(**FAST).fit(X, y), tmp_path / "net.pt2"
    cases = [
        ({"path": tmp_path / "net.bin"}, "names no format"),
        ({"format": "tflite"}, "format='tflite' must be one of 'onnx', 'pt2'"),
        ({"outputs": ["classes"]}, r"outputs=\['classes'\] must be different ones of"),
        ({"outputs": []}, "must be different ones"),
        ({"dtype": "float16"}, "dtype='float16' must be one of 'float32', 'float64'"),
        ({"check": X.to_numpy()[:, :3]}, "X has 3 features"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            export(model, **{"path": path, **options})
    heads = SelfInformedClassifier(n_clusters=2, cv=None, conditional=1, **FAST)
    with pytest.raises(ValueError, match="conditional=1 .* set conditional=None"):
        heads.fit(X, y).export(path, compact=True)
    with pytest.raises(TypeError, match="A LogisticRegression cannot be exported"):
        export(LogisticRegression().fit(np.eye(2), [0, 1]), path)
    with pytest.raises(NotFittedError):
        StructuredClassifier().export(path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        model.export(tmp_path / "none" / "net.pt2")
    module = nn.Sequential(nn.Flatten(), Odd(), nn.Linear(64, 10))
    odd = StructuredClassifier(module, **FAST).fit(X, y)
    with pytest.raises(ValueError, match="cannot be exported, as torch.export says"):
        odd.export(path)

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"needs the package onnx: run pip install"):
        model.export(tmp_path / "net.onnx")
    assert [*tmp_path.iterdir()] == []


class Odd(nn.Module):
    """Branches on its data."""

    def forward(self, x):
        return x if x.sum() > 0 else -x
