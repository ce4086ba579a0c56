"""
Regions of pixels as features: ReNA in a pipeline
=================================================

Neighbouring pixels of an image say much the same. :class:`ReNAClusterer` groups those
that vary together and hands on one mean per group: fewer features for what follows,
and features that can be shown as a map. Here it stands before a logistic regression on
the digits, its number of clusters found by a grid search, beside PCA and
scikit-learn's Ward clustering in the same place.
"""

# %%
# Three reducers, one grid
# ------------------------

from time import perf_counter

import matplotlib.pyplot as plt
from sklearn.cluster import FeatureAgglomeration
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.feature_extraction.image import grid_to_graph
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline

from sklearn_structreg.dropcluster import ReNAClusterer, ReNADisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)

sizes = [8, 16, 32, 48]
reducers = {
    "ReNA": (ReNAClusterer(image_shape=(8, 8)), "n_clusters"),
    "Ward": (FeatureAgglomeration(connectivity=grid_to_graph(8, 8)), "n_clusters"),
    "PCA": (PCA(random_state=0), "n_components"),
}

searches = {}
for name, (reducer, size) in reducers.items():
    pipeline = Pipeline(
        [("reduce", reducer), ("classify", LogisticRegression(max_iter=1000))]
    )
    search = GridSearchCV(pipeline, {f"reduce__{size}": sizes}, cv=3)
    searches[name] = search.fit(X_train, y_train)

pixels = LogisticRegression(max_iter=1000).fit(X_train, y_train)

# %%
# Accuracy and time
# -----------------
#
# Test accuracy of the best size, and the time to fit the reducer alone at that size. On
# images of 64 pixels every reducer takes milliseconds; the documentation's page on
# clustering has times on large images, where they differ by orders of magnitude.

print(f"{'':6s} {'size':>5s} {'cross-validated':>16s} {'test':>7s} {'fit':>9s}")
for name, (_, size) in reducers.items():
    search = searches[name]
    best = search.best_params_[f"reduce__{size}"]
    start = perf_counter()
    search.best_estimator_["reduce"].fit(X_train)
    milliseconds = 1e3 * (perf_counter() - start)
    print(
        f"{name:6s} {best:5d} {search.best_score_:16.3f} "
        f"{search.score(X_test, y_test):7.3f} {milliseconds:6.1f} ms"
    )
print(f"pixels {64:5d} {'':16s} {pixels.score(X_test, y_test):7.3f}")

# %%
# How accuracy grows with the number of features. On this task PCA makes the most of few
# features, and Ward clustering, which weighs every merge against all others, more than
# ReNA; from half the pixels on, the three are alike. ReNA is for images on which the
# other two take too long, or whose features must have a place.

figure, ax = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
for name, search in searches.items():
    mean = search.cv_results_["mean_test_score"]
    spread = search.cv_results_["std_test_score"]
    ax.errorbar(sizes, mean, spread, marker="o", capsize=3, label=name)
ax.set(xlabel="features kept", ylabel="cross-validated accuracy", xticks=sizes)
ax.legend(frameon=False)

# %%
# The regions
# -----------
#
# Unlike components, clusters have a place: these are the features that the classifier
# sees at 16 clusters. The empty corners fall into a few clusters; where digits differ
# the clusters are small.

clusterer = ReNAClusterer(16, image_shape=(8, 8)).fit(X_train)
ReNADisplay.from_estimator(clusterer, X_train)
plt.show()
