"""
A network finds its own structure
=================================

Four networks are trained on scikit-learn's handwritten digits, and each learns a
structure of another kind. First, how many weights does a network need? A penalty of
strength ``alpha`` takes those away that it can do without, and ``GridSearchCV`` tries a
range of strengths in a pipeline. Then, which digits can share parts of the network,
which pixels move together, and which digits does the network mistake for each other?
"""

# %%
# How many weights are needed?
# ----------------------------
# Beside accuracy, every fold reports how many per cent of the parameters are not zero.
# Of the strengths whose accuracy is within one standard error of the best, the search
# picks the one that leaves the fewest.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    DropClusterClassifier,
    SelfInformedClassifier,
)
from sklearn_structreg.blockout import ExpectedClustersDisplay
from sklearn_structreg.dropcluster import DropClusterDisplay
from sklearn_structreg.selfinformed import ConfusionPartitionDisplay

torch.set_num_threads(1)  # the network is small, and the folds run side by side

ALPHAS = [0, 1e-2, 2e-2, 3e-2, 5e-2, 1e-1, 2e-1]


def accuracy_and_size(model, X, y):
    """Score a fitted pipeline."""
    net = model[-1]
    left = 100 * net.n_nonzero_parameters_ / net.n_parameters_
    return {"accuracy": model.score(X, y), "left": left}


def sparsest_within_one_standard_error(results):
    """Pick the index of the smallest network that is as good as the best."""
    accuracy, left = results["mean_test_accuracy"], results["mean_test_left"]
    best = accuracy.argmax()
    error = results["std_test_accuracy"][best] / np.sqrt(search.n_splits_)
    as_good = accuracy >= accuracy[best] - error
    return int(np.where(as_good, left, np.inf).argmin())


X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

model = make_pipeline(StandardScaler(), CGESClassifier(max_epochs=100, random_state=0))
search = GridSearchCV(
    model,
    {"cgesclassifier__alpha": ALPHAS},
    scoring=accuracy_and_size,
    refit=sparsest_within_one_standard_error,
    cv=5,
    n_jobs=-1,
)
search.fit(X_train, y_train)

# %%
# What each strength costs
# ------------------------

results = search.cv_results_
accuracy, left = results["mean_test_accuracy"], results["mean_test_left"]
error = results["std_test_accuracy"] / np.sqrt(search.n_splits_)

print("   alpha   accuracy (5 folds)   % of parameters left")
for i, alpha in enumerate(ALPHAS):
    note = "   plain network" if alpha == 0 else ""
    note += "   <- chosen" if i == search.best_index_ else ""
    print(f"{alpha:8.3g}   {accuracy[i]:.4f} +- {error[i]:.4f}   {left[i]:14.1f}{note}")

chosen = search.best_estimator_
plain = model.set_params(cgesclassifier__alpha=0).fit(X_train, y_train)
print("\nOn the held-out quarter:")
for name, fitted in [("plain network", plain), ("chosen", chosen)]:
    scores = accuracy_and_size(fitted, X_test, y_test)
    print(
        f"{name:>14}: accuracy {scores['accuracy']:.4f} with {scores['left']:.1f} % "
        "of the parameters"
    )

# %%
# Which structures are there?
# ---------------------------
# :class:`~sklearn_structreg.BlockoutClassifier` learns clusters of units, from the
# pixels to the digits, :class:`~sklearn_structreg.DropClusterClassifier` clusters of
# pixels that it drops together, and
# :class:`~sklearn_structreg.SelfInformedClassifier` gives groups of digits that it
# confuses a small network of their own. On digits there is little to gain: the plain
# network is right already, and the self-informed one gives up a fifth of its training
# samples to learn what it confuses. The methods' own pages show where each pays.

blockout = BlockoutClassifier(n_clusters=4, random_state=0)
dropcluster = DropClusterClassifier(
    image_shape=(1, 8, 8), max_epochs=30, random_state=0
)
self_informed = SelfInformedClassifier(
    n_clusters=3, head_layer_sizes=(32,), random_state=0
)
for net in (blockout, dropcluster, self_informed):
    fitted = make_pipeline(StandardScaler(), net).fit(X_train, y_train)
    print(f"{type(net).__name__:>22}: accuracy {fitted.score(X_test, y_test):.4f}")

clusters = ", ".join(f"{n:.1f}" for n in blockout.expected_clusters_[-1])
print(f"\nOf 4 clusters of units, the digits 0 to 9 expect to be in {clusters}.")
print(f"Each feature map has {dropcluster.n_clusters_} clusters of pixels.")
groups = [", ".join(map(str, group)) for group in self_informed.partition_.clusters_]
print(f"The network confuses the digits within {' and within '.join(groups)}.")

# %%
# What was learned
# ----------------
# The trade-off between accuracy and size; how many clusters of units each digit uses;
# the clusters of pixels in a feature map; the confusions, sorted by group.

figure, axes = plt.subplots(2, 2, figsize=(9.6, 7.2), layout="constrained")
(trade_off, expected), (pixels, confusions) = axes

trade_off.axhline(accuracy[0], color="0.6", linestyle="--", label="plain network")
trade_off.errorbar(
    left[1:], accuracy[1:], error[1:], marker="o", capsize=3, label="CGES"
)
trade_off.plot(
    left[search.best_index_],
    accuracy[search.best_index_],
    "o",
    markersize=13,
    markerfacecolor="none",
    color="C3",
    label="chosen",
)
for i in range(1, len(ALPHAS)):
    larger = i < search.best_index_
    trade_off.annotate(
        rf"$\alpha$={ALPHAS[i]:g}",
        (left[i], accuracy[i]),
        xytext=(6, -12) if larger else (-8, 6),
        textcoords="offset points",
        ha="left" if larger else "right",
        fontsize=8,
    )
trade_off.set(
    xlabel="parameters left (%)",
    ylabel="accuracy, mean of 5 folds",
    title="CGES: accuracy over the size of the network",
    xlim=(0, 105),
)
trade_off.legend(loc="lower right")

ExpectedClustersDisplay.from_estimator(blockout, ax=expected)
expected.set_title("Blockout: clusters of units per digit", pad=26)

images = StandardScaler().fit(X_train).transform(X_test)
DropClusterDisplay.from_estimator(
    dropcluster, images, kind="clusters", channels=[0], ax=[pixels]
)
pixels.set(title="DropCluster: clusters of pixels in a feature map")

partition = self_informed.partition_
ConfusionPartitionDisplay(
    partition.confusion_, partition.labels_, display_labels=self_informed.classes_
).plot(ax=confusions)
confusions.set(title="Self-informed: digits that are confused")
figure.savefig("quickstart.png", dpi=150)
print("\nAll four are drawn in quickstart.png")
