"""
Dropping the pixels that move together
======================================

Digits as images, a small convolutional network, and few training samples: the layer
that has structure to drop, the clusters, and a comparison with the usual rivals.
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

from sklearn_structreg import DropClusterClassifier, StructuredClassifier
from sklearn_structreg.baselines import DropBlock, Dropout, SpatialDropout
from sklearn_structreg.dropcluster import (
    DropCluster,
    DropClusterDisplay,
    LayerHopkinsDisplay,
)

torch.set_num_threads(1)  # the network is small

X, y = load_digits(return_X_y=True)
images = X.reshape(-1, 1, 8, 8)
split = train_test_split(images, y, train_size=300, stratify=y, random_state=0)
X_train, X_test, y_train, y_test = split

settings = {"max_epochs": 25, "batch_size": 32, "learning_rate": 0.05}
plain = DropClusterClassifier(drop_rate=0, random_state=0, **settings)
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
# Beside the rivals
# -----------------
# Other regularizers in the same place, over a few seeds, each with a drop rate of 0.2.
# None of them beats the plain network here; search the regularizer and its rate on data
# of your own.

rivals = [DropCluster(0.2), DropBlock(0.2), SpatialDropout(0.2)]
rivals += [Dropout(0.2, layers="0"), None]
accuracies = {}
for rival in rivals:
    name = type(rival).__name__ if rival else "plain network"
    chosen = [rival] if rival else None
    accuracies[name] = [
        StructuredClassifier(regularizers=chosen, random_state=seed, **settings)
        .fit(X_train, y_train)
        .score(X_test, y_test)
        for seed in range(3)
    ]
    scores = accuracies[name]
    print(f"{name:14s} {np.mean(scores):.4f} +- {np.std(scores):.4f}")

figure, axes = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
for row, scores in enumerate(accuracies.values()):
    axes.plot(scores, np.full(len(scores), row), "o", color="C0", alpha=0.6)
    axes.plot(np.mean(scores), row, "|", color="C3", markersize=18)
axes.set_yticks(range(len(accuracies)), accuracies)
axes.invert_yaxis()
axes.set(xlabel="test accuracy of 3 seeds, and their mean")

# %%
# A plain network
# ---------------
# It has the same outputs and needs nothing of this package.

print(model.simplified_module())
plt.show()
