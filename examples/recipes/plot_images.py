"""
Images: a residual network with augmentation and a cosine schedule
==================================================================

A network of your own is a function of the samples' shape and the number of outputs.
``Training(augment=...)`` changes the images of every mini-batch at random, and
``lr_schedule="cosine"`` lets the learning rate fall to zero. With 100 images of digits
to learn from, the two together matter.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

from sklearn_structreg import StructuredClassifier
from sklearn_structreg.core import Training

torch.set_num_threads(1)  # the network is small


# %%
# A small ResNet
# --------------
class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, n_inputs, n_outputs, stride=1):
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


def resnet(input_shape, n_outputs, width=16):
    """Build a ResNet of two stages."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Block(width, width),
        Block(width, 2 * width, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, n_outputs),
    )


# %%
# Augmentation
# ------------
# Any function of a mini-batch, a tensor of shape (n, C, H, W) on the training device,
# to one of the same shape will do; its draws follow from ``random_state``. This one
# gives each image an affine map of its own.


def warped(images):
    """Turn, stretch, slant and shift each image at random."""
    noise = torch.randn(len(images), 2, 3) * torch.tensor([0.1, 0.1, 0.04])
    maps = (torch.eye(2, 3) + noise).to(images)  # their precision and device
    grid = functional.affine_grid(maps, images.shape, align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


X, y = load_digits(return_X_y=True)
images = X.reshape(-1, 1, 8, 8)

batch = torch.tensor(images[:10])
figure, axes = plt.subplots(3, 10, figsize=(8, 2.6), layout="constrained")
for row, version in zip(axes, (batch, warped(batch), warped(batch)), strict=True):
    for ax, image in zip(row, version, strict=True):
        ax.imshow(image[0].numpy(), cmap="gray_r")
        ax.set(xticks=[], yticks=[])
for ax, label in zip(axes[:, 0], ("as it is", "warped", "again"), strict=True):
    ax.set_ylabel(label)

# %%
# The transforms of torchvision are such functions, too. They draw once for the whole
# mini-batch; for draws of its own for each image, at some cost of time, call them image
# by image:
#
# .. code-block:: python
#
#     from torchvision.transforms import v2
#
#     transform = v2.Compose([v2.RandomCrop(8, padding=1), v2.RandomRotation(10)])
#     Training(augment=lambda images: torch.stack([transform(x) for x in images]))
#
# Four recipes
# ------------
# Each is trained on three draws of 100 images, and tested on all others.
# ``standardize=True`` gives a network of your own the layer for raw data that those of
# the package have.
augmented = Training(augment=warped)
recipes = {
    "neither": {},
    "cosine": {"lr_schedule": "cosine"},
    "augmentation": {"training": augmented},
    "both": {"lr_schedule": "cosine", "training": augmented},
}
accuracies = {name: [] for name in recipes}
for seed in range(3):
    train, test, y_train, y_test = train_test_split(
        images, y, train_size=100, stratify=y, random_state=seed
    )
    for name, recipe in recipes.items():
        model = StructuredClassifier(
            resnet,
            max_epochs=50,
            batch_size=32,
            standardize=True,
            random_state=seed,
            **recipe,
        )
        model.fit(train, y_train)
        accuracies[name].append(100 * model.score(test, y_test))
for name, values in accuracies.items():
    print(f"{name:>12}: accuracy {np.mean(values):.1f} %")

# %%
# The warped images take longer to learn, and at a constant rate the weights still jump
# in the last epoch: augmentation pays together with the schedule.
figure, ax = plt.subplots(figsize=(6.4, 2.4), layout="constrained")
for number, (name, values) in enumerate(accuracies.items()):
    ax.plot(values, [name] * 3, "o", color=f"C{number}", alpha=0.5)
    ax.plot(np.mean(values), name, "|", color=f"C{number}", markersize=24)
ax.set(xlabel="test accuracy (%): three draws, and their mean", ylim=(3.5, -0.5))
plt.show()
