"""The README's own code, block after block, on a CSV file: from a table to ONNX."""

import re
from pathlib import Path

import pytest
from sklearn.datasets import load_breast_cancer

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_readme_leads_from_a_csv_file_to_a_file_that_runs(tmp_path, monkeypatch):
    for needed in ("pandas", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    data = load_breast_cancer(as_frame=True)
    names = data.target.map(dict(enumerate(data.target_names))).rename("label")
    data.data.join(names).to_csv("table.csv", index=False)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), flags=re.S)
    space = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), space)
    model, X_new, y_new = (space[name] for name in ("model", "X_new", "y_new"))
    assert model.score(X_new, y_new) > 0.95
    assert space["report"].max_difference < 1e-4
    labels = [space["classes"][position] for position in space["positions"]]
    assert labels == model.predict(X_new).tolist()
