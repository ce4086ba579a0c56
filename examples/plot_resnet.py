"""
A residual network of your own, on few images
=============================================

A network that can learn its hundred training images by heart is sure of itself, and
wrong more often than it says. :class:`~sklearn_structreg.dropcluster.DropCluster` drops
regions of its feature maps while it learns: at any layer of any network, without a
change to its code. A prediction may then be the mean of several draws of what is
dropped.
"""

# %%
# The network
# -----------
# A small ResNet. A class whose signature names ``input_shape`` and ``n_outputs`` gets
# them from the data.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

from sklearn_structreg import DropClusterClassifier
from sklearn_structreg.dropcluster import DropClusterDisplay, LayerHopkinsDisplay

torch.set_num_threads(1)  # the network is small


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, n_inputs, n_outputs, stride):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(n_inputs, n_outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(n_outputs),
            nn.ReLU(),
            nn.Conv2d(n_outputs, n_outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_outputs),
        )
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Conv2d(n_inputs, n_outputs, 1, stride, bias=False)

    def forward(self, x):
        """Add the two."""
        return functional.relu(self.convolutions(x) + self.shortcut(x))


class ResNet(nn.Module):
    """A convolution, three blocks, and a linear layer on the mean over positions."""

    def __init__(self, input_shape, n_outputs, width=16):
        super().__init__()
        self.stem = nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.block1 = Block(width, width, stride=1)
        self.block2 = Block(width, 2 * width, stride=2)
        self.block3 = Block(2 * width, 4 * width, stride=2)
        self.linear = nn.Linear(4 * width, n_outputs)

    def forward(self, x):
        """Compute logits."""
        x = functional.relu(self.norm(self.stem(x)))
        x = self.block3(self.block2(self.block1(x)))
        return self.linear(x.mean(dim=(2, 3)))


# %%
# Three draws of a hundred images
# -------------------------------
# Each time the plain network, and one in which regions of the maps of two layers are
# dropped. ``standardize=True`` gives a network of your own the layer for raw pixels
# that those of the package have.

X, y = load_digits(return_X_y=True)
images = X.reshape(-1, 1, 8, 8)


def make(drop_rate, seed):
    """Return an estimator around the network."""
    return DropClusterClassifier(
        ResNet,
        drop_rate=drop_rate,
        layer=["stem", "block1"],
        mask_per="sample",
        standardize=True,
        lr_schedule="cosine",
        max_epochs=40,
        batch_size=32,
        random_state=seed,
    )


scores = {"plain network": [], "DropCluster": [], "mean of 20 draws": []}
for seed in range(3):
    train, test, y_train, y_test = train_test_split(
        *(images, y),
        train_size=100,
        test_size=600,
        stratify=y,
        random_state=seed,
    )
    plain = make(0, seed).fit(train, y_train)
    model = make(0.3, seed).fit(train, y_train)
    predictions = [
        plain.predict_proba(test),
        model.predict_proba(test),
        model.predict_proba(test, n_draws=20),
    ]
    for values, probabilities in zip(scores.values(), predictions, strict=True):
        accuracy = 100 * accuracy_score(y_test, probabilities.argmax(axis=1))
        values.append((accuracy, log_loss(y_test, probabilities)))
for name, values in scores.items():
    accuracy, loss = np.mean(values, axis=0)
    print(f"{name:>16}: accuracy {accuracy:.1f} %, log loss {loss:.3f}")

# %%
# The log loss is what a network pays that is sure and wrong. It falls on two draws of
# three; the accuracy is the same within what the draws differ by.

table = np.array([*scores.values()])  # by network, draw and score
figure, panels = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
names = [name.replace(" of ", " of\n") for name in scores]
for number, label in enumerate(["test accuracy (%)", "log loss"]):
    ax = panels[number]
    ax.plot(names, table[:, :, number], "o-", color="0.75")
    ax.plot(names, table[:, :, number].mean(axis=1), "o-", color="C3")
    ax.set(ylabel=label)
panels[0].set_title("grey: a draw each; red: their mean", fontsize="medium")

# %%
# Which layers?
# -------------
# Those in whose maps neighbouring pixels are alike: a Spatial Hopkins statistic above
# 0.5. In the plain network these are the first ones.

names = "stem", "block1", "block2", "block3"
statistics = plain.layer_hopkins(train)
LayerHopkinsDisplay({name: statistics[name] for name in names}).plot()

# %%
# What is dropped
# ---------------
# Clusters of the first layer's maps: they follow the strokes.

DropClusterDisplay.from_estimator(model, train, channels=range(4))
plt.show()
