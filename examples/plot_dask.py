"""
A search on a Dask cluster
==========================

Many fits run on many machines, with no change to the search:
:class:`~sklearn_structreg.StrengthSearchCV` hands its work to joblib, and joblib hands
it to Dask. Here the cluster is two threads of this machine, which is enough to see how
it goes; with an address of a scheduler in the place of the cluster, the same lines use
what is behind it.
"""

# %%
# The cluster
# -----------
# ``Client("tcp://scheduler:8786")`` connects to one that runs, ``Client()`` starts
# one process for each core of this machine.

import joblib
import matplotlib.pyplot as plt
import numpy as np
import torch
from distributed import Client, LocalCluster
from sklearn.datasets import load_digits
from sklearn.model_selection import RepeatedStratifiedKFold

from sklearn_structreg import CGESClassifier, StrengthSearchCV

torch.set_num_threads(1)  # the networks are small
cluster = LocalCluster(
    n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
)
client = Client(cluster)

# %%
# The search
# ----------
# A task is a split with all strengths of the penalty on it, which are trained as one
# network. So there are as many tasks as splits: repeated folds keep more workers busy,
# and give the means a smaller error.

X, y = load_digits(return_X_y=True)
X, y = X[::3], y[::3]
strengths = [0.1, 0.3, 1.0, 3.0, 10.0]
search = StrengthSearchCV(
    CGESClassifier(max_epochs=25, random_state=0),
    {"alpha": strengths},
    cv=RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0),
    scoring={
        "accuracy": "accuracy",
        "zeros": lambda model, X, y: model.sparsity_,
    },
    refit="accuracy",
)
with joblib.parallel_config(backend="dask"):
    search.fit(X, y)
print(f"best strength {search.best_params_['alpha']}")

# %%
# The same numbers as without a cluster
# -------------------------------------
# Every training draws from its own ``random_state``, wherever it runs.

on_cluster = search.cv_results_["mean_test_accuracy"]
alone = search.fit(X, y).cv_results_["mean_test_accuracy"]
print(f"largest difference of a mean score: {np.abs(on_cluster - alone).max()}")

# %%
# Scores
# ------
# The strongest penalty that is within an error of the best leaves the smallest network.

results = search.cv_results_
figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
n_splits = search.n_splits_
for name, color in ("accuracy", "C0"), ("zeros", "C1"):
    mean = 100 * results[f"mean_test_{name}"]
    error = 100 * results[f"std_test_{name}"] / np.sqrt(n_splits)
    label = {"accuracy": "accuracy", "zeros": "weights that are zero"}[name]
    ax.errorbar(strengths, mean, error, marker="o", color=color, label=label)
ax.set(xscale="log", xlabel="alpha", ylabel=f"% (mean of {n_splits} splits)")
ax.legend()
plt.show()

client.close()
cluster.close()
