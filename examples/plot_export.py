"""
From a wide table to a file for the server
==========================================

A wide table from end to end. A pipeline of two steps finds the columns that matter, by
a path of strengths, and trains a network on them under a group penalty. The network is
compacted, and the whole pipeline goes into one ONNX file, which onnxruntime runs
without this package, scikit-learn or torch.
"""

# %%
# A wide table
# ------------
# Digits, whose 64 pixels stand among 436 columns of noise.

import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sklearn_structreg import (
    CGESClassifier,
    CGESSelector,
    StructuredClassifier,
    export,
)
from sklearn_structreg.cges import FeaturePathDisplay
from sklearn_structreg.core import SizeDisplay

torch.set_num_threads(1)  # the networks are small
X, y = load_digits(return_X_y=True)
noise = 16 * np.random.default_rng(0).random((len(X), 436))
X = np.hstack([X, noise])
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

# %%
# Columns and weights
# -------------------
# The selector keeps 40 columns; the group penalty switches off units of the network.

path = StructuredClassifier(optimizer="adam", max_epochs=40)
model = make_pipeline(
    CGESSelector(40, estimator=path, random_state=0),
    CGESClassifier(
        hidden_layer_sizes=(200, 100),
        penalty="group",
        alpha=1.0,
        max_epochs=40,
        random_state=0,
    ),
)
model.fit(X_train, y_train)
selector, net = model
print(f"{np.sum(selector.get_support(indices=True) < 64)} of 40 columns are pixels")
print(f"accuracy {model.score(X_test, y_test):.3f}")

# %%
# The path
# --------
# By which the columns were ranked: the strength of the penalty grows, and each line is
# the norm of a column's weights, until it dies. After each dotted line the better half
# of the columns goes on with a fresh network.

FeaturePathDisplay.from_estimator(selector, n_features=5)

# %%
# The gain of compaction
# ----------------------
# The plain network is the same one without a penalty.

display = SizeDisplay.from_estimator(net, selector.transform(X_test))
print(display.report)

# %%
# One file
# --------
# ``compact=True`` exports the smaller network. The selection of columns, the
# standardization and the softmax are in the file, too. It is loaded again and compared
# with the pipeline on the rows given before `export` returns.

folder = Path(tempfile.mkdtemp())
report = export(model, folder / "digits.onnx", compact=True, check=X_test)
print(f"{report.n_parameters:,} parameters in {report.n_bytes:,} bytes")
print(f"largest difference of a probability: {report.max_difference:.1e}")

# %%
# On the server
# -------------
# Raw rows in, in batches of any size; probabilities and the positions of labels out.

session = onnxruntime.InferenceSession(folder / "digits.onnx")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
rows = X_test[:7].astype(np.float32)
probabilities, label = session.run(None, {"X": rows})
print([classes[position] for position in label], model.predict(X_test[:7]).tolist())
plt.show()
