"""
Fine-tuning: rates per layer, frozen layers, L2-SP
==================================================

A network has learned upright digits; now they come tilted, and only two of each have
labels. An instance as ``module`` is copied together with its weights; what may change
in it, and how fast, is a matter of options.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.ndimage import rotate
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch.callbacks import Freezer

from sklearn_structreg import StructuredClassifier
from sklearn_structreg.baselines import L2SP
from sklearn_structreg.core import Training

torch.set_num_threads(1)  # the network is small
X, y = load_digits(return_X_y=True)
images = X.reshape(-1, 1, 8, 8)
upright, y_upright, tilted, y_tilted = images[::2], y[::2], images[1::2], y[1::2]
tilted = rotate(tilted, 25, axes=(2, 3), reshape=False, order=1)

figure, axes = plt.subplots(2, 10, figsize=(8, 1.8), layout="constrained")
for row, kind, label in zip(
    axes, (upright, tilted), ("upright", "tilted"), strict=True
):
    for ax, image in zip(row, kind, strict=False):
        ax.imshow(image[0], cmap="gray_r")
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(label)

# %%
# A pre-trained network
# ---------------------
# The layer for raw data, with mean and scale of the upright digits, comes along with
# the weights. For other classes replace the last layer, in a deep copy:
# ``network[-1] = torch.nn.Linear(100, n_classes)``.
base = StructuredClassifier(max_epochs=30, batch_size=32, random_state=0)
base.fit(upright, y_upright)
network = base.module_
print(network)

# %%
# Ways to go on from it
# ---------------------
# Parameters have the names of torch, those of ``network.named_parameters()``, and
# patterns stand for several: here ``"[79].*"`` for both fully-connected layers.
# ``param_groups`` has other settings of the optimizer for some of them, as in skorch.
# skorch's ``Freezer`` leaves weights as they are. `L2SP` pulls them back to where they
# began.
top = "[79].*"
tuned = StructuredClassifier(network, max_epochs=60, random_state=0)
slow_top = Training(optimizer_params={"param_groups": [(top, {"lr": 0.005})]})
ways = {
    "anew": clone(tuned).set_params(module="auto"),
    "all weights": tuned,
    "all, lower rate": clone(tuned).set_params(learning_rate=0.01),
    "lower rate for the top": clone(tuned).set_params(training=slow_top),
    "top frozen": clone(tuned).set_params(callbacks=[Freezer(top)]),
    "L2-SP": clone(tuned).set_params(regularizers=[L2SP(0.03)]),
}
accuracies = {"as it is": []} | {name: [] for name in ways}
for seed in range(5):
    train, test, y_train, y_test = train_test_split(
        tilted, y_tilted, train_size=20, stratify=y_tilted, random_state=seed
    )
    accuracies["as it is"].append(100 * base.score(test, y_test))
    for name, way in ways.items():
        accuracies[name].append(100 * way.fit(train, y_train).score(test, y_test))

# %%
# Five draws of twenty images, and the mean. What has changed are the images, so that
# the first layers have most to learn. At the full rate all layers forget too much, and
# a lower one for all of them does about as well as the finer means.
figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
for number, (name, values) in enumerate(accuracies.items()):
    print(f"{name:>22}: accuracy {np.mean(values):.1f} %")
    ax.plot(values, [name] * 5, "o", color=f"C{number}", alpha=0.5)
    ax.plot(np.mean(values), name, "|", color=f"C{number}", markersize=20)
ax.set(xlabel="accuracy on tilted digits (%)", ylim=(len(accuracies) - 0.5, -0.5))
plt.show()
