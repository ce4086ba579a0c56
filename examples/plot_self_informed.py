"""
Specialist heads for digits that look alike
===========================================

:class:`~sklearn_structreg.SelfInformedClassifier` trains a network, groups the classes
that it confuses on held-out samples, and adds a small specialist head for each group.
The old weights stay as they are.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from sklearn_structreg import SelfInformedClassifier
from sklearn_structreg.selfinformed import (
    ConfusionPartitionDisplay,
    GroupTable,
    SelfInformedDisplay,
)

# %%
# Fit
# ---
# The base is a small convolutional net. Two more, trained on half of the samples each,
# show the classes that are confused in the other half.
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.5, stratify=y, random_state=0
)
model = SelfInformedClassifier(
    n_clusters=4,
    head_layer_sizes=(32, 32),
    image_shape=(1, 8, 8),
    max_epochs=30,
    random_state=0,
).fit(X_train, y_train)
print(f"base:       {model.estimator_.score(X_test, y_test):.3f}")
print(f"with heads: {model.score(X_test, y_test):.3f}")

# %%
# The base makes hardly a mistake on the samples that it was trained on, so its frozen
# features leave the heads little to learn here: they change a few predictions, no more.
# Where a base is far from perfect, they do more; the documentation has figures.
#
# The groups
# ----------
# Next to each group stands the share of its digits' confusions that stay inside of it.
print(GroupTable.from_estimator(model))
GroupTable.from_estimator(model)

# %%
# The groups come from these shares: of each true digit's detections, on every other.
ConfusionPartitionDisplay.from_estimator(model)
plt.show()

# %%
# The network
# -----------
# Each head reads the input of the first fully-connected layer, and is connected to the
# outputs of its own group alone. Grey layers were trained before and are frozen; orange
# ones are new, and so is the classifier layer.
SelfInformedDisplay.from_estimator(model)
plt.show()

# %%
# Does the choice of the groups matter?
# -------------------------------------
# The paper's control draws as many and as large groups by lot. All variants can share
# one base: ``FrozenEstimator`` keeps it fitted, in a grid search too. A
# serious comparison averages over several seeds.
base = FrozenEstimator(model.estimator_)
for source in ("confusion", "codetection", "random"):
    variant = SelfInformedClassifier(
        base,
        n_clusters=4,
        head_layer_sizes=(32, 32),
        source=source,
        max_epochs=30,
        random_state=0,
    ).fit(X_train, y_train)
    print(f"{source:12} {variant.score(X_test, y_test):.3f}")

# %%
# Only the heads that a sample needs
# ----------------------------------
# A sample whose best class by the old network is in another group can do without a
# head. The saving is counted, and its price in accuracy measured.
for conditional in (None, 2, 1):
    model.set_params(conditional=conditional)
    extra = model.count_multiply_adds(X_test) - model.multiply_adds_.base
    print(
        f"conditional={conditional!s:5} accuracy {model.score(X_test, y_test):.3f}, "
        f"{extra:,.0f} extra multiply-adds a sample"
    )
