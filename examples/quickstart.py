"""
Networks that find their own structure
======================================

Five networks learn scikit-learn's handwritten digits. The plain one has no structure;
the others find weights that are needed, digits that share clusters of units, pixels
that move together, and digits that are confused.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    DropClusterClassifier,
    SelfInformedClassifier,
    StructuredClassifier,
)
from sklearn_structreg.blockout import ExpectedClustersDisplay
from sklearn_structreg.cges import SparsityDisplay
from sklearn_structreg.dropcluster import DropClusterDisplay
from sklearn_structreg.selfinformed import ConfusionPartitionDisplay

torch.set_num_threads(1)  # the networks are small
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

# %%
# Each is a scikit-learn estimator, and takes the pixels as they are.
plain = StructuredClassifier(random_state=0)
cges = CGESClassifier(random_state=0)
blockout = BlockoutClassifier(n_clusters=4, random_state=0)
drop = DropClusterClassifier(image_shape=(1, 8, 8), max_epochs=30, random_state=0)
informed = SelfInformedClassifier(n_clusters=3, head_layer_sizes=(32,), random_state=0)
for net in (plain, cges, blockout, drop, informed):
    accuracy = net.fit(X_train, y_train).score(X_test, y_test)
    print(f"{type(net).__name__:>22}: accuracy {accuracy:.3f}")

# %%
# The accuracies hardly differ: digits are easy. The structures do.
print(f"CGES keeps {1 - cges.sparsity_:.0%} of the weights.")
print(f"Of 4 clusters each digit expects {blockout.expected_clusters_[-1].round(1)}.")
print(f"Each feature map has {drop.n_clusters_} clusters of pixels.")
print("Digits that are confused:", *informed.partition_.clusters_)

figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
SparsityDisplay.from_estimator(cges, layers=["0.weight"], n_inputs=64, ax=a)
ExpectedClustersDisplay.from_estimator(blockout, ax=b)
DropClusterDisplay.from_estimator(drop, X_test, kind="clusters", channels=[0], ax=c)
ConfusionPartitionDisplay.from_estimator(informed, ax=d)
titles = "CGES: weights", "Blockout", "DropCluster: pixels", "Self-informed: confusions"
for ax, title in zip((a, b, c, d), titles, strict=True):
    ax.set_title(title, fontweight="bold", pad=32)
figure.savefig("quickstart.png", dpi=150)
