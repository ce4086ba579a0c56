"""
How many weights does a network need?
=====================================

A network is trained on scikit-learn's handwritten digits while a penalty of strength
``alpha`` takes the weights away that it can do without. ``GridSearchCV`` tries a range
of strengths in a pipeline, and the table shows what each costs: accuracy, and the share
of parameters that is left. The first row, ``alpha=0``, is the plain network.
"""

# %%
# The search
# ----------
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

from sklearn_structreg import CGESClassifier

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
# The trade-off
# -------------

figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
axes.axhline(accuracy[0], color="0.6", linestyle="--", label="plain network")
axes.errorbar(left[1:], accuracy[1:], error[1:], marker="o", capsize=3, label="CGES")
axes.plot(
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
    axes.annotate(
        rf"$\alpha$={ALPHAS[i]:g}",
        (left[i], accuracy[i]),
        xytext=(6, -12) if larger else (-8, 6),
        textcoords="offset points",
        ha="left" if larger else "right",
        fontsize=8,
    )
axes.set(
    xlabel="parameters left (%)",
    ylabel="accuracy, mean of 5 folds",
    title="Digits: accuracy over the size of the network",
    xlim=(0, 105),
)
axes.legend(loc="lower right")
figure.savefig("quickstart.png", dpi=150)
print("\nThe trade-off is drawn in quickstart.png")
