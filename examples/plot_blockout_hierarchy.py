"""
Which architecture did the network learn?
=========================================

:class:`~sklearn_structreg.BlockoutClassifier` puts every node of its fully-connected
layers into clusters, with probabilities that are learned. Here a network learns the
digits; then its architecture is read off, diagnosed, drawn and made real.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_structreg import BlockoutClassifier
from sklearn_structreg.blockout import (
    BlockoutDisplay,
    ExpectedClustersDisplay,
    NodeEmbeddingDisplay,
    ProbabilityHistoryDisplay,
)

# %%
# Train
# -----
# The price on multiply-adds presses nodes out of the clusters where they do not pay.
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
net = BlockoutClassifier(
    hidden_layer_sizes=(128, 128),
    n_clusters=4,
    block_penalty=0.3,
    max_epochs=60,
    random_state=0,
)
net.fit(X_train, y_train)
print(f"accuracy: {net.score(X_test, y_test):.3f}")

# %%
# The course of the probabilities
# -------------------------------
# All of them start at 0.8. The paper names three outcomes, one of which is a
# clustering.
print(net.diagnose())

# %%
# Each panel is a node set. The colour is the density of its probabilities in an epoch,
# the line their median. The classes are decided soonest.
ProbabilityHistoryDisplay.from_estimator(net)

# %%
# Nodes that are close share clusters. The classes are written beside theirs.
NodeEmbeddingDisplay.from_estimator(net)

# %%
# A class in many clusters has many weights of its own.
ExpectedClustersDisplay.from_estimator(net)

# %%
# The classes as data
# -------------------
# A tree over the classes can be cut into groups. Take it as a description of this
# network: another seed finds other groups (see the user guide on planted superclasses).
hierarchy = net.class_hierarchy()
for group in hierarchy.groups(5):
    print("share much:", group)
for cluster, digits in enumerate(hierarchy.clusters()):
    print(f"in cluster {cluster}: {digits}")

# %%
# From probabilities to blocks
# ----------------------------
# With a threshold the soft structure becomes a real one: weights between nodes without
# a common cluster are zero. The report gives the accuracy before and after.
hardened = net.harden(X_test, y_test, threshold=0.5)
print(hardened)

# %%
# The same function as parallel branches, which compute the blocks and nothing else, is
# in ``hardened.branches``. A box is a group of nodes in the same clusters.
BlockoutDisplay.from_estimator(net, threshold=0.5)
plt.show()
