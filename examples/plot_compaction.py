"""
A smaller network with the same predictions
===========================================

A group penalty leaves units and channels that no layer reads. Zeros alone save nothing;
compaction takes them out, and the network gets smaller and faster.
"""

# %%
# Train with a group penalty
# --------------------------
# The default convolutional net, on digits as images.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_structreg import CGESClassifier

torch.set_num_threads(1)  # the network is small

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
model = CGESClassifier(
    penalty="group",
    alpha=1.0,
    image_shape=(1, 8, 8),
    max_epochs=40,
    random_state=0,
)
model.fit(X_train, y_train)
print(f"accuracy {model.score(X_test, y_test):.3f}")

# %%
# Three measures of size
# ----------------------
# The share of weights that are not zero, the size after compaction, and the measured
# latency are different things; the report keeps them apart.

report = model.size_report(X_test, batch_size=256)
print(report)

# %%
# Compact the estimator
# ---------------------
# The network has fewer units and channels; the predictions stay the same.

before = model.predict_proba(X_test)
smaller = model.compact()
after = smaller.predict_proba(X_test)
print(smaller.module_)
print(f"largest change of a probability: {np.abs(after - before).max():.1e}")
print(f"accuracy {smaller.score(X_test, y_test):.3f}")

# %%
# Layer by layer
# --------------
# A layer shrinks by the channels that it loses and by those that it no longer reads, so
# it can lose more than its own zeros.

names = [f"{layer.kind} {layer.name}" for layer in report.layers]
positions = np.arange(len(names))
figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
for shift, label, counts in [
    (-0.2, "not zero", [layer.n_nonzero for layer in report.layers]),
    (0.2, "compacted", [layer.n_compact for layer in report.layers]),
]:
    shares = 100 * np.array(counts) / [layer.n_parameters for layer in report.layers]
    bars = axes.barh(positions + shift, shares, height=0.36, label=label)
    axes.bar_label(bars, fmt="%.0f", padding=3)
axes.set(xlabel="parameters (% of the layer's)", xlim=(0, 108))
axes.set_yticks(positions, names)
axes.invert_yaxis()
axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
plt.show()
