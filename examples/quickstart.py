"""
Networks that find their own structure
======================================

First a table in which most columns say nothing, and a network that finds out which do.
Then three networks that learn handwritten digits, each with a structure of its own:
digits that share clusters of units, pixels that move together, digits that are
confused.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    CGESClassifierCV,
    DropClusterClassifier,
    SelfInformedClassifier,
    StructuredClassifier,
)
from sklearn_structreg.blockout import BlockoutDisplay
from sklearn_structreg.cges import StrengthDisplay
from sklearn_structreg.dropcluster import DropClusterDisplay
from sklearn_structreg.selfinformed import ConfusionPartitionDisplay

torch.set_num_threads(1)  # the networks are small

# %%
# A wide table of noise
# ---------------------
# The 64 pixels of each digit stand among 960 columns that are shuffled copies of them:
# distributed alike, but without a relation to the digit. 400 rows are for training.
X, y = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
table = np.hstack([X, *(rng.permuted(X, axis=0) for _ in range(15))])
train, test, y_train, y_test = train_test_split(
    table, y, train_size=400, stratify=y, random_state=0
)
linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
plain = StructuredClassifier(random_state=0)
cges = CGESClassifierCV(cv=3, random_state=0)
models = {
    "plain network": plain,
    "logistic regression": linear,
    "random forest": RandomForestClassifier(500, random_state=0),
    "CGES": cges,
}
accuracies = {
    name: model.fit(train, y_train).score(test, y_test)
    for name, model in models.items()
}
for name, accuracy in accuracies.items():
    print(f"{name:>20}: accuracy {accuracy:.3f}")
columns = cges.feature_importances_ > 0
print(f"CGES reads {columns.sum()} of 1024 columns, {columns[:64].sum()} of 64 pixels.")

# %%
# On these columns a network can be small: compaction takes out the units that it does
# not need.
small = CGESClassifier(penalty="group", alpha=0.3, random_state=0)
small.fit(train[:, columns], y_train)
before, after = plain.size_report(test), small.size_report(test[:, columns])
print(
    f"Compacted: accuracy {small.score(test[:, columns], y_test):.3f} with "
    f"{after.n_compact:,} parameters in the place of {before.n_parameters:,}, "
    f"{before.latency / after.compact_latency:.0f} times as fast as the plain network."
)

# %%
# Three other structures
# ----------------------
# Each is a scikit-learn estimator, and takes the pixels as they are. The accuracies
# hardly differ, for digits without noise are easy; the structures do.
train, test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
blockout = BlockoutClassifier(init_probability=0.5, block_penalty=0.5, random_state=0)
drop = DropClusterClassifier(image_shape=(1, 8, 8), max_epochs=30, random_state=0)
plain = StructuredClassifier(random_state=0)
for net in (plain, blockout, drop):
    accuracy = net.fit(train, y_train).score(test, y_test)
    print(f"{type(net).__name__:>22}: accuracy {accuracy:.3f}")
print(f"Each feature map has {drop.n_clusters_} clusters of pixels.")

# %%
# Blockout learns which pixels, units and digits share clusters, at a price for every
# multiply-add. Hardened, it keeps only the weights inside of clusters.
hardened = blockout.harden(test, y_test)
dense, sparse = hardened.multiply_adds
print(
    f"Blockout, hardened: accuracy {hardened.hardened_score:.3f} with "
    f"{sparse / dense:.0%} of the multiply-adds."
)

# %%
# Self-informed structure is for a trained network that is too small: here a linear one
# gets a head of 32 units for each group of digits that it confuses. Where the network
# has its hidden layer from the start, as above, heads gain nothing.
informed = SelfInformedClassifier(
    hidden_layer_sizes=(),
    n_clusters=3,
    head_layer_sizes=(32,),
    head_epochs=1.0,
    fresh_classifier=True,
    random_state=0,
).fit(train, y_train)
base, heads = (each.score(test, y_test) for each in (informed.estimator_, informed))
print("Digits that a linear network confuses:", *informed.partition_.clusters_)
print(
    f"A head for each group raises its accuracy from {base:.3f} to {heads:.3f}, "
    f"by {100 * (heads - base):.1f} points."
)

# %%
figure, ((a, b, c), (d, e, f)) = plt.subplots(
    2, 3, figsize=(16, 9.5), layout="constrained"
)
bars = a.barh(list(accuracies), [100 * each for each in accuracies.values()])
bars[-1].set_color("tab:orange")
a.bar_label(bars, fmt="%.1f", padding=3)
a.set(xlabel="test accuracy (%)", xlim=(0, 112))
image = b.imshow(cges.feature_importances_[:64].reshape(8, 8), cmap="Blues")
b.set(xticks=[], yticks=[])
figure.colorbar(image, ax=b, label="importance")
shares = {
    "parameters": after.n_compact / before.n_parameters,
    "multiply-adds": after.compact_flops / before.flops,
    "time": after.compact_latency / before.latency,
}
bars = c.barh(
    list(shares), [100 * each for each in shares.values()], color="tab:orange"
)
c.bar_label(bars, fmt="%.1f", padding=3)
c.set(xlabel="share of the plain network's (%)", xlim=(0, 112))
for ax in (a, c):
    ax.invert_yaxis()
BlockoutDisplay.from_estimator(blockout, max_groups=8, ax=d)
DropClusterDisplay.from_estimator(drop, test, kind="clusters", channels=[0], ax=e)
ConfusionPartitionDisplay.from_estimator(informed, ax=f)
titles = (
    *("64 pixels among 960 columns of noise", "CGES: the pixels that it reads"),
    *("CGES, compacted", f"Blockout: {sparse / dense:.0%} of the multiply-adds"),
    *("DropCluster: pixels", "Self-informed: confusions"),
)
for ax, title in zip((a, b, c, d, e, f), titles, strict=True):
    ax.set_title(title, fontweight="bold", pad=32 if ax in (d, e, f) else 10)
figure.savefig("quickstart.png", dpi=120)
print("The pictures are in quickstart.png.")

# %%
# CGES chose the strength of its penalty by cross-validation. Of the columns, the first
# 64 are the pixels.
StrengthDisplay.from_estimator(cges)
