"""
Dropping the pixels that move together
======================================

Digits as images, a small convolutional network, and few training samples: which layer
has structure to drop, what the clusters look like, and what dropping them does beside
the alternatives.
"""

# %%
# At which layer?
# ---------------
# The plain network first. The Spatial Hopkins statistic of its layers, a histogram over
# channels each: above 0.5 neighbouring pixels are alike. With depth the maps shrink,
# and the structure goes.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_structreg import DropClusterClassifier
from sklearn_structreg.dropcluster import DropClusterDisplay, LayerHopkinsDisplay

torch.set_num_threads(1)  # the network is small

X, y = load_digits(return_X_y=True)
images = (X / 16).reshape(-1, 1, 8, 8)
split = train_test_split(images, y, train_size=300, stratify=y, random_state=0)
X_train, X_test, y_train, y_test = split

settings = {"max_epochs": 25, "batch_size": 32, "learning_rate": 0.05}
plain = DropClusterClassifier(regularizer=None, random_state=0, **settings)
plain.fit(X_train, y_train)
for name, layer in plain.module_.named_children():
    print(name, layer)
LayerHopkinsDisplay.from_estimator(plain, X_train)

# %%
# The clusters
# ------------
# The first convolution it is, which is also the default. After a fifth of the epochs
# its maps are clustered for the first time. Regions follow the strokes that a channel
# responds to; they are no squares.

model = DropClusterClassifier(drop_rate=0.2, random_state=0, **settings)
model.fit(X_train, y_train)
DropClusterDisplay.from_estimator(model, X_train)

# %%
# All channels' clusters:

DropClusterDisplay.from_estimator(model, X_train, kind="clusters")

# %%
# Beside the alternatives
# -----------------------
# The other regularizers in the same place, over a few seeds. Here none of them beats
# the plain network; search the regularizer and its rate on data of your own.

accuracies = {}
for regularizer in ("dropcluster", "dropblock", "spatial", "dropout", None):
    accuracies[str(regularizer)] = [
        DropClusterClassifier(
            regularizer=regularizer, drop_rate=0.2, random_state=seed, **settings
        )
        .fit(X_train, y_train)
        .score(X_test, y_test)
        for seed in range(3)
    ]
for name, scores in accuracies.items():
    print(f"{name:12s} {np.mean(scores):.4f} +- {np.std(scores):.4f}")

figure, axes = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
for row, scores in enumerate(accuracies.values()):
    axes.plot(scores, np.full(len(scores), row), "o", color="C0", alpha=0.6)
    axes.plot(np.mean(scores), row, "|", color="C3", markersize=18)
axes.set_yticks(range(len(accuracies)), accuracies)
axes.invert_yaxis()
axes.set(xlabel="test accuracy of 3 seeds, and their mean")

# %%
# For deployment
# --------------
# A plain network, with the same outputs, that needs nothing of this package.

print(model.compact())
plt.show()
