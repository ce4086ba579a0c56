"""
Classes that a random forest confuses
=====================================

A fitted classifier's own mistakes show the classes that look alike to it. Here
:class:`~sklearn_structreg.ConfusionSpectralPartitioner` groups the ten
digits by the probabilities that a random forest gives to held-out images, and
:class:`~sklearn_structreg.selfinformed.ConfusionPartitionDisplay` shows the confusions.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from sklearn_structreg.selfinformed import (
    ConfusionPartitionDisplay,
    ConfusionSpectralPartitioner,
)

# %%
# A forest, and samples that it has not seen
# ------------------------------------------
# The scores must come from held-out data: on its training data a forest makes no
# mistakes to learn from.
X, y = load_digits(return_X_y=True)
X_train, X_held_out, y_train, y_held_out = train_test_split(
    X, y, test_size=0.5, stratify=y, random_state=0
)
forest = RandomForestClassifier(random_state=0).fit(X_train, y_train)
print(f"held-out accuracy: {forest.score(X_held_out, y_held_out):.3f}")

# %%
# Group the classes
# -----------------
# With ``top_k=2`` the best two of the ten probabilities count as detections, so that
# even a correct prediction counts a confusion, with the digit that came second.
scores = forest.predict_proba(X_held_out)
partitioner = ConfusionSpectralPartitioner(
    n_clusters=4, top_k=2, classes=forest.classes_, random_state=0
)
partitioner.fit(scores, y_held_out)
for group, digits in enumerate(partitioner.clusters_):
    print(f"group {group}: {digits}")

# %%
# See why
# -------
# Each row shows on which other digits the detections of a true digit fell. The frames
# are the groups: the darkest cells should lie inside.
ConfusionPartitionDisplay.from_estimator(partitioner)
plt.show()

# %%
# Against groups drawn by lot
# ---------------------------
# The paper's control keeps the sizes of the groups and permutes the classes. Of the
# forest's mistakes, groups found this way hold about three times as many.
groups, wrong = partitioner.labels_, forest.predict(X_held_out) != y_held_out
true, guessed = y_held_out[wrong], scores[wrong].argmax(axis=1)
found = np.mean(groups[true] == groups[guessed])
rng = np.random.default_rng(0)
lots = [rng.permutation(groups) for _ in range(1000)]
drawn = np.mean([lot[true] == lot[guessed] for lot in lots])
print(f"mistakes within a group: {found:.0%} found, {drawn:.0%} drawn by lot")
