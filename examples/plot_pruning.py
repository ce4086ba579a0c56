"""
Pruning, and the price of sparsity
==================================

Iterative pruning drops the smallest weights in rounds and trains on in between (Han et
al. 2015); the thesis couples it with a CGES penalty in the place of L2. Then a path of
strengths for three penalties. The network is small, the images are scikit-learn's
digits.
"""

# %%
# Down to a tenth of the weights
# ------------------------------
# ``target_density`` is reached to within one weight. The first round comes after a
# quarter of the epochs, and pruned weights stay at exactly zero from then on.

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_structreg import CGESClassifier
from sklearn_structreg.cges import (
    SparsityDisplay,
    SparsityHistoryDisplay,
    TradeOffDisplay,
    cges_path,
)

torch.set_num_threads(1)
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.4, stratify=y, random_state=0
)

settings = {"max_epochs": 40, "random_state": 0}
dense = CGESClassifier(alpha=0, **settings).fit(X_train, y_train)
print(f"dense: accuracy {dense.score(X_test, y_test):.3f}")
for penalty, alpha in [("l2", 1e-4), ("cges", 0.3)]:
    for density in (0.1, 0.05, 0.03):
        pruned = CGESClassifier(
            alpha=alpha, penalty=penalty, target_density=density, **settings
        ).fit(X_train, y_train)
        print(
            f"{penalty:>4} pruned to {density:.0%}: accuracy "
            f"{pruned.score(X_test, y_test):.3f} with "
            f"{pruned.n_nonzero_parameters_} of {pruned.n_parameters_} parameters"
        )

# %%
# Epoch by epoch
# --------------
# Between the rounds the penalty goes on making zeros of its own.

SparsityHistoryDisplay.from_estimator(pruned)

# %%
# What is left
# ------------
# White weights are exactly zero. In the first layer whole columns are: pixels that the
# network does not look at.

SparsityDisplay.from_estimator(pruned)

# %%
# A range of strengths
# --------------------
# `cges_path` trains one network after the other, each from the weights of the one
# before. Three seeds give error bars. On this perceptron L1 keeps the accuracy with
# fewer parameters than the penalties with groups do; :doc:`/cges` has the convolutional
# network of the thesis.

strengths = {
    "l1": [0.1, 0.3, 1, 3],
    "group": [0.1, 0.3, 0.6, 1],
    "cges": [0.3, 1, 3, 6],
}
paths = {
    penalty: [
        cges_path(
            CGESClassifier(penalty=penalty, max_epochs=15, random_state=seed),
            *(X_train, y_train, X_test, y_test),
            alphas=alphas,
        )
        for seed in range(3)
    ]
    for penalty, alphas in strengths.items()
}
TradeOffDisplay.from_paths(paths)

# %%
for penalty, seeds in paths.items():
    accuracy = np.mean([path.scores for path in seeds], axis=0)
    left = np.mean([path.parameters for path in seeds], axis=0)
    cells = [f"{a:.3f} at {p:5.1%}" for a, p in zip(accuracy, left, strict=True)]
    print(f"{penalty:>6}: " + ", ".join(cells))
