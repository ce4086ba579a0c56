"""
Text: TF-IDF, sparse all the way
================================

The matrix of a ``TfidfVectorizer`` goes into a network as it is: it stays sparse, and
only the rows of a mini-batch are made dense. Here the docstrings of scipy are sorted
by the subpackages that they come from.
"""

import importlib
import inspect
import re

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import make_pipeline

from sklearn_structreg import CGESClassifier, StructuredClassifier

torch.set_num_threads(1)  # the networks are small

# %%
# The texts
# ---------
# Of each function or class all that stands before its parameters, without the names of
# subpackages.
texts = {}
for name in (
    *("fft", "integrate", "interpolate", "linalg", "ndimage", "optimize"),
    *("signal", "sparse", "spatial", "special", "stats"),
):
    package = importlib.import_module(f"scipy.{name}")
    for each in package.__all__:
        text = inspect.getdoc(getattr(package, each)) or ""
        text = re.sub(r"scipy\.\w+", "", text.partition("Parameters\n")[0])
        if len(text.split()) > 5:
            texts[text] = name
X, y = list(texts), np.array(list(texts.values()))
print(f"{len(X)} texts of {len(set(y))} subpackages, the first:\n\n{X[0]}")

# %%
# In a pipeline
# -------------
# Three settings suit texts. The entries of a row are on one scale that means something,
# so that ``standardize=False`` keeps it. Most of them are zero, so that a learning rate
# may be higher than the one for so many features. And Adam gives rare words steps as
# long as frequent ones.
text_settings = {
    "standardize": False,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "max_epochs": 20,
    "random_state": 0,
}
cges = CGESClassifier(**text_settings)
models = {
    "complement naive Bayes": ComplementNB(),
    "logistic regression": LogisticRegression(C=10, max_iter=1000),
    "network": StructuredClassifier(**text_settings),
    "network at the default rate": StructuredClassifier(
        **(text_settings | {"learning_rate": "auto"})
    ),
    "CGES": cges,
}
folds = StratifiedKFold(3, shuffle=True, random_state=0)
for name, model in models.items():
    pipeline = make_pipeline(TfidfVectorizer(sublinear_tf=True, min_df=2), model)
    scores = 100 * cross_val_score(pipeline, X, y, cv=folds)
    print(f"{name:>27}: accuracy {scores.mean():.1f} %, {scores.round(1)}")

# %%
# The words that count
# --------------------
# `CGESClassifier` sets weights to zero; the importance of a word is the norm of those
# that leave it.
vectorizer, cges = pipeline.fit(X, y)
importances = cges.feature_importances_
words = vectorizer.get_feature_names_out()
print(f"{cges.sparsity_:.0%} of the weights are zero.")
best = np.argsort(-importances)[:25]

figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.bar(words[best], importances[best])
ax.tick_params(axis="x", rotation=90)
ax.set_ylabel("importance")
plt.show()
