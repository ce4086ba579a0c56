"""
Which features does the network need?
=====================================

The weights that leave an input feature form a group of the first layer, and a group
penalty sets whole groups to zero. `CGESSelector` lets its strength grow until no
feature is left: the later a feature dies, the better it is. Here five of a hundred
features make the label, and only together. The f-test and a random forest stand beside
it.
"""

# %%
# Features that only work together
# --------------------------------
# Two products and a wave: on its own none of the five features says much of the label.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import f_classif
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from sklearn_structreg import CGESSelector, StructuredClassifier
from sklearn_structreg.cges import FeaturePathDisplay

torch.set_num_threads(1)  # the network is small
X = np.random.default_rng(0).standard_normal((2000, 100))
y = X[:, 0] * X[:, 1] + X[:, 2] * X[:, 3] + np.sin(3 * X[:, 4]) > 0
X_train, X_test, y_train, y_test = X[:1000], X[1000:], y[:1000], y[1000:]

# %%
# Three rankings
# --------------
# ``ranking_`` orders all features, whatever the number to select. With
# ``n_features_to_select="cv"`` cross-validation finds that number, too.

selector = CGESSelector(5, random_state=0).fit(X_train, y_train)
forest = RandomForestClassifier(200, random_state=0).fit(X_train, y_train)
rankings = {
    "CGESSelector": np.argsort(selector.ranking_),
    "random forest": np.argsort(-forest.feature_importances_),
    "f-test": np.argsort(-f_classif(X_train, y_train)[0]),
}
sizes = [2, 4, 5, 8, 20, 100]
accuracies = {}
for name, order in rankings.items():
    accuracies[name] = [
        StructuredClassifier(random_state=0)
        .fit(X_train[:, order[:size]], y_train)
        .score(X_test[:, order[:size]], y_test)
        for size in sizes
    ]
    right = np.isin(order[:5], np.arange(5)).sum()
    row = " ".join(f"{a:.3f}" for a in accuracies[name])
    print(f"{name:>14}: {right} of the best 5 are right; accuracy {row}")

# %%
# The same network on the best features
# -------------------------------------
# On all features it is hardly better than a coin.

figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for (name, values), marker in zip(accuracies.items(), "Dso", strict=True):
    ax.plot(sizes, 100 * np.array(values), marker=marker, label=name)
ax.set(xscale="log", xlabel="features", ylabel="test accuracy (%)", xticks=sizes)
ax.set_xticklabels(sizes)
ax.minorticks_off()
ax.legend()

# %%
# In a pipeline
# -------------
# There each fold selects features of its own, as it must for an honest score.

pipeline = make_pipeline(
    CGESSelector(5, random_state=0), StructuredClassifier(random_state=0)
)
scores = cross_val_score(pipeline, X_train, y_train, cv=3)
print(f"cross-validated accuracy {scores.mean():.3f}")

# %%
# The path
# --------
# Each line is the norm of a feature's weights; where it ends, the feature dies. After
# each dotted line the better half of the features goes on with a fresh network.

FeaturePathDisplay.from_estimator(selector, n_features=5)
plt.show()
