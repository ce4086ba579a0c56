"""
A network of your own, made sparse
==================================

Any torch module can be the network: here a convolutional one with batch normalization,
on digits as images. The history holds the sparsity of each layer after every epoch.
Then the same penalty trains the same module in a plain skorch net.
"""

# %%
# In the estimator
# ----------------
# A class whose signature names ``input_shape`` and ``n_outputs`` gets them from the
# data.

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_structreg import CGESClassifier
from sklearn_structreg.cges import CGES, SparsityHistoryDisplay
from sklearn_structreg.core import RegularizerCallback

torch.set_num_threads(1)  # the network is small


class Net(nn.Sequential):
    """Two convolutions with batch normalization, and a linear layer on top."""

    def __init__(self, input_shape, n_outputs, width=16):
        channels, height, n_columns = input_shape
        n_pixels = (height // 2) * (n_columns // 2)
        super().__init__()
        self.add_module("conv 1", nn.Conv2d(channels, width, 3, padding=1, bias=False))
        self.add_module("norm 1", nn.BatchNorm2d(width))
        self.add_module("relu 1", nn.ReLU())
        self.add_module("conv 2", nn.Conv2d(width, width, 3, padding=1, bias=False))
        self.add_module("norm 2", nn.BatchNorm2d(width))
        self.add_module("relu 2", nn.ReLU())
        self.add_module("pool", nn.MaxPool2d(2))
        self.add_module("flat", nn.Flatten())
        self.add_module("linear", nn.Linear(width * n_pixels, n_outputs))


X, y = load_digits(return_X_y=True)
images = (X / 16).reshape(-1, 1, 8, 8)
split = train_test_split(images, y, stratify=y, random_state=0)
X_train, X_test, y_train, y_test = split

model = CGESClassifier(Net, max_epochs=30, random_state=0)
model.fit(X_train, y_train)
print(
    f"accuracy {model.score(X_test, y_test):.3f} with {model.n_nonzero_parameters_} of "
    f"{model.n_parameters_} parameters"
)

# %%
# Where the zeros are
# -------------------
# The top layer, where the exclusive term weighs most, loses its weights first.

SparsityHistoryDisplay.from_estimator(model)

# %%
# In a skorch net
# ---------------
# One callback takes any regularizer.

net = NeuralNetClassifier(
    Net((1, 8, 8), 10),
    criterion=nn.CrossEntropyLoss,
    optimizer__momentum=0.9,
    lr=0.05,
    max_epochs=30,
    callbacks=[("cges", RegularizerCallback(CGES(0.3)))],
    train_split=None,
    verbose=0,
)
net.fit(X_train.astype("float32"), y_train)
accuracy = net.score(X_test.astype("float32"), y_test)
print(f"accuracy {accuracy:.3f}, {net.history[-1, 'sparsity']:.0%} of the weights zero")
